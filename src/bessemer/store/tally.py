"""What a check of the store looked at and found, and what is known of all objects once their bodies were read.

`Survey` reads each body once and keeps of it what the checks ask for; a body that cannot be read is told by the check
that is about bodies, and counts for no other. It judges nothing.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from pydantic import ValidationError
from sqlalchemy import select

from bessemer.core.quota import amount_in, amounts_of, begun, devices_of
from bessemer.core.resource import Key, tenant_of
from bessemer.core.values import ClaimSpec
from bessemer.store.documents import Document
from bessemer.store.forward import Forwarding
from bessemer.store.kinds import API_KEY, CLAIM, EVENT, HOST, PROJECT, TENANT, StoreKind
from bessemer.store.schema import devices, objects
from bessemer.store.scopes import scopes
from bessemer.store.snapshot import Snapshot

NAMED_MAX = 20
"""So many of what is wrong are named, the others counted."""

_COLUMNS = ("kind", "namespace", "name", "uid", "host", "generation", "revision", "labels", "body")
OBJECTS = select(*(objects.c[name] for name in _COLUMNS)).order_by(objects.c.kind, objects.c.namespace, objects.c.name)
_HELD = select(devices.c.host, devices.c.device, devices.c.model)


@dataclass(slots=True)
class Tally:
    """One check: its name, what holds where it finds nothing, how many rows it looked at, and what is wrong."""

    check: str
    holds: str
    rows: int = 0
    count: int = 0
    wrong: list[str] = field(default_factory=list)

    def fault(self, words: str) -> None:
        """One row, named in words that tell no secret."""
        self.count += 1
        if len(self.wrong) < NAMED_MAX:
            self.wrong.append(words)

    def require(self, good: bool, words: str) -> None:
        """One row was looked at."""
        self.rows += 1
        if not good:
            self.fault(words)

    @property
    def ok(self) -> bool:
        return self.count == 0

    def document(self) -> dict[str, Any]:
        """For a program: ``wrong`` holds the first of ``faults``."""
        said = {"check": self.check, "holds": self.holds, "rows": self.rows, "ok": self.ok}
        return {**said, "faults": self.count, "wrong": self.wrong}


@dataclass(frozen=True, slots=True)
class Known:
    """An object, without its body. ``digest`` is of the body as it stands."""

    key: Key
    uid: str
    revision: int
    digest: bytes
    deleting: bool
    owners: tuple[tuple[str, str], ...]
    """(uid, name) of each."""
    blocks: frozenset[str]
    """The uids of those that wait for it."""
    waits: bool
    """Whether it is marked, and waits for what it owns."""


@dataclass(slots=True)
class Survey:
    """All objects, by key and by uid, and what their bodies say that other tables repeat."""

    kinds: Mapping[str, StoreKind]
    objects: dict[Key, Known] = field(default_factory=dict)
    by_uid: dict[str, Known] = field(default_factory=dict)
    labels: set[tuple[str, ...]] = field(default_factory=set)
    about: set[tuple[str, str]] = field(default_factory=set)
    """(uid of what it is about, uid of the Event)."""
    claims: dict[str, tuple[Key, ClaimSpec]] = field(default_factory=dict)
    """By uid."""
    bounded: dict[Key, Document] = field(default_factory=dict)
    """Tenants and Projects."""
    keys: dict[Key, Document] = field(default_factory=dict)
    """Keys with bounds of their own."""
    hosts: set[str] = field(default_factory=set)
    reports: dict[str, Document] = field(default_factory=dict)
    """What each Host's agent says of its nodes and how many functions its devices have, where it has said so."""
    used: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(scope, meter) → what stands."""
    _forward: Forwarding = field(init=False)

    def __post_init__(self) -> None:
        self._forward = Forwarding(self.kinds)

    def note(self, known: Known, document: Document) -> None:
        """An object whose body could be read. Raises ValueError where a Claim's spec cannot be."""
        document = self._forward.document(document)
        key, metadata = known.key, document["metadata"]
        self.objects[key] = self.by_uid[known.uid] = known
        for label, value in (metadata.get("labels") or {}).items():
            self.labels.add((key.kind, label, value, key.namespace, key.name))
        if key.kind == EVENT:
            self.about.add((str(document.get("involvedObject", {}).get("uid", "")), known.uid))
        elif key.kind in (TENANT, PROJECT):
            self.bounded[key] = document
        elif key.kind == API_KEY:
            if document["spec"].get("limits") or document["spec"].get("budget"):
                self.keys[key] = document
        elif key.kind == HOST:
            self.hosts.add(key.name)
            self.reports[key.name] = _kept(document.get("status", {}).get("report") or {})
        elif key.kind == CLAIM:
            try:
                self.claims[known.uid] = (key, ClaimSpec.model_validate(document["spec"]))
            except ValidationError as error:
                raise ValueError("the spec is no Claim's") from error
        facts = self.kinds.get(key.kind)
        if facts is not None and facts.meter:
            tenant = tenant_of(key.name if key.kind == PROJECT else key.namespace)
            self._use(key.namespace, tenant=tenant, amounts={facts.meter: amount_in(document, facts.counts)})

    def take(self, snapshot: Snapshot) -> None:
        """Count what Claims take, once all of them are known."""
        models = {(host, device): model for host, device, model in snapshot.rows(_HELD)}
        for key, spec in self.claims.values():
            held = Counter(models.get((spec.host, device), "?") for device in spec.devices)
            self._use(key.namespace, tenant=spec.tenant, amounts=amounts_of(spec, held))
        for (scope, meter), milli in tuple(self.used.items()):
            if devices_of(meter):
                self.used[scope, devices_of(meter)] += begun(milli)

    def _use(self, project: str, *, tenant: str, amounts: Mapping[str, int]) -> None:
        for scope in scopes(project, tenant):
            for meter, amount in amounts.items():
                self.used[scope, meter] += amount

    def living(self, kind: str, name: str) -> bool:
        """Whether there is one of that name, in no project."""
        return Key(kind, "", name) in self.objects


def _kept(report: Document) -> Document:
    """What the checks ask of a report, which is long and there for each Host."""
    devices_ = [{name: one[name] for name in ("id", "functions") if name in one} for one in report.get("devices", ())]
    return {"numa": report.get("numa", ()), "devices": devices_} if report else {}


def digest(body: bytes) -> bytes:
    """By which two bodies are told apart."""
    return hashlib.blake2b(body, digest_size=16).digest()


def parsed(body: bytes) -> Document | None:
    """The body, or None for what is none."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    good = isinstance(document, dict) and isinstance(document.get("metadata"), dict)
    return document if good else None


def differences(said: set[tuple[str, ...]], kept: Iterator[tuple[Any, ...]], *, tally: Tally) -> set[tuple[str, ...]]:
    """Tell rows of ``kept`` that nothing ``said``; answers what was said and is not kept."""
    left = set(said)
    for row in kept:
        tally.require(row in said, f"{' '.join(filter(None, row))}: no body says so")
        left.discard(row)
    return left
