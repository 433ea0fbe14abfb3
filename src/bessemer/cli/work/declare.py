"""What files declare, applied: server-side, in order, object by object; and pruned of what they say no more.

The server alone merges, by who said what before. An object that is refused keeps no other from being applied; all is
told, with its place in the files, and applying again is harmless. Nothing is pruned unless everything was applied.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from bessemer.cli.connection import find_kind, key_of
from bessemer.cli.manifests import Manifest
from bessemer.cli.work.objects import without
from bessemer.cli.work.sets import ObjectSet, in_order, keeping, members, other_set, rank
from bessemer.client import Client
from bessemer.core.errors import BessemerError, Cause, Conflict, Invalid, NotFound, Unavailable
from bessemer.core.ports import Stored
from bessemer.core.resource import Key

MANAGER = "bessemer"
_AT_ONCE = 16
_UNKNOWN = re.compile(r'unknown field "([^"]+)"')
_MOVED = ("resourceVersion", "managedFields")
"""What a write moves of an object's metadata beside what it says."""

Word = Literal["created", "configured", "unchanged", "pruned", "refused", "not tried"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How files are applied. ``members_of`` marks each object as one of a set; ``prune`` deletes the set's others."""

    manager: str = MANAGER
    force: bool = False
    dry_run: bool = False
    members_of: ObjectSet | None = None
    prune: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    """One object of the files, with what the server has of it in the same version (None: nothing)."""

    manifest: Manifest
    key: Key
    body: dict[str, Any]
    now: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        return f"{self.key.kind.lower()}/{self.key.name}"


@dataclass(frozen=True, slots=True)
class Became:
    """What became of an object. ``causes`` say why it was refused, each with its place."""

    key: Key
    word: Word
    place: str = ""
    causes: tuple[Cause, ...] = ()

    def document(self) -> dict[str, Any]:
        """As a program reads it."""
        where = {"namespace": self.key.namespace} if self.key.namespace else {}
        told = {"file": self.place} if self.place else {}
        why = [f"{cause.field}: {cause.message}" for cause in self.causes]
        found = {"kind": self.key.kind, "name": self.key.name, **where, "result": self.word, **told}
        return {**found, "errors": why} if why else found


@dataclass(slots=True)
class Report:
    """What became of all."""

    done: list[Became] = field(default_factory=list)

    def keys(self, *words: Word) -> list[Key]:
        """The objects that came to one of these."""
        return [one.key for one in self.done if one.word in words]

    def require(self) -> None:
        """Raises Invalid where something was refused, with each place and what to do."""
        bad = [one for one in self.done if one.word in ("refused", "not tried")]
        if not bad:
            return
        tried = len(self.done)
        causes = [cause for one in bad for cause in one.causes]
        left = [str(one.key) for one in bad if one.word == "not tried"]
        if left:
            causes.append(Cause("not tried", ", ".join(left)))
        words = "nothing was applied"
        if len(bad) < tried:
            words = f"{len(bad)} of {tried} objects {'was' if len(bad) == 1 else 'were'} not applied, the rest stands"
        raise Invalid(f"{words}: mend what is wrong and apply the same again", causes)


Tell = Callable[[Became], None]


def items_of(found: Sequence[Manifest], *, project: str, members_of: ObjectSet | None = None) -> list[Item]:
    """The objects in the order in which they are made. Raises Invalid with the place of what cannot be meant."""
    items = [_item(manifest, project=project, members_of=members_of) for manifest in found]
    return sorted(items, key=lambda item: rank(item.key))


def _item(manifest: Manifest, *, project: str, members_of: ObjectSet | None) -> Item:
    body = manifest.body
    metadata = dict(body["metadata"])
    try:
        key = key_of(find_kind(body["kind"]), metadata["name"], project=metadata.get("namespace") or project)
    except Invalid as error:
        raise Invalid(f"{manifest.at('kind')}: {error.message}") from error
    metadata.pop("namespace", None)
    if key.namespace:
        metadata["namespace"] = key.namespace
    body = {**body, "metadata": metadata}
    if members_of is not None:
        members_of.require(key, place=manifest.place)
        body = members_of.marked(body)
    return Item(manifest, key, body)


async def looked_at(client: Client, items: Sequence[Item]) -> list[Item]:
    """With what the server has of each, in the version of the file."""
    places = asyncio.Semaphore(_AT_ONCE)

    async def look(item: Item) -> Item:
        async with places:
            try:
                found = await client.get(item.key, version=str(item.body.get("apiVersion") or ""))
            except NotFound:
                return item
            now = orjson.loads(found.body)
            return Item(item.manifest, item.key, keeping(item.body, now), now)

    return list(await asyncio.gather(*map(look, items)))


async def apply(client: Client, items: Sequence[Item], *, wish: Wish, tell: Tell) -> Report:
    """Apply each, then prune. Raises Invalid before anything is written where an object is another set's."""
    looked = await looked_at(client, items)
    if not wish.force:
        _require_own(looked, wish.members_of)
    report = Report()
    coming = {item.key.name for item in looked if item.key.kind == "Project" and item.now is None}
    lost = False
    for item in looked:
        one = Became(item.key, "not tried", item.manifest.place)
        if not lost:
            one, lost = await _applied(client, item, wish=wish, coming=coming)
        report.done.append(one)
        tell(one)
    if wish.prune and not report.keys("refused", "not tried"):
        for key, uid in (await surplus(client, items, wish=wish)).items():
            report.done.append(await _pruned(client, key, uid=uid, dry_run=wish.dry_run))
            tell(report.done[-1])
    return report


async def surplus(client: Client, items: Sequence[Item], *, wish: Wish) -> dict[Key, str]:
    """What belongs to the set and is in the files no more, with its uid, in the order in which it may go."""
    if wish.members_of is None:
        return {}
    found = await members(client, wish.members_of)
    gone = found.keys() - {item.key for item in items}
    return {key: found[key] for key in in_order(sorted(gone))[::-1]}


async def _pruned(client: Client, key: Key, *, uid: str, dry_run: bool) -> Became:
    try:
        await client.delete(key, uid=uid, dry_run=dry_run)
    except (NotFound, Conflict):
        pass  # it went with its owner, or somebody was faster; what has its name now is none of the set's
    except BessemerError as error:
        return Became(key, "refused", "", (Cause(f"{key.kind.lower()}/{key.name}", f"not pruned: {error.message}"),))
    return Became(key, "pruned")


def _require_own(items: Sequence[Item], own: ObjectSet | None) -> None:
    if own is None:
        return  # it stays in the set that it is in
    causes = [
        Cause(item.manifest.place, f"{item.key} belongs to another set, {other}")
        for item in items
        if item.now is not None and (other := other_set(item.now, own))
    ]
    if causes:
        raise Invalid(f"nothing was applied: another set has what {own} would take; --force-conflicts takes it", causes)


async def _applied(client: Client, item: Item, *, wish: Wish, coming: set[str]) -> tuple[Became, bool]:
    """What became of it, and whether the server is lost to us."""
    key, place = item.key, item.manifest.place
    if wish.dry_run and key.namespace in coming:
        return Became(key, "created", place), False  # the server cannot judge what lies in a project that is not there
    try:
        stored = await sent(client, item, wish=wish)
    except Unavailable as error:
        return Became(key, "refused", place, (Cause(place, error.message),)), True
    except BessemerError as error:
        return Became(key, "refused", place, refusal(item, error)), False
    return Became(key, _word(item, stored), place), False


async def sent(client: Client, item: Item, *, wish: Wish) -> Stored:
    """Apply one object; a body that says no version is of the newest."""
    return await client.apply(versioned(item.body), manager=wish.manager, force=wish.force, dry_run=wish.dry_run)


def versioned(body: dict[str, Any]) -> dict[str, Any]:
    """A body that says its version, as the server asks of all."""
    return body if body.get("apiVersion") else {"apiVersion": find_kind(body["kind"]).api_version, **body}


def refusal(item: Item, error: BessemerError) -> tuple[Cause, ...]:
    """Why, each with the line of its field."""
    if isinstance(error, Invalid) and error.causes:
        return tuple(Cause(item.manifest.at(c.field), f"{c.field}: {c.message}") for c in error.causes)
    words = error.message
    if unknown := _UNKNOWN.findall(words):
        return tuple(Cause(item.manifest.at(path), f'unknown field "{path}"') for path in unknown)
    if isinstance(error, Conflict):
        words += " (--force-conflicts takes them)"
    return (Cause(item.manifest.place, f"{item.name}: {words}"),)


def _word(item: Item, stored: Stored) -> Word:
    """What they say is compared, for a dry run's answer has the revision that stands."""
    if item.now is None:
        return "created"
    return "unchanged" if _said(orjson.loads(stored.body)) == _said(item.now) else "configured"


def _said(body: dict[str, Any]) -> dict[str, Any]:
    return {part: value for part, value in without(body, *_MOVED).items() if part != "status"}
