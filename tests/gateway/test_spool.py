"""Usage survives kill -9, torn writes and a full disk, and is settled exactly once."""

from __future__ import annotations

from pathlib import Path

import pytest

from bessemer.core.clock import FakeClock, settle
from bessemer.core.errors import DriverError, Unavailable
from bessemer.core.values import UsageBatch, UsageRecord
from bessemer.gateway import Settler, Spool


def record(number: int) -> UsageRecord:
    return UsageRecord(
        at=number,
        request_id=f"r{number}",
        project="acme--lab",
        endpoint="words",
        endpoint_uid="u",
        api_key="k",
        model="m",
        status=200,
        input_tokens=number,
        output_tokens=1,
    )


def test_records_come_back_after_a_kill(tmp_path: Path) -> None:
    first = Spool(tmp_path)
    for number in range(5):
        first.append(record(number))
    again = Spool(tmp_path)  # the first is never closed, as after kill -9
    pending = again.pending()
    assert pending is not None
    assert [r.at for r in pending.records] == [0, 1, 2, 3, 4]
    assert pending.first_sequence == 1
    again.close()
    first.close()


def test_a_torn_record_is_overwritten(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for number in range(3):
        spool.append(record(number))
    spool.close()
    (path,) = tmp_path.glob("*.spool")
    data = bytearray(path.read_bytes())
    at = data.rindex(b'"at":2')
    data[at] ^= 0xFF
    path.write_bytes(data)
    again = Spool(tmp_path)
    again.append(record(9))
    again.close()
    last = Spool(tmp_path)
    pending = last.pending()
    assert pending is not None
    assert [r.at for r in pending.records] == [0, 1, 9]
    last.close()


def test_a_settled_segment_goes_and_sequences_go_on(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment_bytes=300_000)
    for number in range(1500):
        spool.append(record(number))
    seen: list[int] = []
    while (pending := spool.pending()) is not None:
        seen += [r.at for r in pending.records]
        spool.settle(pending.spool_uid, pending.first_sequence + len(pending.records) - 1)
    assert seen == list(range(1500))
    assert spool.waiting == 0
    assert len(list(tmp_path.glob("*.spool"))) == 1
    spool.close()


def test_a_full_disk_is_said_before_anything_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    spool = Spool(tmp_path)
    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(DriverError) as refused:
        spool.reserve()
    assert refused.value.reason == "DiskFull"
    assert not list(tmp_path.glob("*.spool"))
    monkeypatch.undo()
    spool.reserve()
    spool.append(record(1))
    assert spool.waiting == 1
    spool.close()


async def test_it_is_settled_when_the_api_is_back(tmp_path: Path) -> None:
    clock, spool, got = FakeClock(), Spool(tmp_path), list[UsageBatch]()
    away = True

    async def send(batch: UsageBatch) -> int:
        if away:
            raise Unavailable("away")
        got.append(batch)
        return batch.first_sequence + len(batch.records) - 1

    settler = Settler(spool, send, clock=clock, gateway_uid="g")
    spool.append(record(1))
    with pytest.raises(Unavailable):
        await settler.once()
    assert spool.waiting == 1
    away = False
    assert await settler.once()
    assert not await settler.once()
    assert spool.waiting == 0
    assert [r.at for b in got for r in b.records] == [1]
    await settle()
    spool.close()
