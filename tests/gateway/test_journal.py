"""What is under way when a gateway is killed is billed as far as it had come, once, and never twice."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import uuid
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from bessemer.core.clock import FakeClock
from bessemer.core.errors import Invalid
from bessemer.core.values import UsageBatch, UsageRecord
from bessemer.gateway import Settler, Spool
from bessemer.gateway.journal import SLOT_BYTES
from bessemer.gateway.record import NEWER
from tests.gateway.killed import progress, record, start
from tests.gateway.test_spool import ENVIRONMENT, ROOT


def _owed(said: list[str]) -> dict[str, set[int | None]]:
    """What each request may come to, by what its process said: None is nothing. What it was about to do may have been
    done, or not."""
    may: dict[str, set[int | None]] = {}
    for number, what in enumerate(said):
        verb, name, count = (*what.split(), "", "")[:3]
        begun = what != "ok" and said[number + 1 : number + 2] != ["ok"]
        if verb in ("start", "aside", "again", "drop"):
            may[name] = {None}
        elif verb in ("note", "end"):
            may[name] = {int(count)} | (may[name] if begun else set())
    return may


def test_killed_at_each_write_every_request_is_settled_once(tmp_path: Path) -> None:
    """Processes that really are killed: before a write, in its middle, after it; of spool, journal and api alike."""
    command = [sys.executable, "-m", "tests.gateway.killed", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    lives: list[dict[str, Any]] = [orjson.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(lives) > 90, "a life has some thirty writes"
    ended = set()
    for life in lives:
        where = (life["at"], life["how"], life["said"])
        got = {name: None if how == "unpaid" else tokens for _, _, name, tokens, how in life["stored"]}
        assert len(got) == len(life["stored"]), where
        owed = _owed(life["said"])
        assert got.keys() <= owed.keys(), where
        for name, may in owed.items():
            assert got.get(name) in may, (name, *where)
        ended |= {how for *_, how in life["stored"]}
    assert ended == {"", "killed", "unpaid"}
    whole = {name: tokens for _, _, name, tokens, _ in lives[-1]["stored"]}
    assert whole == {"a": 9, "b": 8, "d": 0, "d/2": 2, "e": 1, "f": 4, "g": 7}


def left(folder: Path) -> list[tuple[str, int, str | None]]:
    """What waits to be settled in a spool that is opened anew."""
    spool = Spool(folder)
    pending = spool.pending()
    spool.close()
    return [(one.request_id, one.output_tokens, one.ended) for one in pending.records] if pending else []


def killed(spool: Spool) -> None:
    """Let it go as the kernel does."""
    os.close(spool._lock)


def test_an_unfinished_start_says_whose_it_was(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.reserve()
    slot = spool.journal.start(start("a"))
    spool.journal.note(slot, progress(5, at=7))
    killed(spool)
    again = Spool(tmp_path)
    pending = again.pending()
    assert pending is not None
    (one,) = pending.records
    assert again.waiting == 1, "whoever holds something for what is in the spool has to know"
    assert (one.at, one.request_id, one.project, one.endpoint, one.api_key) == (7, "a", "acme--lab", "words", "k")
    assert (one.input_tokens, one.cached_input_tokens, one.output_tokens) == (3, 1, 5)
    assert (one.held_micro, one.owner, one.held_bounds) == (70, "rob", ["key tokens/day"])
    assert (one.replica, one.ended) == ("r1", "killed")
    again.close()


def test_a_slot_that_is_used_again_knows_nothing_of_whom_it_had(tmp_path: Path) -> None:
    """A request that has sent nothing pays nothing, though the one before it in its slot had come far."""
    spool = Spool(tmp_path)
    first = spool.journal.start(start("a"))
    for tokens in (4, 5):
        spool.journal.note(first, progress(tokens))
    spool.append(record("a", 9), first)
    assert spool.journal.start(start("b")) == first
    killed(spool)
    assert left(tmp_path) == [("a", 9, None), ("b", 0, "unpaid")]


@pytest.mark.parametrize("words", [b"BSPOOL1", b'"requestId":"a"'])
def test_an_end_that_stands_in_a_damaged_file_is_not_paid_again(tmp_path: Path, words: bytes) -> None:
    """It may have been settled from there before it was: at its beginning, or before that record."""
    spool = Spool(tmp_path)
    slots = {name: spool.journal.start(start(name)) for name in "abc"}
    for name, slot in slots.items():
        spool.journal.note(slot, progress(5))
        if name != "c":
            spool.append(record(name, 9), slot)
    killed(spool)
    path = tmp_path / "00000001.spool"
    data = bytearray(path.read_bytes())
    data[data.index(words)] ^= 0xFF
    path.write_bytes(data)
    rotten = [("a", 5, "killed")] if words != b"BSPOOL1" else []
    assert sorted(left(tmp_path)) == [*rotten, ("c", 5, "killed")]


@pytest.mark.parametrize("torn", [0, 1])
def test_a_torn_note_leaves_the_one_before(tmp_path: Path, torn: int) -> None:
    """Of two cells one is whole, whatever the other is."""
    spool = Spool(tmp_path)
    slot = spool.journal.start(start("a"))
    for tokens in range(1, 4 + torn):
        spool.journal.note(slot, progress(tokens))
    killed(spool)
    path = tmp_path / "journal"
    data = bytearray(path.read_bytes())
    data[slot * SLOT_BYTES + (64, 128)[(3 + torn) & 1] + 20] ^= 0xFF
    path.write_bytes(data)
    assert left(tmp_path) == [("a", 2 + torn, "killed")]


def test_the_last_note_counts_whatever_the_clock_says(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    slot = spool.journal.start(start("a"))
    for tokens, at in ((1, 5_000), (2, 1), (3, -40)):
        spool.journal.note(slot, progress(tokens, at=at))
    killed(spool)
    assert left(tmp_path) == [("a", 3, "killed")]


def test_a_segment_goes_only_when_no_slot_says_any_more_what_was_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the disk, too: a machine that loses power then would find a start, and nothing that tells of its end."""
    spool = Spool(tmp_path, segment_bytes=9_000)

    def fails(*_: object) -> int:
        raise OSError(5, "Input/output error")

    def settle_all() -> None:
        while (pending := spool.pending()) is not None:
            spool.sync()
            spool.settle(pending.spool_uid, pending.first_sequence + len(pending.records) - 1)
        spool.sync()

    slots = [spool.journal.start(start(name)) for name in "abcdef"]
    for name, slot in zip("abcdef", slots, strict=True):
        spool.journal.note(slot, progress(1))
        spool.append(record(name, 2), slot)
    files = sorted(tmp_path.glob("*.spool"))
    for target, name in ((os, "pwrite"), (spool.journal, "sync")):
        with monkeypatch.context() as during:
            during.setattr(target, name, fails)
            for _ in range(3):
                with suppress(OSError):
                    settle_all()
        assert sorted(tmp_path.glob("*.spool")) == files
    settle_all()
    assert sorted(tmp_path.glob("*.spool")) == files[-1:]
    killed(spool)
    for path in tmp_path.glob("*.spool"):
        path.unlink()
    assert left(tmp_path) == []


