"""Usage survives kill -9, torn writes and a full disk, and is settled exactly once."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from bessemer.core.clock import FakeClock, settle
from bessemer.core.errors import Conflict, DriverError, Unavailable
from bessemer.core.values import UsageBatch, UsageRecord
from bessemer.gateway import Settler, Spool
from bessemer.gateway.record import NEWER, Batch, Record, older, read
from bessemer.gateway.spool import Pending
from bessemer.store import open_store

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}


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


WRITER = """
import sys
from pathlib import Path
from bessemer.gateway import Spool
from bessemer.gateway.record import NEWER, Record, older
from tests.gateway.test_spool import record
spool = Spool(Path(sys.argv[1]))
for number in range(5):
    spool.append(record(number))
print("written", flush=True)
sys.stdin.read()
"""


@contextmanager
def writer(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the spool open and five records in it."""
    command = [sys.executable, "-c", WRITER, str(folder)]
    with subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "written\n"
            yield other
        finally:
            other.kill()


def test_two_gateways_do_not_write_to_one_spool(tmp_path: Path) -> None:
    """The second says why it ends; a kill -9 of the first lets go, and what it wrote is there."""
    with writer(tmp_path) as other:
        with pytest.raises(Unavailable, match=f"another gateway runs and has {tmp_path} open"):
            Spool(tmp_path)
        other.kill()
        other.wait()
        again = Spool(tmp_path)
    pending = again.pending()
    assert pending is not None
    assert [r.at for r in pending.records] == [0, 1, 2, 3, 4]
    assert pending.first_sequence == 1
    again.close()
    Spool(tmp_path).close()


def test_usage_that_waits_costs_disk_and_no_memory(tmp_path: Path) -> None:
    """While the api is away, and at the start after that: memory and open files are those of one segment."""
    spool = Spool(tmp_path, segment_bytes=400_000)
    tracemalloc.start()
    try:
        for number in range(20_000):
            spool.append(record(number))
            if number % 500 == 0:
                spool.sync()
        spool.sync()
        spool.pending(most=1)
        appended = tracemalloc.get_traced_memory()[1]
        files = len(list(Path("/proc/self/fd").iterdir()))
        spool.close()
        again = Spool(tmp_path, segment_bytes=400_000)
        assert len(list(Path("/proc/self/fd").iterdir())) < files, "nothing is under way"
        read = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert again.waiting == 20_000
    assert len(list(tmp_path.glob("*.spool"))) > 10
    assert max(appended, read) < 2_000_000, "a record in memory has more than a kilobyte"
    seen = []
    while (pending := again.pending()) is not None:
        seen += [r.at for r in pending.records]
        again.settle(pending.spool_uid, pending.first_sequence + len(pending.records) - 1)
    assert seen == list(range(20_000))
    again.close()


def test_a_part_of_a_batch_may_be_settled(tmp_path: Path) -> None:
    """The api may have had less of a batch, or more, than the gateway knew of."""
    spool = Spool(tmp_path)
    for number in range(10):
        spool.append(record(number))
    pending = spool.pending(most=4)
    assert pending is not None
    assert [r.at for r in pending.records] == [0, 1, 2, 3]
    for sequence, first in ((2, 3), (1, 3), (7, 8)):
        spool.settle(pending.spool_uid, sequence)
        left = spool.pending()
        assert left is not None
        assert (left.first_sequence, left.records[0].at) == (first, first - 1)
    spool.settle(pending.spool_uid, 99)
    assert spool.pending() is None
    spool.append(record(10))
    left = spool.pending()
    assert left is not None
    assert (left.first_sequence, [r.at for r in left.records]) == (11, [10])
    spool.close()


def _damage(folder: Path, words: bytes) -> None:
    """Change what the one segment has there."""
    (path,) = folder.glob("*.spool")
    data = bytearray(path.read_bytes())
    data[data.rindex(words)] ^= 0xFF
    path.write_bytes(data)


