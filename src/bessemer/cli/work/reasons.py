"""What happened to objects and what they wait for, for the commands of `cli.objects`: events, describe, why."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import typer

from bessemer.cli import render
from bessemer.cli.connection import find_kind, key_of
from bessemer.cli.output import DOCUMENTS, listed, shown
from bessemer.cli.work.objects import UNOWNED, AnyKind, list_all, nothing, scope_of
from bessemer.client import Client
from bessemer.core.errors import Invalid, NotFound
from bessemer.core.ports import Scope
from bessemer.core.resource import Key
from bessemer.kinds.workload import LABEL_KIND, LABEL_NAME


@dataclass(frozen=True, slots=True)
class About:
    """Whose events: those of a project, or of a kind in it, or of some objects of the kind; with a ``uid`` of that very
    object, and not of one that had its name before."""

    kind: AnyKind | None = None
    names: Collection[str] = ()
    project: str = ""
    uid: str = ""

    def holds(self, event: Mapping[str, Any]) -> bool:
        about = event.get("involvedObject", {})
        if self.kind is not None and about.get("kind") != self.kind.name:
            return False
        if self.uid and about.get("uid", self.uid) != self.uid:
            return False
        return not self.names or about.get("name") in self.names

    def __str__(self) -> str:
        if self.kind is None:
            return self.project
        place = self.project if self.kind.namespaced else ""
        names = ", ".join(str(Key(self.kind.name, place, name)) for name in self.names)
        return names or f"{self.kind.plural}{f' in {place}' if place else ''}"


async def events_of(client: Client, about: About) -> list[dict[str, Any]]:
    """The events, oldest first. Those of what belongs to no project stand in ``default``."""
    namespace = about.project or None
    if about.kind is not None and not about.kind.namespaced:
        namespace = UNOWNED
    found = await list_all(client, Scope(kind="Event", namespace=namespace))
    return sorted(filter(about.holds, found), key=lambda event: str(event.get("lastTimestamp", "")))


async def events(client: Client, about: About, *, output: str) -> None:
    """Print the events; a document is a List of them."""
    found = await events_of(client, about)
    if not found and output not in DOCUMENTS:
        typer.echo(nothing("events", str(about)), err=True)
        return
    many, now = len(about.names) != 1, time.time()
    typer.echo(
        shown(
            listed(found),
            output,
            text=lambda within: render.event_table(found, now, objects=many, within=within),
        )
    )


async def describe(client: Client, kind: AnyKind, *, names: Sequence[str], project: str) -> None:
    """Print objects with their events; all of the project when none is named."""
    chosen = list(names) or [stored.key.name for stored in (await client.list(scope_of(kind, project))).items]
    ends = await _endings(client) if kind.name == "Endpoint" and chosen else None
    for name in chosen:
        body = orjson.loads((await client.get(key_of(kind, name, project=project))).body)
        lately = await events_of(client, About(kind, (name,), project, body["metadata"]["uid"]))
        typer.echo(render.described(body, lately, now=time.time(), within=render.width()))
        if ends is not None:
            typer.echo(ends(body))


async def _endings(client: Client) -> Callable[[Mapping[str, Any]], str]:
    """What stands below the description of an endpoint."""
    from bessemer.cli.work import calling

    gateway = await calling.gateway_of(client)
    return lambda body: calling.described(body, gateway)


async def why(client: Client, kind: AnyKind, *, keys: Sequence[Key], output: str) -> None:
    """Print what objects wait for, and their last events; a document is a List where more than one is named."""
    found = [await _reason(client, kind, key=key) for key in keys]
    whole = found[0].document() if len(found) == 1 else listed([one.document() for one in found])
    typer.echo(shown(whole, output, text=lambda within: "\n\n".join(one.text(within=within) for one in found)))


async def called(client: Client, name: str, *, project: str) -> list[str]:
    """``["KIND/NAME"]`` of the workload of that name, [] where there is none. Raises Invalid where there are more."""
    found: list[str] = []
    for kind in map(find_kind, ("instance", "endpoint", "job")):
        with contextlib.suppress(NotFound):
            await client.get(Key(kind.name, project, name))
            found.append(f"{kind.singular}/{name}")
    if len(found) > 1:
        raise Invalid(f"say which: {' or '.join(f'`bessemer why {one} -n {project}`' for one in found)}")
    return found


@dataclass(frozen=True, slots=True)
class _Reason:
    """All that is known of what an object waits for, as the api tells it."""

    body: Mapping[str, Any]
    claims: Sequence[Mapping[str, Any]]
    lately: Sequence[Mapping[str, Any]]

    def text(self, *, within: int) -> str:
        now = time.time()
        text = "\n".join([*reasons(self.body, now), *placed(self.claims)])
        return f"{text}\n\nLately:\n{render.event_table(self.lately, now, within=within)}" if self.lately else text

    def document(self) -> dict[str, Any]:
        status = self.body.get("status", {})
        metadata = {
            name: self.body["metadata"][name] for name in ("name", "namespace") if name in self.body["metadata"]
        }
        told = {name: status[name] for name in ("phase", "phaseSince", "reasons", "remedy") if status.get(name)}
        return {
            "kind": self.body["kind"],
            "metadata": metadata,
            **told,
            "conditions": _holding_up(status),
            "hosts": [claim["spec"]["host"] for claim in self.claims],
            **(
                {"placement": placement}
                if self.claims and (placement := self.claims[-1]["spec"].get("placement"))
                else {}
            ),
            "events": list(self.lately),
        }


async def _reason(client: Client, kind: AnyKind, *, key: Key) -> _Reason:
    body = orjson.loads((await client.get(key)).body)
    uid = body["metadata"]["uid"]
    lately = await events_of(client, About(kind, (key.name,), key.namespace, uid))
    claims = [one for one in await _claims(client, key) if one["spec"]["workload"].get("uid", uid) == uid]
    return _Reason(body, claims, lately[-5:])


def reasons(body: Mapping[str, Any], now: float) -> list[str]:
    """Phase, what holds it up, the count per reason, the cheapest change."""
    status = body.get("status", {})
    since = render.age(status.get("phaseSince"), now)
    lines = [f"{body['kind']} {body['metadata']['name']} is {status.get('phase', 'Pending')} for {since}."]
    for condition in _holding_up(status):
        word = _word(condition, status) if condition["type"] == "Ready" else "It is stuck"
        lines.append(f"{word}: {condition['reason']}: {condition['message']}")
    lines += _counts(status)
    if status.get("remedy"):
        lines.append(f"Cheapest change: {status['remedy']}")
    return lines if len(lines) > 1 else [*lines, "It waits for nothing."]


def _word(condition: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    """What is not ready need not wait: a job is once it has ended, and what has failed never is."""
    if status.get("phase") == "Failed":
        return "It has failed"
    return "It runs" if condition["reason"] == "Running" else "It waits"


def _holding_up(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The conditions that say what it waits for: not ready, or stuck."""
    return [
        condition
        for condition in status.get("conditions", [])
        if (condition["type"] == "Ready" and condition["status"] != "True")
        or (condition["type"] == "Stuck" and condition["status"] == "True")
    ]


