"""Waiting for what was applied, with a tree of what waits for what: drawn anew at a terminal, line by line in a pipe.

An object is ready once its controller has seen its newest intent and says so (Ready), or has stopped it as asked;
kinds that nobody controls are ready as they are. It is stuck where it says so (Stuck), or has failed. Waiting ends when
nothing moves any more, when the time is up, or when somebody interrupts it: what was applied stays in any case.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import orjson
import typer

from bessemer.cli import render
from bessemer.cli.connection import find_kind
from bessemer.cli.work.objects import list_all
from bessemer.client import Client
from bessemer.core.errors import BessemerError, Cause, Expired, Invalid, NotFound
from bessemer.core.ports import Bookmark, Scope
from bessemer.core.resource import Key
from bessemer.core.tasks import first_error

Verdict = Literal["ready", "waits", "stuck"]
_AS_ASKED = ("Stopped", "Disabled", "Expired")
"""Reasons of a Ready that is False because nothing else is wanted."""

_LOOK_SECONDS = 0.5
_PARTS = ("flavor", "image", "model")
"""Fields of a spec that name an object of that kind."""

_UNDER_MAX = 8
"""Objects that are shown below one."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an object is."""

    key: Key
    verdict: Verdict
    phase: str = ""
    why: str = ""
    under: tuple[Standing, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.key.kind.lower()}/{self.key.name}"

    def line(self) -> str:
        """In words."""
        said = ": ".join(word for word in (self.phase, self.why) if word)
        return f"{self.name} {self.verdict}{f': {said}' if said else ''}"

    def document(self) -> dict[str, Any]:
        """As a program reads it."""
        place = {"namespace": self.key.namespace} if self.key.namespace else {}
        said = {"phase": self.phase, "reason": self.why, "waitsFor": [one.document() for one in self.under]}
        found = {"kind": self.key.kind, "name": self.key.name, **place, "state": self.verdict}
        return {**found, **{name: value for name, value in said.items() if value}}


def standing(key: Key, body: Mapping[str, Any] | None) -> Standing:
    """What an object says of itself; None is one that is not there (yet)."""
    if body is None:
        return Standing(key, "waits", why="it is not there")
    if "deletionTimestamp" in body["metadata"]:
        return Standing(key, "waits", body.get("status", {}).get("phase", ""), "it is being deleted")
    if find_kind(key.kind).reconcile is None and key.kind != "Claim":
        return Standing(key, "ready")
    status = body.get("status", {})
    phase = status.get("phase", "")
    conditions = {c["type"]: c for c in status.get("conditions", ())}
    ready, stuck = conditions.get("Ready"), conditions.get("Stuck")
    if ready is None or status.get("observedGeneration", 0) < body["metadata"].get("generation", 0):
        return Standing(key, "waits", phase, "nobody has looked at it yet")
    if ready["status"] == "True" or ready["reason"] in _AS_ASKED:
        return Standing(key, "ready", phase)
    why = ": ".join(word for word in (ready["reason"], ready.get("message", "")) if word)
    if stuck is not None and stuck["status"] == "True":
        return Standing(key, "stuck", phase, stuck.get("message") or why)
    return Standing(key, "stuck" if phase == "Failed" else "waits", phase, why)


@dataclass(slots=True)
class Seen:
    """What the server said last of the objects, and which of them should go."""

    keys: Sequence[Key]
    going: frozenset[Key]
    bodies: dict[Key, Mapping[str, Any]] = field(default_factory=dict)
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    known: set[Key] = field(default_factory=set)
    """Those of which the server was asked at all: only of them it means something that they are not there."""

    def standings(self) -> list[Standing]:
        """In the order in which they were applied."""
        return [self._standing(key) for key in self.keys]

    def _standing(self, key: Key) -> Standing:
        body = self.bodies.get(key)
        if key in self.going:
            gone = body is None and key in self.known
            return Standing(key, "ready", why="gone") if gone else Standing(key, "waits", why="it is being deleted")
        return standing(key, body)


async def until_ready(
    client: Client, keys: Sequence[Key], *, going: Sequence[Key] = (), timeout: float, show: Show
) -> list[Standing]:
    """How they stand once all are ready (or gone), none moves any more, or ``timeout`` seconds are over."""
    seen = Seen([*keys, *going], frozenset(going))
    groups: dict[tuple[str, str], set[str]] = {}
    for key in seen.keys:
        groups.setdefault((key.kind, key.namespace), set()).add(key.name)
    followers = [
        asyncio.ensure_future(_follow(client, seen, group=group, names=names)) for group, names in groups.items()
    ]
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await _settled(client, seen, followers=followers, show=show)
        found = await _with_parts(client, seen)
        show.end(found)
        return found
    except asyncio.CancelledError:
        show.end(seen.standings())
        typer.echo("Interrupted: what was applied stays, and goes on. The same command goes on waiting.", err=True)
        raise
    finally:
        for follower in followers:
            follower.cancel()
        await asyncio.gather(*followers, return_exceptions=True)


async def _settled(client: Client, seen: Seen, *, followers: Sequence[asyncio.Future[None]], show: Show) -> None:
    while True:
        if error := first_error([follower for follower in followers if follower.done()]):
            raise error
        seen.moved.clear()
        found = await _with_parts(client, seen)
        show.now(found)
        if all(one.verdict != "waits" for one in found):
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_SECONDS):
                await seen.moved.wait()


async def _follow(client: Client, seen: Seen, *, group: tuple[str, str], names: set[str]) -> None:
    kind, namespace = group
    scope = Scope(kind=kind, namespace=namespace or None, names=frozenset(names))
    while True:
        with contextlib.suppress(Expired):
            await _watch(client, scope, seen=seen)


