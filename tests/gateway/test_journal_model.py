"""Random lives of a spool and its journal beside a plain model: nobody is ever billed twice, and each request comes to
what it is known to have come to, through kills, torn writes, full disks, clocks that jump and answers that are lost."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from unittest import mock

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bessemer.core.errors import DriverError
from bessemer.gateway import Spool
from bessemer.gateway.journal import unpaid_of
from tests.gateway.killed import SEGMENT_BYTES, progress, record, start

TOKENS = st.integers(1, 50)
AT = st.integers(-5_000, 1 << 33)


class Lives(RuleBasedStateMachine):
    """``may`` is what each request may come to, None is nothing; ``busy`` are those under way, with their slots."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="bj"))
        self.may: dict[str, set[int | None]] = {}
        self.busy: dict[str, int] = {}
        self.stored: dict[str, list[tuple[str, int | None]]] = {}
        self.broken = False
        self.spool = self.open()

    def open(self) -> Spool:
        return Spool(self.folder, segment_bytes=SEGMENT_BYTES)

    def teardown(self) -> None:
        self.let_go()
        shutil.rmtree(self.folder)

    @rule()
    def begin(self) -> None:
        name = f"r{len(self.may)}"
        try:
            with self.disk():
                self.spool.reserve()
        except DriverError:
            return
        try:
            with self.disk():
                self.busy[name] = self.spool.journal.start(start(name))
            self.may[name] = {None}
        except OSError:
            self.spool.release()

    @precondition(lambda self: self.busy)
    @rule(data=st.data(), tokens=TOKENS, at=AT)
    def note(self, data: st.DataObject, tokens: int, at: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.busy)))
        with suppress(OSError), self.disk():
            self.spool.journal.note(self.busy[name], progress(tokens, at=at))
            self.may[name] = {tokens}

    @precondition(lambda self: self.busy)
    @rule(data=st.data(), tokens=TOKENS)
    def end(self, data: st.DataObject, tokens: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.busy)))
        with self.disk():
            self.spool.append(record(name, tokens), self.busy.pop(name))
        self.spool.release()
        self.may[name] = {tokens} | (self.may[name] if self.spool.owes else set())

    @precondition(lambda self: any(self.may[name] == {None} for name in self.busy))
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from([name for name in sorted(self.busy) if self.may[name] == {None}]))
        with self.disk():
            self.spool.journal.drop(self.busy.pop(name))
        self.spool.release()

    @precondition(lambda self: any(self.may[name] == {None} for name in self.busy))
    @rule(data=st.data())
    def another(self, data: st.DataObject) -> None:
        """A replica is lost before it answered, which is recorded, and another is asked."""
        name = data.draw(st.sampled_from([name for name in sorted(self.busy) if self.may[name] == {None}]))
        again, slot = f"{name}/2", self.busy.pop(name)
        with self.disk():
            with suppress(DriverError):
                self.spool.reserve()
                self.spool.append(unpaid_of(start(name), at=1, status=499), slot)
                self.spool.release()
                slot = 0
            try:
                self.busy[again] = self.spool.journal.start(start(again, "r2"), slot)
                self.may[again] = {None}
            except OSError:
                if slot:
                    self.spool.journal.drop(slot)
                self.spool.release()

    @rule(most=st.integers(1, 4), heard=st.booleans())
    def settle(self, *, most: int, heard: bool) -> None:
        """The answer may be lost on its way."""
        try:
            with self.disk():
                pending = self.spool.pending(most=most)
                self.spool.sync()
        except OSError:
            return
        if pending is None:
            return
        had = self.stored.setdefault(pending.spool_uid, [])
        assert pending.first_sequence <= len(had) + 1, "a gap"
        came = [(one.request_id, None if one.ended == "unpaid" else one.output_tokens) for one in pending.records]
        had += came[len(had) + 1 - pending.first_sequence :]
        if heard:
            self.spool.settle(pending.spool_uid, len(had))

    @rule()
    def disk_fails(self) -> None:
        self.broken = not self.broken

    @rule(torn=st.booleans())
    def killed(self, *, torn: bool) -> None:
        """In the middle of another write, or between two."""
        if torn and self.busy:
            whole = os.pwrite
            with mock.patch("os.pwrite", lambda fd, data, at: whole(fd, data[: len(data) // 2], at)), suppress(OSError):
                self.spool.journal.note(min(self.busy.values()), progress(99))
        self.broken = False
        self.let_go()
        self.busy = {}
        self.spool = self.open()

    def let_go(self) -> None:
        """As the kernel does of a process that ends."""
        spool = self.spool
        os.close(spool._lock)
        if spool.journal._fd >= 0:
            os.close(spool.journal._fd)
        for segment in {id(one): one for one in [*spool._full, *spool._segments, *spool._spare]}.values():
            if segment._fd >= 0:
                os.close(segment._fd)

    def disk(self) -> AbstractContextManager[object]:
        """It takes nothing while it is broken."""

        def full(*_: object) -> int:
            raise OSError(28, "No space left on device")

        return mock.patch.multiple("os", pwrite=full, posix_fallocate=full) if self.broken else nullcontext()

    @invariant()
    def nobody_pays_twice_or_what_is_not_owed(self) -> None:
        paid = [one for records in self.stored.values() for one in records]
        assert len({name for name, _ in paid}) == len(paid)
        for name, tokens in paid:
            assert tokens in self.may[name], name


class Whole(Lives):
    """At the end, everybody has paid."""

    def teardown(self) -> None:
        self.killed(torn=False)
        for _ in range(200):
            self.settle(most=4, heard=True)
        paid = dict(one for records in self.stored.values() for one in records)
        for name, may in self.may.items():
            assert paid.get(name) in may, name
        super().teardown()


TestLives = Whole.TestCase
TestLives.settings = settings(
    max_examples=120, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
