"""What workloads share that hold Claims: whom a Claim's change wakes, how a host is read, when who lost asks again."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal, cast

import orjson
import pytest

from bessemer.core.clock import rfc3339
from bessemer.core.errors import BessemerError, Conflict, NotFound, QuotaExceeded, Taken, Walled
from bessemer.core.ports import Stored
from bessemer.core.resource import Change, Condition, Key
from bessemer.core.taking import Telling
from bessemer.kinds import turns, workload
from bessemer.kinds.context import Context
from bessemer.kinds.fleet.flavor import Flavor
from bessemer.kinds.taking import taking

PROJECT = "acme--lab"
NOW = 1_700_000_000.0


@dataclass
class Shelf:
    """One body."""

    body: bytes = b""

    @property
    def objects(self) -> Shelf:
        return self

    async def get(self, key: Key) -> Stored:
        if not self.body:
            raise NotFound("gone")
        return Stored(key, "u", 1, 1, "", self.body)


def claim(type: Literal["ADDED", "MODIFIED", "DELETED"], kind: str = "Instance") -> Change:
    body = orjson.dumps({"spec": {"workload": {"kind": kind, "name": "vm"}}})
    return Change(1, type, Key("Claim", PROJECT, "instance-vm-0"), "u", "h1", body)


async def woken(change: Change, *, taken: bool) -> list[Key]:
    wake = workload.wake_by_claim("Instance", taken=taken)
    return [key async for key in wake(cast(Context, None), change)]


@pytest.mark.parametrize("taken", [True, False])
async def test_a_claims_change_wakes_who_holds_it(taken: bool) -> None:
    holder = [Key("Instance", PROJECT, "vm")]
    assert await woken(claim("MODIFIED"), taken=taken) == holder
    assert await woken(claim("DELETED"), taken=taken) == holder
    assert await woken(claim("ADDED"), taken=taken) == (holder if taken else [])
    assert await woken(claim("MODIFIED", "Job"), taken=taken) == []


# --- places that were not taken -----------------------------------------------------------------------------------


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("error", [Taken, QuotaExceeded, Walled, Conflict])
async def test_lost_is_one_place_that_somebody_else_took(
    error: type[BessemerError], replicas: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its quota keeps from it is free for others at once, and so are the places of a gang that lost one."""
    forgotten: dict[str, bool] = {}

    async def claim(*_: Any, **__: Any) -> None: ...

    async def refuse(*_: Any, **__: Any) -> None:
        raise error("not this one")

    def forget(uid: str, *, lost: bool) -> None:
        forgotten[uid] = lost

    monkeypatch.setattr(workload, "claim_for", claim)
    fleet = SimpleNamespace(assume=lambda *_: None, forget=forget)
    ctx = cast(Context, SimpleNamespace(fleet=fleet, capacity=SimpleNamespace(take=refuse)))
    make = SimpleNamespace(terms=SimpleNamespace(revision=1))
    parts = {n: cast(Any, (None, make)) for n in range(replicas)}
    with pytest.raises(error):
        await workload.take_all(ctx, cast(Any, SimpleNamespace(uid="w")), parts=parts)
    assert forgotten == {f"w/{n}": error is Taken and replicas == 1 for n in range(replicas)}
    if replicas == 1:
        forgotten.clear()
        within = await taking(
            ctx,
            cast(Any, SimpleNamespace(uid="w")),
            decision=cast(Any, None),
            make=cast(Any, make),
            failed=cast(Any, refuse),
        )
        with pytest.raises(error):
            await within.write(Telling({}))
        assert forgotten == {"w/0": error is Taken}


# --- hosts --------------------------------------------------------------------------------------------------------


def host(*conditions: dict[str, str], metadata: dict[str, Any] | None = None, **more: Any) -> bytes:
    body = {"metadata": metadata or {}, "spec": {}, "status": {"conditions": list(conditions), **more}}
    return orjson.dumps(body)


READY = {"type": "Ready", "status": "True", "reason": "Ready"}
HEARD = {"type": "Reachable", "status": "True", "reason": "Heartbeat"}
SILENT = {"type": "Reachable", "status": "False", "reason": "HeartbeatLost", "message": "not heard of"}

BODIES = {
    "well": (host(READY, HEARD), True, False),
    "well, said first": (host(HEARD, READY), True, False),
    "well, said another way round": (host({"status": "True", "type": "Reachable", "reason": "x"}), True, False),
    "nothing is said yet": (host(), True, False),
    "silent": (host(READY, SILENT), False, False),
    "silent, and labels say otherwise": (
        host(SILENT, metadata={"labels": {"type": "Reachable", "status": "True"}}),
        False,
        False,
    ),
    "silent, and a word says otherwise": (
        host(SILENT, report={"kernel": ',{"type":"Reachable","status":"True"'}),
        False,
        False,
    ),
    "fenced": (host(READY, SILENT, fenced=True), False, True),
    "fenced, and heard": (host(READY, HEARD, fenced=True), True, True),
}


@pytest.mark.parametrize("name", BODIES)
async def test_a_host_is_as_its_status_says(name: str) -> None:
    body, reachable, fenced = BODIES[name]
    found = await workload.host_view(cast(Context, Shelf(body)), "h1")
    assert (found.reachable, found.fenced) == (reachable, fenced)
    assert bool(found.message) is not reachable


async def test_a_host_that_is_gone_is_fenced() -> None:
    found = await workload.host_view(cast(Context, Shelf()), "h1")
    assert (found.reachable, found.fenced) == (False, True)


# --- parts --------------------------------------------------------------------------------------------------------


async def test_a_part_is_read_as_it_is_now() -> None:
    def flavor(cores: int) -> bytes:
        body = {"metadata": {"name": "small"}, "spec": {"cores": cores, "memory": "1Gi", "disk": "1Gi"}}
        return orjson.dumps({"apiVersion": "bessemer.dev/v1beta1", "kind": "Flavor", **body})

    shelf = Shelf(flavor(2))
    reads = cast(workload.Reads, shelf)
    first = await workload.read_part(reads, Flavor, name="small")
    assert first is not None
    assert first is await workload.read_part(reads, Flavor, name="small")
    shelf.body = flavor(4)
    second = await workload.read_part(reads, Flavor, name="small")
    assert second is not None
    assert (first.spec.cores, second.spec.cores) == (2, 4)
    shelf.body = b""
    assert await workload.read_part(reads, Flavor, name="small") is None


# --- places that were lost ----------------------------------------------------------------------------------------


def waiting(seconds: float, reason: str) -> turns.WaitingStatus:
    ready = Condition(type="Ready", status="False", reason=reason, last_transition_time=rfc3339(NOW))
    return turns.WaitingStatus(waiting_since=rfc3339(NOW - seconds), conditions=[ready])


@pytest.mark.parametrize(
    ("status", "again"),
    [
        (turns.WaitingStatus(), 0.2),
        (waiting(3600, "Queued"), 0.2),
        (waiting(0, "Taken"), 0.2),
        (waiting(4, "Taken"), 1.0),
        (waiting(3600, "Taken"), 10.0),
    ],
)
def test_who_loses_again_and_again_asks_less_often(status: turns.WaitingStatus, again: float) -> None:
    kept, seconds = turns.lost(status, now=NOW)
    assert seconds == pytest.approx(again)
    assert kept["waiting_since"] == (status.waiting_since or rfc3339(NOW))