def test_a_record_that_waits_for_the_disk_keeps_its_slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed meanwhile, it is billed as far as it had come: before, it was lost."""
    spool = Spool(tmp_path)
    spool.reserve()
    slot = spool.journal.start(start("a"))
    spool.journal.note(slot, progress(5))

    def fails(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", fails)
    spool.append(record("a", 9), slot)
    assert spool.owes
    monkeypatch.undo()
    killed(spool)
    assert left(tmp_path) == [("a", 5, "killed")]


def test_where_a_start_cannot_be_written_the_slot_is_the_next_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path)
    spool.reserve()
    before = len(spool.journal._free)
    monkeypatch.setattr("os.pwrite", lambda fd, data, at: len(data) // 2)
    with pytest.raises(OSError, match="a part was written"):
        spool.journal.start(start("a"))
    monkeypatch.undo()
    assert len(spool.journal._free) == before
    killed(spool)
    assert left(tmp_path) == []


def test_a_journal_of_a_newer_release_is_kept_and_said(tmp_path: Path) -> None:
    (tmp_path / "journal").write_bytes(b"BSTART2\n" + bytes(SLOT_BYTES))
    with capture_logs() as logs:
        assert left(tmp_path) == []
    assert [line["event"] for line in logs] == ["what was under way cannot be read"]
    assert (tmp_path / "journal.unread").exists()


def test_where_nothing_is_under_way_no_journal_stays(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for name in "ab":
        spool.reserve()
        slot = spool.journal.start(start(name))
        spool.append(record(name, 1), slot)
        spool.release()
    spool.close()
    assert not (tmp_path / "journal").exists()
    assert left(tmp_path) == [("a", 1, None), ("b", 1, None)]


OLD = (
    b'{"at":1,"requestId":"%b","project":"acme--lab","endpoint":"words","endpointUid":"u","apiKey":"k","model":"m",'
    b'"status":200,"inputTokens":3,"outputTokens":%d,"heldMicro":7}'
)
"""As the release before wrote it."""


def test_a_spool_of_the_release_before_is_settled_and_gone_on_with(tmp_path: Path) -> None:
    """No journal stands beside it; its uid and its sequences stay."""
    uid, data = uuid.uuid4(), b""
    for name, tokens in ((b"a", 4), (b"b", 5)):
        payload = OLD % (name, tokens)
        data += struct.pack("<II", len(payload), zlib.crc32(payload)) + payload
    (tmp_path / "00000001.spool").write_bytes((b"BSPOOL1\n" + uid.bytes + data).ljust(300_000, b"\0"))
    spool = Spool(tmp_path)
    spool.reserve()
    spool.append(record("c", 6), spool.journal.start(start("c")))
    pending = spool.pending()
    assert pending is not None
    assert (pending.spool_uid, pending.first_sequence) == (uid.hex, 1)
    assert [(one.request_id, one.output_tokens, one.held_micro) for one in pending.records] == [
        ("a", 4, 7),
        ("b", 5, 7),
        ("c", 6, None),
    ]
    assert [one.replica for one in pending.records] == ["", "", "r1"]
    spool.close()


async def test_an_older_api_is_sent_what_it_knows(tmp_path: Path) -> None:
    """It refuses a batch with fields that it does not know, and has the same records without them then."""
    spool, got = Spool(tmp_path), list[UsageBatch]()

    async def send(batch: UsageBatch) -> int:
        got.append(batch)
        if any(set(NEWER) & set(one) for one in batch.dump()["records"]):
            raise Invalid("the batch cannot be read")
        return batch.first_sequence + len(batch.records) - 1

    spool.append(record("a", 2))
    assert await Settler(spool, send, clock=FakeClock(), gateway_uid="g").once()
    whole, known = (UsageRecord.model_validate(batch.dump()["records"][0]) for batch in got)
    assert whole == UsageRecord.model_validate_json(record("a", 2).line())
    assert whole.replica == "r1"
    assert known == whole.model_copy(update={"replica": ""})
    assert not spool.waiting
    spool.close()