def settle_all(spool: Spool, *, stored: dict[str, int]) -> list[int]:
    """Settle as the api does, which has ``stored`` by spool already; what was new to it."""
    new: list[int] = []
    while (pending := spool.pending()) is not None:
        before = stored.get(pending.spool_uid, 0)
        assert pending.first_sequence <= before + 1, "the api refuses a gap"
        numbered = enumerate(pending.records, pending.first_sequence)
        new += [r.at for sequence, r in numbered if sequence > before]
        stored[pending.spool_uid] = max(before, pending.first_sequence + len(pending.records) - 1)
        spool.settle(pending.spool_uid, stored[pending.spool_uid])
    return new


def test_behind_a_torn_record_nothing_is_written(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for number in range(3):
        spool.append(record(number))
    spool.close()
    _damage(tmp_path, b'"at":2')
    again = Spool(tmp_path)
    again.append(record(9))
    again.close()
    last = Spool(tmp_path)
    assert settle_all(last, stored={}) == [0, 1, 9]
    last.close()


@pytest.mark.parametrize("rotten", [1, 5, 10])
def test_a_settled_record_that_rots_costs_no_later_one(tmp_path: Path, rotten: int) -> None:
    """Sequences that the api has already are not given anew: it would take the new records for old ones."""
    spool, stored = Spool(tmp_path), dict[str, int]()
    for number in range(1, 11):
        spool.append(record(number))
    assert settle_all(spool, stored=stored) == list(range(1, 11))
    spool.close()
    _damage(tmp_path, b'"at":%d,' % rotten)
    with capture_logs() as logs:
        again = Spool(tmp_path)
    assert [(line["event"], line["behind"]) for line in logs] == [("a record cannot be read", rotten - 1)]
    for number in range(11, 17):
        again.append(record(number))
    assert settle_all(again, stored=stored) == list(range(11, 17))
    again.close()
    if rotten > 1:
        assert [path.name for path in tmp_path.glob("*.damaged")] == ["00000001.damaged"]
    last = Spool(tmp_path)
    assert settle_all(last, stored=stored) == []
    last.close()


def test_a_file_that_is_no_segment_any_more_is_kept_and_said(tmp_path: Path) -> None:
    """Its records would be stored twice under another uid."""
    spool = Spool(tmp_path)
    spool.append(record(1))
    spool.close()
    _damage(tmp_path, b"BSPOOL1")
    (tmp_path / "00000002.spool").write_bytes(bytes(300_000))
    with capture_logs() as logs:
        again = Spool(tmp_path)
    assert [line["event"] for line in logs] == ["usage cannot be read"]
    again.append(record(2))
    assert settle_all(again, stored={}) == [2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000001.damaged", "00000003.spool", "lock"]
    again.close()


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


def refused(spool: Spool) -> bool:
    """Whether a request would be."""
    try:
        spool.reserve()
    except DriverError:
        return True
    return False


def test_on_a_full_disk_whoever_is_admitted_has_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many streams run at once, and each is recorded only when it ends."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    spool = Spool(tmp_path, segment_bytes=5 * 4200)
    spool.reserve()
    monkeypatch.setattr("os.posix_fallocate", full)
    admitted = 1
    while not refused(spool):
        admitted += 1
    assert admitted == 5
    for number in range(admitted):
        spool.append(record(number).model_copy(update={"model": "m" * 3700}))
        spool.release()
    assert not spool.owes
    assert refused(spool)
    assert settle_all(spool, stored={}) == list(range(5))
    monkeypatch.undo()
    assert not refused(spool)
    spool.close()


async def test_what_the_disk_does_not_take_waits_in_memory_and_nobody_is_admitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer was delivered: it is written as soon as that goes, with or without another request."""
    spool, clock, got = Spool(tmp_path), FakeClock(), list[int]()

    def fails(*_: object) -> int:
        raise OSError(5, "Input/output error")

    async def send(batch: Batch) -> int:
        got.extend(r.at for r in batch.records)
        return batch.first_sequence + len(batch.records) - 1

    settling = asyncio.create_task(Settler(spool, send, clock=clock, gateway_uid="g").run())
    spool.reserve()
    spool.append(record(1))
    monkeypatch.setattr("os.pwrite", fails)
    with capture_logs() as logs:
        spool.append(record(2))
        spool.append(record(3))
    assert [(line["event"], line["request_id"], line["object_uid"]) for line in logs] == [
        ("usage waits in memory", "r2", "u"),
        ("usage waits in memory", "r3", "u"),
    ]
    assert refused(spool)
    assert spool.waiting == 3
    monkeypatch.setattr("os.pwrite", lambda fd, data, at: 10)
    assert refused(spool), "a part of a record is none"
    monkeypatch.undo()
    async with asyncio.timeout(30):
        while len(got) < 3:
            await asyncio.sleep(0.001)
            await clock.advance(0.5)
    assert got == [1, 2, 3]
    assert not refused(spool)
    settling.cancel()
    await asyncio.gather(settling, return_exceptions=True)
    spool.close()


def test_a_segment_is_made_before_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whoever syncs: no request waits for a disk."""
    spool, admitted = Spool(tmp_path, segment_bytes=300_000), 0
    for segments in (1, 2, 3):
        spool.news.clear()
        spool.sync()
        assert len(list(tmp_path.glob("*.spool"))) == segments
        with monkeypatch.context() as during:
            during.setattr("os.fsync", lambda _fd: pytest.fail("a request waited for the disk"))
            while not spool.news.is_set():
                spool.reserve()
                admitted += 1
            for number in range(15):
                spool.append(record(number))
    assert admitted > 100
    spool.close()


def files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_full_disk_leaves_no_file_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked again for each request, and would take the gateway's last descriptor."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    spool = Spool(tmp_path)
    monkeypatch.setattr("os.posix_fallocate", full)
    before = files()
    for _ in range(5):
        with pytest.raises(DriverError, match="cannot be recorded"):
            spool.reserve()
    assert files() == before
    spool.close()


def test_a_full_segment_is_synced_by_who_syncs_and_then_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No request waits for the disk, and no descriptor is kept for what is only read again."""
    synced: list[int] = []
    monkeypatch.setattr("os.fdatasync", synced.append)
    spool = Spool(tmp_path, segment_bytes=300_000)
    spool.reserve()
    before = files()
    for number in range(3000):
        spool.append(record(number))
    segments = len(list(tmp_path.glob("*.spool")))
    assert segments > 2
    assert synced == []
    assert files() == before + segments - 1
    spool.sync()
    assert len(synced) == segments
    spool.sync()
    assert len(synced) == segments, "nothing was appended meanwhile"
    spool.pending()
    assert files() == before
    spool.close()


def test_what_was_appended_while_the_disk_failed_is_synced_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool, synced = Spool(tmp_path), list[int]()

    def fails(_fd: int) -> None:
        raise OSError(5, "Input/output error")

    spool.append(record(1))
    monkeypatch.setattr("os.fdatasync", fails)
    with pytest.raises(OSError, match="Input/output"):
        spool.sync()
    monkeypatch.setattr("os.fdatasync", synced.append)
    spool.sync()
    assert len(synced) == 1
    spool.close()


def test_it_is_not_closed_under_who_syncs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool, entered, closed, found = Spool(tmp_path), threading.Event(), threading.Event(), list[int]()

    def slow(fd: int) -> None:
        if threading.current_thread() is threading.main_thread():
            return
        entered.set()
        closed.wait(0.2)
        found.append(os.fstat(fd).st_size)

    spool.append(record(1))
    monkeypatch.setattr("os.fdatasync", slow)
    syncing = threading.Thread(target=spool.sync)
    syncing.start()
    assert entered.wait(30)
    spool.close()
    closed.set()
    syncing.join()
    assert len(found) == 1


async def test_nothing_is_sent_that_a_machine_could_lose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sequence that had been settled and was given anew would be a request that nobody pays for."""
    spool, got = Spool(tmp_path), list[list[int]]()

    def during(_fd: int) -> None:
        monkeypatch.setattr("os.fdatasync", lambda _fd: None)
        spool.append(record(2))

    async def send(batch: Batch) -> int:
        got.append([r.at for r in batch.records])
        return batch.first_sequence + len(batch.records) - 1

    settler = Settler(spool, send, clock=FakeClock(), gateway_uid="g")
    spool.append(record(1))
    monkeypatch.setattr("os.fdatasync", during)
    assert await settler.once()
    assert got == [[1]]
    assert await settler.once()
    assert got == [[1], [2]]
    spool.close()


async def test_what_cannot_be_read_again_is_said_and_left_alone(tmp_path: Path) -> None:
    """The disk has lost a record that was written: no batch of nothing is sent, and no core is kept busy."""
    clock, spool, got = FakeClock(), Spool(tmp_path), list[Batch]()

    async def send(batch: Batch) -> int:
        got.append(batch)
        return 0

    for number in range(3):
        spool.append(record(number))
    _damage(tmp_path, b'"at":0')
    settler = Settler(spool, send, clock=clock, gateway_uid="g")
    with pytest.raises(OSError, match="behind record 0 cannot be read"):
        await settler.once()
    with capture_logs() as logs:
        running = asyncio.create_task(settler.run())
        async with asyncio.timeout(30):
            while len(logs) < 3:
                await asyncio.sleep(0.001)
                await clock.advance(1.0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert [(line["event"], line["failures"]) for line in logs[:3]] == [("usage is not settled", n) for n in (1, 2, 3)]
    assert (got, spool.waiting) == ([], 3)
    spool.close()


async def test_it_is_settled_when_the_api_is_back(tmp_path: Path) -> None:
    clock, spool, got = FakeClock(), Spool(tmp_path), list[Batch]()
    away = True

    async def send(batch: Batch) -> int:
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


class Restored:
    """A spool that is settled in a store, and ``back``, the same store as a restore set it back."""

    def __init__(self, folder: Path, **options: int) -> None:
        clock = FakeClock()
        self.spool = Spool(folder / "spool", **options)
        self.full, self.back = (
            open_store(folder / name, clock=clock, kinds={}, seal_key=bytes(32)) for name in ("a.db", "b.db")
        )
        self.store = self.full
        self.told: list[int] = []
        self.gone: list[int] = []
        self.settler = Settler(self.spool, self._send, clock=clock, gateway_uid="g", settled=self._hear)

    async def _send(self, batch: Batch) -> int:
        return await self.store.ledger.settle(UsageBatch.model_validate(batch.dump()))

    def _hear(self, records: Sequence[UsageRecord], went: int) -> None:
        self.told.extend(r.at for r in records)
        self.gone.append(went)

    def close(self) -> None:
        for store in (self.full, self.back):
            store.close()
        self.spool.close()


@pytest.mark.parametrize("kept", [0, 2])
async def test_it_is_settled_again_in_a_store_that_was_set_back(tmp_path: Path, kept: int) -> None:
    """As a restore does under a gateway that runs on: each record is stored once, and told of once."""
    r = Restored(tmp_path)
    spool, settler = r.spool, r.settler
    for number in range(1, 6):
        spool.append(record(number))
        if number == kept:  # what the backup has
            pending = spool.pending()
            assert pending is not None
            batch = Batch("g", pending.spool_uid, 1, list(pending.records))
            await r.back.ledger.settle(UsageBatch.model_validate(batch.dump()))
    while await settler.once():
        pass
    assert r.told == [1, 2, 3, 4, 5]
    r.store = r.back
    for number in (6, 7):
        spool.append(record(number))
    with pytest.raises(Conflict, match=f"settled up to {kept}"):
        await settler.once()
    while await settler.once():
        pass
    assert (r.told, spool.waiting) == ([1, 2, 3, 4, 5, 6, 7], 0)
    assert sum(r.gone) == 7
    assert sum(row.requests for row in await r.back.ledger.entries()) == 7
    assert sum(row.input_tokens for row in await r.back.ledger.entries()) == sum(range(1, 8))
    r.close()


async def test_a_settled_segment_that_is_full_is_not_dropped_before_the_store_says_once_more_that_it_has_it(
    tmp_path: Path,
) -> None:
    """A store is set back between the last record of a segment and the first of the next, which says nothing of it."""
    r = Restored(tmp_path, segment_bytes=9_000)
    spool, settler = r.spool, r.settler
    number = 0
    while not spool._segments or spool._segments[-1].fits(bytes(600)):
        number += 1
        spool.append(record(number))
        await settler.once()
    assert (r.told, len(spool._segments)) == ([*range(1, number + 1)], 1)
    r.store = r.back
    last = number + 2
    for later in (number + 1, last):
        spool.append(record(later).model_copy(update={"model": "m" * 2_000}))
    assert len(spool._segments) == 2
    for _ in range(20):
        with suppress(Conflict):
            await settler.once()
    assert (r.told, spool.waiting) == ([*range(1, last + 1)], 0)
    assert sum(r.gone) == last
    assert sum(row.requests for row in await r.back.ledger.entries()) == last
    assert len(spool._segments) == 1
    r.close()


async def test_a_conflict_that_stays_is_tried_with_backoff(tmp_path: Path) -> None:
    """Whatever it is about, it keeps no core busy."""
    clock, spool, sent = FakeClock(), Spool(tmp_path), list[int]()

    async def send(batch: Batch) -> int:
        sent.append(batch.first_sequence)
        raise Conflict("no")

    spool.append(record(1))
    settler = Settler(spool, send, clock=clock, gateway_uid="g")
    for _ in range(2):
        with pytest.raises(Conflict):
            await settler.once()
    assert (sent, spool.waiting) == ([1, 1], 1)
    spool.close()


async def test_it_sleeps_while_there_is_nothing_to_settle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what comes then is settled within half a second."""
    clock, spool, got = FakeClock(), Spool(tmp_path), list[Batch]()

    async def send(batch: Batch) -> int:
        got.append(batch)
        return batch.first_sequence + len(batch.records) - 1

    looked, pending = list[float](), spool.pending

    def looks(*, most: int = 500) -> Pending | None:
        looked.append(clock.monotonic())
        return pending(most=most)

    sleeps, news = asyncio.Event(), spool.news.wait

    async def waits() -> object:
        sleeps.set()
        return await news()

    monkeypatch.setattr(spool, "pending", looks)
    monkeypatch.setattr(spool.news, "wait", waits)
    settling = asyncio.create_task(Settler(spool, send, clock=clock, gateway_uid="g").run())
    async with asyncio.timeout(30):
        await sleeps.wait()  # a thread makes the first segment before
    assert list(tmp_path.glob("*.spool"))  # noqa: ASYNC240 - a look
    await clock.advance(3600)
    assert looked == [0.0], "nothing wakes it"
    spool.append(record(1))
    async with asyncio.timeout(30):
        while not got:
            await clock.advance(0.5)
            await asyncio.sleep(0.001)
    assert looked[1] == 3600.5
    assert [r.at for b in got for r in b.records] == [1]
    settling.cancel()
    await asyncio.gather(settling, return_exceptions=True)
    spool.close()


def test_a_record_of_the_path_is_a_usage_record() -> None:
    said = {name: f"{name}-1" for name in ("request_id", "project", "endpoint", "endpoint_uid", "api_key", "model")}
    full = UsageRecord(at=1, status=200, input_tokens=3, cached_input_tokens=2, output_tokens=1, held_micro=7, **said)
    ours = Record(**{name: getattr(full, name) for name in UsageRecord.model_fields})
    assert UsageRecord.model_validate_json(ours.line()) == full
    assert set(Record.__struct_fields__) == set(UsageRecord.model_fields)
    least = UsageRecord(at=1, status=200, input_tokens=3, **said)
    newer = Record(**said, at=1, status=200, input_tokens=3, replica="c", ended="cut", asked="front")
    spooled = UsageRecord.model_validate_json(newer.line())
    assert (spooled.replica, spooled.ended, spooled.asked) == ("c", "cut", "front")
    told = Batch("g", "s", 1, [older(read(newer.line()))]).dump()
    batch = UsageBatch(gateway_uid="g", spool_uid="s", first_sequence=1, records=[least])
    assert UsageBatch.model_validate(told) == batch
    assert not set(NEWER) & set(told["records"][0])
    for wrong in (
        b"{}",
        b"[]",
        ours.line()[:-1],
        ours.line()[:-1] + b',"newer":1}',
        ours.line().replace(b"200", b'"a"'),
    ):
        with pytest.raises(msgspec.MsgspecError):
            read(wrong)
    assert UsageRecord.model_validate_json(Record(at=1, status=200, input_tokens=3, **said).line()) == least
