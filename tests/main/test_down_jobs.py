"""`down` and members of jobs: what runs is ended, and how it ended is still there for the next agent. And devices of
guests."""

from __future__ import annotations

from pathlib import Path

import pytest

from bessemer.drivers.jobs.protocol import MemberSpec
from bessemer.drivers.process.protocol import End
from bessemer.main.down import stop_all
from bessemer.main.hostdrivers import local_drivers
from bessemer.main.settings import Paths


@pytest.mark.real
async def test_a_member_is_ended_and_its_end_is_kept(state_dir: Path) -> None:
    paths = Paths(state_dir)
    jobs = local_drivers(paths.agent).jobs
    try:
        member = await jobs.start(MemberSpec("m-1", ("/bin/sleep", "600"), cores_milli=500, memory_bytes=48 << 20))
        assert f"member m-1 of a job (pid {member.pid}) stopped" in await stop_all(paths)
        assert await jobs.running() == ()
        end = await jobs.ended("m-1")
        assert end is not None
        assert end.reason is End.KILLED, "no failure of the job's own"
        assert await stop_all(paths) == []
    finally:
        await jobs.remove("m-1")


async def test_devices_that_were_handed_over_are_given_back(state_dir: Path) -> None:
    paths = Paths(state_dir)
    record = paths.agent / "passthrough" / "instance-uid"
    record.parent.mkdir(parents=True)
    record.write_text('{"nic-0": ["ffff:ff:1f.7"]}')
    await stop_all(paths)
    assert not record.exists()
