"""What the command line does for rolling updates: an endpoint's own words, in lines; and the template of before."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from bessemer.cli.render import columns
from bessemer.client import Client
from bessemer.core.clock import SystemClock, rfc3339
from bessemer.core.errors import Invalid
from bessemer.core.resource import Key
from bessemer.kinds.inference.endpoint.revisions import PROGRESSING
from bessemer.kinds.inference.endpoint.spec import EndpointSpec, Template, takes_adapters

LOOK_SECONDS = 0.5

_FIELDS = ("model", "flavor", "slots", "contextTokens", "engine", "task", "restartedAt")


async def read(client: Client, key: Key) -> dict[str, Any]:
    """The object. Raises NotFound."""
    body: dict[str, Any] = orjson.loads((await client.get(key)).body)
    return body


async def follow(client: Client, key: Key, *, timeout: float, tell: Callable[[str], object]) -> None:
    """Tell of each step until it is over. Raises Invalid where it does not get on, or the time is up; it goes on by
    itself, or not, in any case."""
    end, last = time.monotonic() + timeout, ""
    while True:
        body = await read(client, key)
        over, words = how_far(body)
        if words != last:
            tell(words)
            last = words
        if over:
            return
        said = progressing(body)
        if said.get("status") == "False" and _current(body):
            raise Invalid(f"{said['reason']}: {said['message']}; bessemer rollout undo {key.name} goes back")
        if time.monotonic() >= end:
            raise Invalid(f"it is not over: {words}")
        await asyncio.sleep(LOOK_SECONDS)


def progressing(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The condition that says whether it gets on; nothing where there never was an update."""
    conditions = body.get("status", {}).get("conditions", ())
    return next((one for one in conditions if one["type"] == PROGRESSING), {})


def how_far(body: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether it is over, and how far it is in words."""
    status, name = body.get("status", {}), body["metadata"]["name"]
    if body["spec"].get("backends") or body["spec"].get("external"):
        raise Invalid("it has no replicas of its own: others answer for it")
    revision, updated, wanted = (status.get(word) for word in ("revision", "updatedReplicas", "wantedReplicas"))
    old = sum(one.get("revision") != revision for one in status.get("replicas", ()))
    if not _current(body):
        return False, f"endpoint/{name}: the update has yet to be looked at"
    if not revision:  # there was never another
        ready = status.get("readyReplicas") or 0
        return ready >= (wanted or 0), f"endpoint/{name}: {ready} of {wanted or 0} replicas answer, of one revision"
    if (updated or 0) >= (wanted or 0) and not old:
        return True, f"endpoint/{name}: all of {wanted or 0} replicas are of revision {revision}"
    return (
        False,
        f"endpoint/{name}: {updated or 0} of {wanted or 0} replicas are of revision {revision}, {old} of another",
    )


def _current(body: Mapping[str, Any]) -> bool:
    return bool(body["metadata"].get("generation") == body.get("status", {}).get("observedGeneration"))


def history(body: Mapping[str, Any]) -> str:
    """A line for each revision, the newest last."""
    status = body.get("status", {})
    known = sorted(status.get("revisions", ()), key=lambda one: one["number"])
    if not known:
        raise Invalid("there was one revision alone: nothing is remembered of it")
    rows = []
    for one in known:
        said = one["template"]
        of = sum(replica.get("revision") == one["revision"] for replica in status.get("replicas", ()))
        made = f"{said['slots']} x {said['contextTokens']} tokens"
        rows.append([str(one["number"]), one["revision"], one["since"], said["model"], said["flavor"], made, str(of)])
    return columns(["NUMBER", "REVISION", "SINCE", "MODEL", "FLAVOR", "SLOTS", "REPLICAS"], rows)


async def undo(client: Client, key: Key, *, to: int) -> int:
    """Make its spec what it was; the number of that revision. Raises Invalid where none is known."""
    body = await read(client, key)
    status = body.get("status", {})
    known = sorted(status.get("revisions", ()), key=lambda one: one["number"])
    others = [one for one in known if one["revision"] != status.get("revision")]
    chosen = [one for one in others if one["number"] == to] if to else others[-1:]
    if not chosen:
        raise Invalid(f"revision {to} is not among those to go back to" if to else "there was no revision before")
    body["spec"] = _with(body["spec"], chosen[0]["template"])
    await client.replace(body)
    return int(chosen[0]["number"])


def _with(spec: Mapping[str, Any], template: Mapping[str, Any]) -> dict[str, Any]:
    """The spec with what replicas were made of."""
    said = Template.model_validate(template).dump()
    made = {name: value for name, value in spec.items() if name not in _FIELDS}
    made |= {name: said[name] for name in _FIELDS if name in said}
    if not takes_adapters(EndpointSpec.model_validate(made)):
        made.pop("adapters", None)
        made |= {"adapters": said["adapters"]} if "adapters" in said else {}
    return made


async def restart(client: Client, key: Key) -> None:
    """Ask for replicas that are made anew."""
    body = await read(client, key)
    if body["spec"].get("backends") or body["spec"].get("external"):
        raise Invalid("it has no replicas of its own: others answer for it")
    body["spec"]["restartedAt"] = rfc3339(SystemClock().now())
    await client.replace(body)
