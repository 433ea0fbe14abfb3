"""What the gateway's process is put together from: whose doors it dials on this machine."""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

from bessemer.client import Client
from bessemer.core.clock import SystemClock
from bessemer.core.errors import DriverError
from bessemer.drivers.engine.doors import default_folder
from bessemer.drivers.fetch.protocol import S3Place
from bessemer.main.gateway import book_of, doors_of
from bessemer.main.settings import Paths, Settings, host_name


def test_only_the_hosts_of_this_machine_have_doors_here(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    folder_of = doors_of(paths, Settings(fake_hosts=2))
    assert folder_of(host_name()) == default_folder(paths.agent)
    assert folder_of("fake-000") == folder_of("fake-001") == default_folder(paths.fake)
    assert [folder_of(name) for name in ("fake-002", "elsewhere", "")] == [None] * 3
    assert doors_of(paths, Settings(host_name="mine"))("mine") == default_folder(paths.agent)


async def test_a_bucket_whose_name_nobody_answers_for_takes_no_thread_of_what_is_settled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, go = threading.Event(), threading.Event()

    def silent(*_args: object, **_words: object) -> list[Any]:
        asked.set()
        go.wait(30)
        raise socket.gaierror("there is no such name")

    class Workloads:
        async def kept_keys(self, _key: object) -> tuple[dict[str, str], str]:
            return {}, ""

    class Told:
        workloads = Workloads()

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    book = book_of(cast(Client, Told()), Settings(), name="g" * 32, clock=SystemClock())
    bucket = book._means.open(S3Place(bucket="logs", endpoint="https://s3.silent.example"), {})
    put = asyncio.ensure_future(bucket.put("k", b"x"))
    try:
        async with asyncio.timeout(10):
            while not asked.is_set():
                await asyncio.sleep(0.01)
            assert await asyncio.to_thread(int, "1") == 1
    finally:
        go.set()
    with pytest.raises(DriverError, match="cannot be reached"):
        await put
