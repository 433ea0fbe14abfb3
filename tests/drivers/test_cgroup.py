"""Control groups on this machine's kernel, and the version 2 layout on a drawn tree."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bessemer.core.cpus import show_cpus
from bessemer.core.errors import DriverError
from bessemer.drivers.cgroup import Cgroups, Limits

UID = "5a0c7f6e-uid"


@pytest.fixture
async def groups() -> AsyncIterator[Cgroups]:
    groups = Cgroups(f"bessemer-test-{uuid.uuid4().hex[:8]}/guests")
    if not groups.available:
        pytest.skip("control groups need root and a memory controller")
    yield groups
    for uid in groups.uids():
        await groups.remove(uid)


async def start(groups: Cgroups, *argv: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(*groups.enter(UID), *argv)


@pytest.mark.real
async def test_a_command_runs_inside_and_ends_with_its_group(groups: Cgroups) -> None:
    groups.create(UID, Limits(milli_cores=500, memory_bytes=64 << 20, pids=20))
    process = await start(groups, "/bin/sh", "-c", "sleep 60 & sleep 60 & wait")
    async with asyncio.timeout(30):
        while len(groups.pids(UID)) < 3:
            await asyncio.sleep(0.01)
    assert process.pid in groups.pids(UID)
    assert groups.uids() == {UID}
    await groups.remove(UID)
    assert await process.wait() == -9
    assert (groups.uids(), groups.pids(UID), groups.usage(UID)) == (frozenset(), frozenset(), None)


@pytest.mark.real
async def test_too_much_memory_is_counted_as_such(groups: Cgroups) -> None:
    groups.create(UID, Limits(memory_bytes=512 << 20))
    groups.create(UID, Limits(memory_bytes=32 << 20))
    process = await start(groups, "/usr/bin/python3", "-c", "bytearray(256 << 20)")
    assert await process.wait() == -9
    usage = groups.usage(UID)
    assert usage is not None
    assert usage.oom_kills == 1
    assert usage.memory_peak_bytes <= 32 << 20


@pytest.mark.real
async def test_repeating_is_harmless(groups: Cgroups) -> None:
    await groups.remove(UID)
    groups.create(UID, Limits())
    groups.create(UID, Limits())
    await groups.remove(UID)
    await groups.remove(UID)
    assert groups.uids() == frozenset()


def test_a_pure_version_2_tree_gets_limits_and_delegation(tmp_path: Path) -> None:
    tree = tmp_path / "unified"
    group = tree / "bessemer" / "guests" / UID
    group.mkdir(parents=True)
    (tree / "cgroup.controllers").write_text("cpu io memory pids\n")
    for name in ("cpu.max", "memory.max", "memory.swap.max", "memory.oom.group", "pids.max"):
        (group / name).touch()
    mounts = tmp_path / "mounts"
    mounts.write_text(f"cgroup2 {tree} cgroup2 rw 0 0\n")
    groups = Cgroups("bessemer/guests", mounts=mounts)
    groups.create(UID, Limits(milli_cores=1500, memory_bytes=1 << 30, pids=64))
    assert (group / "cpu.max").read_text() == "150000 100000"
    assert (group / "memory.max").read_text() == str(1 << 30)
    assert (group / "memory.swap.max").read_text() == "0"
    for level in (tree, tree / "bessemer", tree / "bessemer" / "guests"):
        assert (level / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert not (group / "cgroup.subtree_control").exists()
    assert groups.available == (os.geteuid() == 0)
    assert groups.uids() == {UID}


def test_sets_of_threads_are_held_on_version_2(tmp_path: Path) -> None:
    """Also of a group that an earlier release made: the parents pass the controller on, and it is pinned then."""
    tree, group = tmp_path / "cgroup", tmp_path / "cgroup" / "bessemer" / UID
    group.mkdir(parents=True)
    (tree / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    for name in ("cpuset.cpus", "cgroup.procs"):
        (group / name).touch()
    (tmp_path / "mounts").write_text(f"cgroup2 {tree} cgroup2 rw 0 0\n")
    groups = Cgroups("bessemer", mounts=tmp_path / "mounts")
    assert groups.pin(UID, "2-3")
    assert (group / "cpuset.cpus").read_text() == "2-3"
    assert (tree / "cgroup.subtree_control").read_text() == "+cpu +cpuset +memory +pids"
    assert not groups.pin("another", "2-3")
    groups.create(UID, Limits())
    assert (group / "cpuset.cpus").read_text() == show_cpus(os.sched_getaffinity(0))


def test_a_name_that_climbs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mounts").touch()
    groups = Cgroups("bessemer", mounts=tmp_path / "mounts")
    (tmp_path / "mounts").write_text(f"cgroup2 {tmp_path} cgroup2 rw 0 0\n")
    groups = Cgroups("bessemer", mounts=tmp_path / "mounts")
    with pytest.raises(ValueError, match="name of a group"):
        groups.create("../other", Limits())
    with pytest.raises(ValueError, match="path of groups"):
        Cgroups("bessemer/../other")


def test_a_kernel_that_refuses_is_a_driver_error(tmp_path: Path) -> None:
    (tmp_path / "mounts").write_text("cgroup2 /proc/nowhere cgroup2 rw 0 0\n")
    with pytest.raises(DriverError) as caught:
        Cgroups("bessemer", mounts=tmp_path / "mounts").create(UID, Limits())
    assert caught.value.reason == "CgroupRefused"


async def test_a_process_that_cannot_be_seen_is_no_group_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is listed as 0, which to kill means whoever asks: the agent and all that stands beside it."""
    (tmp_path / "cgroup").mkdir()
    mounts = tmp_path / "mounts"
    mounts.write_text(f"none {tmp_path / 'cgroup'} cgroup2 rw 0 0\n")
    drawn = Cgroups("bessemer", mounts=mounts)
    group = tmp_path / "cgroup" / "bessemer" / UID
    group.mkdir(parents=True)
    (group / "cgroup.procs").write_text("0\n77777777\n")
    asked: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, _number: asked.append(pid))
    with pytest.raises(DriverError) as caught:
        await drawn.kill(UID, timeout_seconds=0.02)
    assert caught.value.reason == "ProcessesLinger", "it is still there, though"
    assert set(asked) == {77777777}


@pytest.mark.real
async def test_a_parent_that_goes_while_it_is_looked_at_holds_nothing(
    groups: Cgroups, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups.create(UID, Limits())
    with monkeypatch.context() as patched:
        patched.setattr(Path, "iterdir", _gone)
        assert groups.uids() == frozenset()
    assert groups.uids() == {UID}


def _gone(path: Path) -> None:
    raise FileNotFoundError(path)
