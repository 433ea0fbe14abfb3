"""Waiting: who waits, by what objects say, change by change and after history ran out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson

from bessemer.core.clock import FakeClock
from bessemer.core.errors import Expired, NotFound
from bessemer.core.ports import Bookmark, Scope, Stored
from bessemer.core.resource import Change, Key
from bessemer.core.units import GIB
from bessemer.kinds.fleet.waiting import Waiting
from bessemer.placement.queue import Share

SINCE = "2025-06-15T15:06:40Z"
SMALL = {"kind": "Flavor", "metadata": {"name": "small"}, "spec": {"cores": 2, "memory": "1Gi"}, "status": {}}


def change(kind: str, name: str, *, sort: str = "ADDED", **body: Any) -> Change:
    namespace = "" if kind in ("Tenant", "Project") else "acme--lab"
    meta = {"name": name, "namespace": namespace}
    whole = orjson.dumps({"metadata": meta, "spec": {}, "status": {}, **body})
    return Change(1, sort, Key(kind, namespace, name), f"u-{name}", "", whole)  # type: ignore[arg-type]


def waits(name: str, **spec: Any) -> Change:
    return change("Instance", name, spec={"flavor": "small", **spec}, status={"waitingSince": SINCE})


class Script:
    """Answers each watch of a kind with the next of its lists, then history is gone or nothing more happens."""

    def __init__(self, **lists: list[list[Change]]) -> None:
        self._lists = lists

    async def get(self, key: Key) -> Stored:
        if key.kind != "Flavor":
            raise NotFound(str(key))
        return Stored(key, "u", 1, 1, "", orjson.dumps(SMALL))

    async def watch(self, scope: Scope, *, since: int | None = None) -> AsyncIterator[Change | Bookmark]:
        some = self._lists.get(scope.kind, [])
        for one in some.pop(0) if some else ():
            yield one
        yield Bookmark(5)
        if some:
            raise Expired("gone")
        await asyncio.Event().wait()


async def followed(*, left: Callable[[str], None] = lambda _: None, **lists: list[list[Change]]) -> Waiting:
    clock = FakeClock()
    waiting = Waiting(Script(**lists), clock, left=left)  # type: ignore[arg-type]
    task = asyncio.create_task(waiting.run())
    await clock.advance(10)
    task.cancel()
    assert waiting.ready()
    return waiting


async def test_who_says_so_waits_for_what_its_flavor_says() -> None:
    idle = change("Instance", "runs", spec={"flavor": "small"})
    waiting = await followed(Instance=[[waits("vm", priority=3, preemptible=True), idle]])
    (pending,) = waiting.pending.values()
    assert (pending.uid, pending.asker.since, pending.asker.preemptible) == ("u-vm", 1750000000, True)
    assert pending.asker.priority == 0, "more than its tenant may have"
    assert (pending.member.milli_cores, pending.member.memory_bytes) == (2000, GIB)
    assert pending.member.virtualization


async def test_what_cannot_be_read_waits_for_nothing_and_stops_nobody() -> None:
    bad = change("Instance", "bad", spec={}, status={"waitingSince": SINCE})
    odd = change("Tenant", "odd", spec={"quota": {"milliCores": "many"}})
    waiting = await followed(Instance=[[bad, waits("vm")]], Tenant=[[odd]])
    assert list(waiting.pending) == ["u-vm"]
    assert waiting.tree == {}


async def test_whoever_left_while_history_was_gone_waits_no_more() -> None:
    engine = change("Endpoint", "chat", spec={"flavor": "small"}, status={"waitingSince": SINCE})
    waiting = await followed(Instance=[[waits("one"), waits("two")], [waits("two")]], Endpoint=[[engine]])
    assert sorted(waiting.pending) == ["u-chat", "u-two"]


async def test_what_is_at_its_end_need_not_be_silent_first() -> None:
    """A job whose deadline passes while it waits has nobody stopped for it any more."""
    left: list[str] = []
    over = {"phase": "Failed", "finishedAt": SINCE, "waitingSince": None}
    jobs = [
        change("Job", "waits", status={"waitingSince": SINCE, "finishedAt": None}, spec={"flavor": "small"}),
        change("Job", "late", status=over, spec={"flavor": "small"}),
        change("Job", "gone", sort="DELETED"),
    ]
    await followed(left=left.append, Job=[jobs])
    assert left == ["u-late", "u-gone"]


async def test_shares_are_of_those_who_have_another_than_everybody() -> None:
    quota = {"milliCores": 4000, "devices": {"*": 2, "H100": 1}}
    tenants = [change("Tenant", "acme", spec={"weight": 3, "quota": quota}), change("Tenant", "plain")]
    waiting = await followed(Tenant=[tenants])
    bounds = {"cores": 4000, "devices": 2000, "devices/H100": 1000}
    assert waiting.tree == {"acme": Share(weight=3, bounds=bounds)}