async def _watch(client: Client, scope: Scope, *, seen: Seen) -> None:
    async with contextlib.aclosing(client.watch(scope)) as changes:
        async for change in changes:
            if isinstance(change, Bookmark):
                seen.known |= {Key(scope.kind, scope.namespace or "", name) for name in scope.names or ()}
            elif change.type == "DELETED":
                seen.bodies.pop(change.key, None)
            else:
                seen.bodies[change.key] = orjson.loads(change.body)
            seen.moved.set()


# --- what it waits for --------------------------------------------------------------------------------------------


async def _with_parts(client: Client, seen: Seen) -> list[Standing]:
    """Each that is not ready with what it is made of and is not ready, and with the claims that it holds."""
    return [
        one
        if one.verdict == "ready" or one.key not in seen.bodies
        else await _with(client, one, body=seen.bodies[one.key])
        for one in seen.standings()
    ]


async def _with(client: Client, one: Standing, *, body: Mapping[str, Any]) -> Standing:
    under: list[Standing] = []
    with contextlib.suppress(BessemerError):  # what may not be seen is not shown; the object itself says why it waits
        async with contextlib.aclosing(_parts(client, one.key, body=body)) as parts:
            under = [part async for part in parts]
    return replace(one, under=tuple(under[:_UNDER_MAX]))


async def _parts(client: Client, key: Key, *, body: Mapping[str, Any]) -> AsyncGenerator[Standing, None]:
    from bessemer.kinds.workload import LABEL_KIND, LABEL_NAME

    spec = body.get("spec", {})
    for name in _PARTS:
        if isinstance(spec.get(name), str):
            part = Key(find_kind(name).name, "", spec[name])
            try:
                found = standing(part, orjson.loads((await client.get(part)).body))
            except NotFound:
                found = Standing(part, "waits", why="there is none of that name")
            if found.verdict != "ready":
                yield found
    if key.kind in ("Instance", "Endpoint", "Vetting", "Job"):
        labels = {LABEL_KIND: key.kind, LABEL_NAME: key.name}
        for claim in await list_all(client, Scope(kind="Claim", namespace=key.namespace, labels=labels)):
            status = claim.get("status", {})
            place = Key("Claim", key.namespace, claim["metadata"]["name"])
            message = status.get("message", "")
            yield Standing(
                place, "waits", status.get("phase", "Pending"), f"on {claim['spec']['host']} {message}".strip()
            )


def require(found: Sequence[Standing], *, timeout: float) -> None:
    """Raises Invalid with the reasons where something is stuck, or still waits."""
    late = [one for one in found if one.verdict != "ready"]
    if not late:
        return
    stuck = [one for one in late if one.verdict == "stuck"]
    words = f"{len(stuck)} of {len(found)} objects {'is' if len(stuck) == 1 else 'are'} stuck"
    if not stuck:
        words = (
            f"{len(late)} of {len(found)} objects still wait after {timeout:g} s; they go on, and so does waiting again"
        )
    raise Invalid(words, [Cause(one.name, ": ".join(w for w in (one.phase, one.why) if w)) for one in stuck or late])


# --- how it is shown ----------------------------------------------------------------------------------------------


class Show:
    """Where progress goes: drawn anew at a terminal, else a line for each change; nowhere where ``quiet``."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._live = sys.stdout.isatty() and not quiet
        self._told: dict[Key, str] = {}
        self._drawn = 0
        self._began = time.monotonic()

    def now(self, found: Sequence[Standing]) -> None:
        """Show how they stand."""
        if self._live:
            self._draw(found)
        elif not self._quiet:
            for one in _flat(found):
                if self._told.get(one.key) != one.line():
                    self._told[one.key] = one.line()
                    typer.echo(one.line())

    def end(self, found: Sequence[Standing]) -> None:
        """Show how they stand for the last time."""
        self.now(found)
        self._drawn = 0

    def _draw(self, found: Sequence[Standing]) -> None:
        size = shutil.get_terminal_size()
        lines = [line for one in found for line in tree(one, within=size.columns)]
        ready = sum(one.verdict == "ready" for one in found)
        room = max(1, size.lines - 2)
        if len(lines) > room:  # what is ready needs no line of its own
            lines = [line for one in found if one.verdict != "ready" for line in tree(one, within=size.columns)][:room]
        lines.append(f"{ready} of {len(found)} ready, {time.monotonic() - self._began:.0f} s"[: size.columns])
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        sys.stdout.write(up + "".join(f"\r\x1b[2K{line}\n" for line in lines) + "\x1b[J")
        sys.stdout.flush()
        self._drawn = len(lines)


def tree(one: Standing, *, within: int = 0, depth: int = 0) -> Iterator[str]:
    """An object and what is below it, a line each, cut at the terminal's width."""
    mark = {"ready": "✓", "waits": "…", "stuck": "✗"}[one.verdict]
    said = ": ".join(word for word in (one.phase, one.why) if word)
    line = f"{'  ' * depth}{mark} {one.name}{f'  {said}' if said else ''}"
    cut = line[: within - 1] + "…" if within and len(line) > within else line
    word = {"ready": "Ready", "waits": "Pending", "stuck": "Failed"}[one.verdict]
    yield cut.replace(mark, render.coloured(word).replace(word, mark), 1)
    for inner in one.under:
        yield from tree(inner, within=within, depth=depth + 1)


def _flat(found: Sequence[Standing]) -> Iterator[Standing]:
    for one in found:
        yield one
        yield from _flat(one.under)