async def _claims(client: Client, key: Key) -> list[dict[str, Any]]:
    """The claims of a workload, in the order in which they were made."""
    labels = {LABEL_KIND: key.kind, LABEL_NAME: key.name}
    found = await list_all(client, Scope(kind="Claim", namespace=key.namespace, labels=labels)) if key.namespace else []
    made = [(c["metadata"].get("creationTimestamp", ""), c["spec"]["workload"].get("replica", 0), c) for c in found]
    return [claim for _, _, claim in sorted(made, key=lambda item: item[:2])]


def placed(claims: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why these hosts: of the claim made last, how many had room, and why the others were set aside."""
    if not claims:
        return []
    hosts = [str(claim["spec"]["host"]) for claim in claims]
    shown = ", ".join(hosts[:4]) + (f" and {len(hosts) - 4} more" if len(hosts) > 4 else "")
    lines = [f"It is on {shown}."]
    why = claims[-1]["spec"].get("placement") or {}
    if why.get("fitting"):
        room = "the only host with room" if why["fitting"] == 1 else f"one of {why['fitting']} hosts with room"
        rest = " Not taken:" if why.get("reasons") else ""
        lines += [f"When it was chosen, {hosts[-1]} was {room}.{rest}", *_counts(why)]
    return lines


def _counts(said: Mapping[str, Any]) -> list[str]:
    return [f"  {r['hosts']:>6} host{'s'[: r['hosts'] != 1]}: {r['text']}" for r in said.get("reasons", [])]
