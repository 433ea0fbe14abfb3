"""Which threads are moved when a guest's CPUs are laid on their node: its QEMU's, whatever is said on its monitor."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from bessemer.drivers.qemu.nodes import HostNodes, pin_cpus
from bessemer.drivers.qemu.protocol import MachineSpec, NumaCell

LAST, ALL = max(os.sched_getaffinity(0)), os.sched_getaffinity(0)


@pytest.mark.parametrize(
    ("said", "moved"),
    [("own", {LAST}), ("another's", ALL), ("the agent's", ALL), ({"cpu-index": 0}, ALL), (7, ALL)],
    ids=str,
)
async def test_nothing_but_the_guests_own_threads_is_moved(tmp_path: Path, said: Any, moved: set[int]) -> None:
    guest = await asyncio.create_subprocess_exec("sleep", "600")
    other = await asyncio.create_subprocess_exec("sleep", "600")
    pids = {"own": guest.pid, "another's": other.pid, "the agent's": 0}
    cpus = [{"cpu-index": 0, "thread-id": pids[said]}] if isinstance(said, str) else said

    async def monitor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"{}\n")
        answers: list[Any] = [{}, cpus]
        while answers and await reader.readline():
            writer.write(json.dumps({"return": answers.pop(0)}).encode() + b"\n")
        await reader.read()
        writer.close()
        over.set()

    over = asyncio.Event()
    cell = NumaCell(1, 1 << 20, own_cpus=str(LAST))
    spec = MachineSpec(
        uid="u", name="vm", cpus=1, memory_bytes=1 << 20, image=Path("i"), image_digest="sha256:0", numa=(cell,)
    )
    try:
        async with await asyncio.start_unix_server(monitor, tmp_path / "qmp"):
            await pin_cpus(spec, guest.pid, socket=tmp_path / "qmp", nodes=HostNodes(tmp_path))
            await over.wait()
        assert os.sched_getaffinity(guest.pid) == moved
        assert os.sched_getaffinity(other.pid) == os.sched_getaffinity(0) == ALL
    finally:
        os.sched_setaffinity(0, ALL)
        for process in (guest, other):
            process.kill()
            await process.wait()
