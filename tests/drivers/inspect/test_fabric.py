"""What the Fabric Manager's partition manager says, and what becomes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from bessemer.core.hosts import NVLINK_PARTITIONS_MAX
from bessemer.drivers.inspect.fabric import partitions_of, read_partitions
from bessemer.drivers.inspect.kvm import KvmProbe
from bessemer.drivers.inspect.real import LocalInspect
from bessemer.drivers.inspect.sysfs import Machine


def said(*partitions: Any) -> bytes:
    listed = [
        {
            "partitionId": number,
            "isActive": 0,
            "numGpus": len(gpus),
            "gpuInfo": [{"physicalId": n + 1, "uuid": "", "pciBusId": gpu} for n, gpu in enumerate(gpus)],
        }
        for number, gpus in enumerate(partitions)
    ]
    return orjson.dumps({"version": 1, "numPartitions": len(listed), "partitionInfo": listed})


def test_gpus_of_each_are_named_by_their_address() -> None:
    pair = ["00000000:1B:00.0", "00000000:43:00.0"]
    assert partitions_of(said(pair, pair[:1])) == [["0000:1b:00.0", "0000:43:00.0"], ["0000:1b:00.0"]]


def test_of_which_it_is_not_known_what_they_are_made_of_are_left_out() -> None:
    first, second = "00000000:1B:00.0", "00000000:43:00.0"
    assert partitions_of(said([first, ""], [first, first], [], [second])) == [["0000:43:00.0"]]
    many = [[f"00000000:{n:02x}:00.0"] for n in range(NVLINK_PARTITIONS_MAX + 9)]
    assert len(partitions_of(said(*many))) == NVLINK_PARTITIONS_MAX


@pytest.mark.parametrize(
    "nonsense",
    [b"", b"Failed to get partition list.", b"[]", b"{}", b'{"partitionInfo": [{}]}', said([7]), said(["rubbish"])],
)
def test_nonsense_is_nothing(nonsense: bytes) -> None:
    assert partitions_of(nonsense) == []


async def test_the_program_is_asked(tmp_path: Path) -> None:
    program = tmp_path / "fmpm"
    program.write_text(f"#!/bin/sh\n[ \"$1\" = -l ] && echo '{said(['00000000:1B:00.0']).decode()}'\n")
    program.chmod(0o755)
    assert await read_partitions(str(program)) == [["0000:1b:00.0"]]
    program.write_text("#!/bin/sh\necho '{}'\nexit 1\n")
    assert await read_partitions(str(program)) == []
    assert await read_partitions(str(tmp_path / "none")) == []


async def test_the_inventory_says_them_by_the_ids_of_gpus(tmp_path: Path) -> None:
    async def partitions() -> list[list[str]]:
        return [["0000:1b:00.0", "0000:43:00.0"]]

    probe = KvmProbe(tmp_path / "kvm.json", device=tmp_path / "no-kvm")
    inspect = LocalInspect(probe, machine=Machine(tmp_path), gpus=dict, addresses=list, partitions=partitions)
    assert (await inspect.inventory()).nvlink_partitions == [["gpu-0000:1b:00.0", "gpu-0000:43:00.0"]]
