"""A consolidation's plan as a table, and its course as a bar, for the command of that name."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import orjson

from bessemer.cli import render
from bessemer.cli.progress import bar
from bessemer.client import Client, an_object
from bessemer.core.errors import Invalid, NotFound, Unavailable
from bessemer.core.ports import Bookmark, Scope
from bessemer.core.resource import Key
from bessemer.kinds.fleet.moved import ENDED, KIND

PLAN_SECONDS = 60.0
"""For so long a plan is waited for: after that its object says why there is none."""

_HOW: Mapping[str, str] = {
    "Restart": "stopped, started anew",
    "Replace": "another answers first",
}


async def foretold(client: Client, *, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """The object as it would be, with its plan, by a dry run: nothing of it is kept. Raises Invalid where there is no
    plan."""
    made = an_object(Key(KIND, "", name or _some_name()), spec)
    body: dict[str, Any] = orjson.loads((await client.create(made, dry_run=True)).body)
    status = body.get("status", {})
    if status.get("phase", "Pending") == "Pending":
        raise Invalid(f"there is no plan: {status.get('message') or 'this server makes none in a dry run'}")
    return body


async def made(client: Client, *, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """A new object with its plan. Where there is none, nothing is made: a plan is asked for before, and an object that
    has none after all is deleted again. Raises Invalid then."""
    foreseen = await foretold(client, name=name, spec=spec)
    key = Key(KIND, "", foreseen["metadata"]["name"])
    await client.create(an_object(key, spec))
    try:
        return await _plan(client, key)
    except BaseException:
        # Nobody has approved it: what would be left is an object that nobody asked for.
        with contextlib.suppress(NotFound):
            await client.delete(key)
        raise


async def planned(client: Client, name: str) -> dict[str, Any]:
    """The object with its plan. Raises Invalid where there is no plan."""
    try:
        return await _plan(client, Key(KIND, "", name))
    except Invalid as error:
        again = f"consolidation/{name} looks again now and then; `bessemer delete consolidation {name}` ends that"
        raise Invalid(f"{error} ({again})") from None


async def followed(client: Client, name: str) -> dict[str, Any]:
    """Approve it, and watch it until it has ended; the object as it is then."""
    key = Key(KIND, "", name)
    await client.patch(key, {"spec": {"approved": True}})
    with bar("moving") as told:
        async for body in _bodies(client, key):
            status = body.get("status", {})
            told(status.get("moved", 0) / max(1, status.get("moves", 0)))
            if status.get("phase") in ENDED:
                return body
    raise Unavailable("The server ended the watch.", retry_after_seconds=1)


def text(body: Mapping[str, Any], *, within: int = 0, kept: bool = True, yes: bool = False) -> str:
    """The plan for a person: what it gains and costs, then a line per move. ``kept``: it is of an object that is
    there."""
    name, status = body["metadata"]["name"], body.get("status", {})
    lines = [f"consolidation/{name}: {_gain(body)}" if kept else f"The plan: {_gain(body)}"]
    steps = status.get("steps", ())
    if steps:
        head = ["MOVE", "FROM", "TO", "DEVICES", "LOST", "HOW", "STATE"]
        rows = [
            [
                f"{step['project']}/{step['workload']}",
                step["source"],
                step["target"],
                f"{step.get('devicesMilli', 0) / 1000:g}",
                _time(step.get("lostDeviceSeconds", 0)),
                _HOW.get(step["how"], step["how"]),
                step.get("phase", "Waiting"),
            ]
            for step in steps
        ]
        lines += [render.columns(head, rows, within=within, spare=["STATE", "HOW"])]
        lost = _time(status.get("lostDeviceSeconds", 0))
        lines += [f"{len(steps)} move{'s' * (len(steps) != 1)}; at most {lost} of devices' work is lost."]
    if not kept:
        lines += ["Nothing is moved, and nothing of this is kept: the same with --yes carries it out."]
    elif status.get("phase") == "Planned" and not yes:
        lines += [f"Nothing is moved yet: `bessemer consolidate {name} --yes` carries it out."]
    elif status.get("phase") != "Planned":
        lines += [f"{status.get('phase')}: {status.get('message', '')}"]
    return "\n".join(lines)


def _gain(body: Mapping[str, Any]) -> str:
    status, spec = body.get("status", {}), body["spec"]
    devices = status.get("devicesMilli", 0) / 1000
    if spec.get("open"):
        there = status.get("there", 0)
        free = f", {there} of them without any move" if there else ""
        return (
            f"{status.get('places', 0)} places of {spec['open']['flavor']} at once{free}; {devices:g} devices come free"
        )
    hosts = status.get("hosts", ())
    return f"{', '.join(hosts)} empty and cordoned; {devices:g} devices come free"


def _time(seconds: int) -> str:
    """``3 h 20 min`` of device time."""
    if seconds < 60:
        return f"{seconds} s"
    hours, minutes = divmod(seconds // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _ready(status: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Iterator[Mapping[str, Any]] = (c for c in status.get("conditions", ()) if c["type"] == "Ready")
    return next(found, {})


async def _plan(client: Client, key: Key) -> dict[str, Any]:
    """The object once it has a plan. Raises Invalid where it has none for now."""
    try:
        return await asyncio.wait_for(_told(client, key), PLAN_SECONDS)
    except TimeoutError:
        raise Invalid("there is no plan: nobody has planned it yet") from None


async def _told(client: Client, key: Key) -> dict[str, Any]:
    async for body in _bodies(client, key):
        if _is_planned(body):
            return body
    raise Unavailable("The server ended the watch.", retry_after_seconds=1)


def _is_planned(body: Mapping[str, Any]) -> bool:
    """Whether there is a plan. Raises Invalid where there will be none for now."""
    status = body.get("status", {})
    if status.get("phase", "Pending") != "Pending":
        return True
    ready = _ready(status)
    if ready.get("reason") not in (None, "Behind"):
        raise Invalid(f"there is no plan: {status.get('message') or ready['message']}")
    return False


def _some_name() -> str:
    return f"consolidation-{secrets.token_hex(3)}"


async def _bodies(client: Client, key: Key) -> AsyncIterator[dict[str, Any]]:
    """The object, and each of its changes. Raises NotFound where it is not there."""
    stored = await client.get(key)
    yield orjson.loads(stored.body)
    async for item in client.watch(Scope(kind=key.kind, name=key.name), since=stored.revision):
        if isinstance(item, Bookmark) or item.uid != stored.uid:
            continue
        if item.type == "DELETED":
            raise Invalid(f"consolidation/{key.name} was deleted")
        yield orjson.loads(item.body)
