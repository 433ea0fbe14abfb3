"""The one writer: where operations run, how groups form, and what one that goes wrong takes with it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from bessemer.core.clock import FakeClock
from bessemer.core.errors import Conflict, Unavailable
from bessemer.core.resource import Change, Key
from bessemer.store.feed import Entry
from bessemer.store.known import Look
from bessemer.store.metrics import Metrics
from bessemer.store.runner import GROUP_SECONDS, OPERATION_SECONDS
from bessemer.store.schema_versions import prepare
from bessemer.store.sqlite import Session, Texts
from bessemer.store.transaction import COUNTER, SET_COUNTER, Tx, read_counter
from bessemer.store.writer import GROUP_MAX, Committer


class Slow(FakeClock):
    """A clock that operations move."""

    def work(self, seconds: float) -> None:
        self._monotonic += seconds


class Bench:
    """A committer over a file of its own, whose commits wait while ``gate`` is shut."""

    def __init__(self, folder: Path) -> None:
        self.clock = Slow()
        self.metrics = Metrics()
        self.published: list[int] = []
        self.deaf = False
        self.gate = threading.Event()
        self.gate.set()
        self.session = Session(folder / "s.db", texts=Texts())
        prepare(self.session, folder / "s.db")
        commit = self.session.commit
        self.session.commit = lambda *left: (self.gate.wait(10), commit(*left))[1]  # type: ignore[method-assign]
        self.committer = Committer(self.session, clock=self.clock, metrics=self.metrics, publish=self._publish)

    def _publish(self, entries: list[Entry], revision: int) -> None:
        self.published.append(revision)
        if self.deaf:
            raise RuntimeError("nobody can be told")

    def ask(
        self, operation: Callable[[Tx], object], *, apart: bool = False, patience: float = 0.0
    ) -> asyncio.Future[object]:
        return asyncio.ensure_future(self.committer.submit(operation, apart=apart, patience=patience))


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.gate.set()
    made.committer.close()


def take(tx: Tx) -> int:
    return tx.next_revision()


def where(tx: Tx) -> int:
    tx.next_revision()
    return threading.get_ident()


async def test_operations_run_in_the_loop_and_long_ones_apart(bench: Bench) -> None:
    asked = [bench.ask(where), bench.ask(where, apart=True), bench.ask(where)]
    first, long, last = await asyncio.gather(*asked)
    assert first == last == threading.get_ident()
    assert long != first
    assert bench.metrics.groups == 3


async def test_what_comes_during_a_commit_is_the_next_group_and_the_loop_goes_on(bench: Bench) -> None:
    bench.gate.clear()
    first = bench.ask(take)
    await asyncio.sleep(0.01)
    later = [bench.ask(take) for _ in range(5)]
    await asyncio.sleep(0.01)
    assert not first.done()
    bench.gate.set()
    assert await first == 1
    assert await asyncio.gather(*later) == [2, 3, 4, 5, 6]
    assert bench.metrics.groups == 2


async def test_an_operation_for_which_there_was_no_time_is_in_the_next_group(bench: Bench) -> None:
    def slow(tx: Tx) -> int:
        bench.clock.work(GROUP_SECONDS * 0.6)
        return tx.next_revision()

    assert await asyncio.gather(*(bench.ask(slow) for _ in range(5))) == [1, 2, 3, 4, 5]
    assert bench.metrics.groups == 3


async def test_a_group_that_runs_again_has_its_time_again(bench: Bench) -> None:
    """What is refused slowly, after it wrote, is told so, and keeps nobody behind it for good."""

    def refused(tx: Tx) -> int:
        tx.next_revision()
        bench.clock.work(GROUP_SECONDS * 1.2)
        raise Conflict("no")

    found = await asyncio.wait_for(asyncio.gather(bench.ask(refused), bench.ask(take), return_exceptions=True), 60)
    assert isinstance(found[0], Conflict)
    assert found[1] == 1


async def test_a_group_takes_no_more_than_its_most(bench: Bench) -> None:
    numbers = await asyncio.gather(*(bench.ask(take) for _ in range(GROUP_MAX + 1)))
    assert numbers == list(range(1, GROUP_MAX + 2))
    assert bench.metrics.groups == 2


async def test_an_operation_that_takes_long_is_undone_and_runs_apart(bench: Bench) -> None:
    tries: list[tuple[int, int]] = []

    def long(tx: Tx) -> int:
        number = take(tx)
        tries.append((threading.get_ident(), number))
        bench.clock.work(OPERATION_SECONDS * 1.5)
        return tx.next_revision() if tx.one(COUNTER, of_name="revision") else 0

    asked = [bench.ask(take), bench.ask(long), bench.ask(take), bench.ask(take)]
    assert await asyncio.gather(*asked) == [1, 3, 4, 5]
    (here, first), (there, second) = tries
    assert here == threading.get_ident() != there
    assert first == second == 2


async def test_one_alone_that_takes_long_leaves_nothing_of_its_first_try(bench: Bench) -> None:
    def long(tx: Tx) -> int:
        tx.run(SET_COUNTER, of_name="floor", value=1 + read_counter(bench.session, "floor"))
        bench.clock.work(OPERATION_SECONDS * 1.5)
        return int(tx.one(COUNTER, of_name="floor")[0])

    assert await bench.ask(long) == 1


async def test_a_database_that_another_has_holds_up_its_writers_and_not_the_loop(bench: Bench, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "s.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    asked = bench.ask(where)
    for _ in range(5):
        await asyncio.sleep(0.01)
    assert not asked.done()
    other.execute("ROLLBACK")
    other.close()
    assert await asked != threading.get_ident()
    assert await bench.ask(where) == threading.get_ident()


async def test_many_who_have_patience_are_a_group_without_it(bench: Bench) -> None:
    asked = [bench.ask(take, patience=600) for _ in range(GROUP_MAX)]
    async with asyncio.timeout(60):
        await asyncio.gather(*asked)
    assert bench.metrics.groups == 1


async def test_writing_goes_on_though_nobody_can_be_told(bench: Bench) -> None:
    loop, failed = asyncio.get_running_loop(), list[str]()
    loop.set_exception_handler(lambda _, context: failed.append(str(context["exception"])))

    def tell(tx: Tx) -> int:
        tx.entries.append(Entry(Change(take(tx), "ADDED", Key("Thing", "", "a"), "u", "", b"{}", None), ""))
        return tx.revision

    bench.deaf = True
    assert await bench.ask(tell) == 1
    assert await bench.ask(tell) == 2
    assert (bench.published, failed) == ([1, 2], ["nobody can be told"] * 2)


def test_a_second_loop_is_refused(tmp_path: Path) -> None:
    made = Bench(tmp_path)
    assert asyncio.run(made.committer.submit(take)) == 1
    with pytest.raises(RuntimeError, match="one event loop"):
        asyncio.run(made.committer.submit(take))
    made.committer.close()


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("error", [OSError("no such file"), KeyError("x"), RecursionError("deep"), StopIteration()])
async def test_an_operation_that_breaks_fails_alone(bench: Bench, error: Exception, apart: bool) -> None:
    def breaks(tx: Tx) -> None:
        tx.next_revision()
        raise error

    before, broken, after = bench.ask(take), bench.ask(breaks, apart=apart), bench.ask(take)
    assert (await before, await after) == (1, 2)
    with pytest.raises(RuntimeError if isinstance(error, StopIteration) else type(error)):
        await broken


@pytest.mark.parametrize("apart", [False, True])
async def test_where_the_database_does_not_begin_all_hear_so_and_the_next_is_tried(bench: Bench, apart: bool) -> None:
    begin, broken = bench.session.begin, [True]

    def refuse(*, wait: bool, looks: Sequence[Look]) -> bool:
        if broken and broken.pop():
            raise bench.session.faults[0]("disk I/O error")
        return begin(wait=wait, looks=looks)

    bench.session.begin = refuse  # type: ignore[method-assign]
    asked = [bench.ask(take, apart=apart) for _ in range(2 - apart)]
    for one in asked:
        with pytest.raises(Unavailable, match="nothing was changed"):
            await one
    assert await bench.ask(take) == 1
    assert (bench.metrics.failures, bench.metrics.groups) == (1, 1)


async def test_the_closing_finishes_what_flies_and_what_waits(bench: Bench) -> None:
    bench.gate.clear()
    asked = [bench.ask(take)]
    await asyncio.sleep(0.01)
    asked += [bench.ask(take, apart=number % 2 == 0) for number in range(4)]
    await asyncio.sleep(0)
    threading.Timer(0.05, bench.gate.set).start()
    bench.committer.close()
    assert await asyncio.gather(*asked) == [1, 2, 3, 4, 5]
    with pytest.raises(Unavailable, match="closed"):
        await bench.committer.submit(take)
