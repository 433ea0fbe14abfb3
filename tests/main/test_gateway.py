"""What the gateway's process is put together from: whose doors it dials on this machine."""

from __future__ import annotations

from pathlib import Path

from bessemer.drivers.engine.doors import default_folder
from bessemer.main.gateway import doors_of
from bessemer.main.settings import Paths, Settings, host_name


def test_only_the_hosts_of_this_machine_have_doors_here(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    folder_of = doors_of(paths, Settings(fake_hosts=2))
    assert folder_of(host_name()) == default_folder(paths.agent)
    assert folder_of("fake-000") == folder_of("fake-001") == default_folder(paths.fake)
    assert [folder_of(name) for name in ("fake-002", "elsewhere", "")] == [None] * 3
    assert doors_of(paths, Settings(host_name="mine"))("mine") == default_folder(paths.agent)
