"""What the gateway knows, in memory: who holds a key, which endpoint a name means, where its replicas are.

Fed by `follow` from committed changes, read by each request. One event loop owns it, so there are no locks. A replica
whose address may not be dialled (`doors`) is left out, and the log says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any

import orjson
import structlog

from bessemer.core.clock import epoch
from bessemer.core.money import OUTSIDE, said_of
from bessemer.core.notices import Notice
from bessemer.core.resource import Change
from bessemer.core.tokens import token_digest
from bessemer.gateway.doors import FolderOf, nowhere, refusal
from bessemer.gateway.logbook import Logbook
from bessemer.gateway.logplace import LogPlace
from bessemer.gateway.onward import carried
from bessemer.gateway.outer import Services
from bessemer.gateway.route import Pool, Replica
from bessemer.gateway.splitting import Split, split_of
from bessemer.gateway.waiting import Tally

CONTEXT_TOKENS = 2048
"""Of a slot, where the Endpoint does not say: the default of its kind."""

REVISION = "bessemer.dev/revision"
"""The label of a Claim that says of which revision of its Endpoint it is."""

MODEL_OF, TEMPLATE = "bessemer.dev/model-of", "bessemer.dev/template"
"""Of a Claim: the label that says which project's its model is, where it is one's, and the annotation of what it was
made of."""

_log = structlog.get_logger("gateway.tables")


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One ApiKey. ``endpoints`` empty is all of the project; ``expires_at`` None is never; ``networks`` empty is
    anywhere. ``owner`` is the member whose key it is, or "". ``bounds`` are its own limits and budget, as it says them;
    nothing where it has none. ``priority`` is the class in which it waits."""

    uid: str
    name: str
    project: str
    endpoints: frozenset[str]
    expires_at: float | None
    owner: str = ""
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    bounds: bytes = b""
    priority: str = "default"

    def valid(self, now: float) -> bool:
        return self.expires_at is None or now < self.expires_at

    def may_use(self, endpoint: str, adapter: str = "") -> bool:
        """Whose key it is of an endpoint may use its adapters; one of ``ENDPOINT:ADAPTER`` opens that adapter alone."""
        if not self.endpoints or endpoint in self.endpoints:
            return True
        return bool(adapter) and f"{endpoint}:{adapter}" in self.endpoints

    def reachable(self, peer: str) -> bool:
        """Whether it is taken from who connects from that address; one that is none is in no network."""
        if not self.networks:
            return True
        try:
            address = ip_address(peer.partition("%")[0])
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self.networks)


@dataclass(slots=True)
class EndpointEntry:
    """An Endpoint and its replicas. ``adapters`` are those that it says it has; ``split`` says which of other endpoints
    answers for it, ``fallbacks`` who does where it has nobody (`chains`). ``answers`` are those that may answer of its
    own, as records say them (`core.money.said_of`): what is held for a request goes by the dearest."""

    uid: str
    project: str
    name: str
    model: str
    created: int
    context_tokens: int = CONTEXT_TOKENS
    pool: Pool = field(default_factory=Pool)
    adapters: frozenset[str] = frozenset()
    split: Split | None = None
    fallbacks: tuple[str, ...] = ()
    embeds: bool = False
    """It writes nothing: it only makes texts into vectors."""
    models: Mapping[str, str] = field(default_factory=dict)
    """By revision: while there are two of them, each replica has that of its own."""
    answers: tuple[str, ...] = ()
    hosts: frozenset[str] = frozenset()
    """From where what a request names by its address is fetched for it."""
    logging: LogPlace | None = None
    """Where what it is asked and answers goes, for a tenant who wants that."""

    @property
    def replicas(self) -> dict[str, Replica]:
        return self.pool.replicas


def _bounds(spec: Mapping[str, Any]) -> bytes:
    said = {name: spec[name] for name in ("limits", "budget") if spec.get(name)}
    return orjson.dumps(said, option=orjson.OPT_SORT_KEYS) if said else b""


def _fit(entry: EndpointEntry, context_tokens: int) -> None:
    """What of it depends on its replicas, of whatever revision each is: it is held for a request what any may come
    to."""
    replicas = entry.replicas.values()
    for replica in replicas:
        if replica.outer is None:
            model = replica.made_of or entry.models.get(replica.revision) or entry.model
            replica.model = said_of(model, project=replica.owner) if model else ""
    entry.context_tokens = max(context_tokens, *(replica.context_tokens for replica in replicas), 0)
    # The next may be of what it says now; one whose first is yet to come may find a project's of that name.
    owners = dict.fromkeys(replica.owner for replica in replicas) or ("", entry.project)
    coming = [said_of(entry.model, project=owner) for owner in owners] if entry.model else []
    if entry.model.startswith(OUTSIDE):
        coming = [entry.model]
    entry.answers = tuple(dict.fromkeys([*(one.model for one in replicas if one.model), *coming]))
    entry.pool.changed()


def _made_of(metadata: Mapping[str, Any]) -> str:
    """The model that a Claim was taken for, where it says so: not what its Endpoint says by now."""
    said = (metadata.get("annotations") or {}).get(TEMPLATE)
    return str(orjson.loads(said).get("model", "")) if said else ""


def _adapt(replica: Replica, *, project: str, intent: Mapping[str, Any], detail: Mapping[str, Any]) -> None:
    """Which adapters it has, by what its host says of those that it was told to have, and how they are asked for."""
    names = [one["name"] for one in intent.get("adapters") or ()]
    replica.adapters = frozenset(detail.get("adapters") or ()).intersection(names)
    replica.carries = carried(intent.get("engine", "llamacpp"), project=project, adapters=names)


class Tables:
    """The tables. Each ``apply`` takes one change of its kind; ``forget`` clears what a new list no longer names."""

    def __init__(
        self, folder_of: FolderOf = nowhere, services: Services | None = None, *, logbook: Logbook | None = None
    ) -> None:
        self._folder_of = folder_of
        self._services = services
        self._logbook = logbook
        self._refused: dict[str, str] = {}
        self.keys: dict[str, KeyEntry] = {}
        self.endpoints: dict[tuple[str, str], EndpointEntry] = {}
        self._digests: dict[str, str] = {}
        self._claims: dict[str, tuple[str, str]] = {}
        self._homeless: dict[tuple[str, str], Pool] = {}
        self.tally = Tally()
        self.arrived: Callable[[Pool], None] = lambda _: None
        """Hears of each pool that has a replica more."""
        self.left: Callable[[Pool], None] = lambda _: None
        """Hears of each pool whose endpoint is gone."""

    def find_key(self, token: str) -> KeyEntry | None:
        """The key of a bearer, valid or not."""
        return self.keys.get(token_digest(token))

    def stands(self, key: KeyEntry, now: float) -> bool:
        """Whether a key that was found is one still; of a person it is the api that knows (`people`)."""
        known = self.keys.get(self._digests.get(key.uid, ""))
        return known is not None and known.valid(now)

    def apply(self, change: Change) -> None:
        """Take one change of an ApiKey, an Endpoint or a Claim."""
        body: Mapping[str, Any] = orjson.loads(change.body)
        gone = change.type == "DELETED"
        match change.key.kind:
            case "ApiKey":
                self._apply_key(change.uid, body, gone=gone)
            case "Endpoint":
                self._apply_endpoint(change.uid, body, gone=gone)
            case "Claim":
                self._apply_claim(change.uid, body, gone=gone)

    def forget(self, kind: str, known: frozenset[str]) -> None:
        """Drop what a complete list did not name: its deletion happened while nobody watched."""
        if kind == "ApiKey":
            for uid in self._digests.keys() - known:
                self.keys.pop(self._digests.pop(uid), None)
        elif kind == "Endpoint":
            for place, entry in list(self.endpoints.items()):
                if entry.uid not in known:
                    self._leave(entry.uid, entry.pool)
                    del self.endpoints[place]
        elif kind == "Claim":
            for uid in self._claims.keys() - known:
                self._drop_claim(uid)
            for uid in self._refused.keys() - known:
                del self._refused[uid]

    def _apply_key(self, uid: str, body: Mapping[str, Any], *, gone: bool) -> None:
        self.keys.pop(self._digests.pop(uid, ""), None)
        spec, metadata = body.get("spec", {}), body["metadata"]
        digest = body.get("status", {}).get("digest", "")
        if gone or spec.get("disabled") or not digest or metadata.get("deletionTimestamp"):
            return
        expires = spec.get("expiresAt")
        entry = KeyEntry(
            uid=uid,
            name=metadata["name"],
            project=metadata["namespace"],
            endpoints=frozenset(spec.get("endpoints", ())),
            expires_at=epoch(expires) if expires else None,
            owner=spec.get("owner") or "",
            networks=tuple(ip_network(network) for network in spec.get("networks") or ()),
            bounds=_bounds(spec),
            priority=spec.get("priority", "default"),
        )
        self.keys[digest] = entry
        self._digests[uid] = digest

    def _apply_endpoint(self, uid: str, body: Mapping[str, Any], *, gone: bool) -> None:
        metadata = body["metadata"]
        place = (metadata["namespace"], metadata["name"])
        if gone or metadata.get("deletionTimestamp"):
            if (old := self.endpoints.get(place)) is not None and old.uid == uid:
                del self.endpoints[place]
                self._leave(uid, old.pool)
                if old.replicas:
                    self._homeless[place] = old.pool
            return
        known = self.endpoints.get(place)
        if known is not None and known.uid != uid:  # it went while nobody watched
            self._abandon(known.uid, known.pool)
        homeless = self._homeless.pop(place, Pool(tally=self.tally))
        pool = known.pool if known is not None else homeless
        created = int(epoch(metadata["creationTimestamp"])) if metadata.get("creationTimestamp") else 0
        spec = body["spec"]
        # Of a service elsewhere nobody knows how many it answers at once.
        said = spec.get("external") or spec
        context = said.get("contextTokens", CONTEXT_TOKENS)
        pool.each = said.get("slots", 0)
        pool.gauge.follow(spec.get("scale"))
        revisions = body.get("status", {}).get("revisions", ())
        entry = self.endpoints[place] = EndpointEntry(
            uid,
            *place,
            OUTSIDE + said["model"] if spec.get("external") else spec.get("model", ""),
            created,
            context,
            pool,
            adapters=frozenset(spec.get("adapters", ())),
            split=split_of(spec.get("backends", ()), known.split if known is not None else None),
            fallbacks=tuple(spec.get("fallbacks", ())),
            embeds=spec.get("task") == "embed",
            models={one["revision"]: one["template"]["model"] for one in revisions},
            hosts=frozenset((spec.get("addresses") or {}).get("hosts", ())),
            logging=self._logbook.follow(uid, body) if self._logbook is not None else None,
        )
        if self._services is not None:
            self._services.follow(uid, body, pool=pool)
        _fit(entry, context)

    def _leave(self, uid: str, pool: Pool) -> None:
        """An endpoint is gone: whoever waits for it is told."""
        self._abandon(uid, pool)
        self.left(pool)

    def _abandon(self, uid: str, pool: Pool) -> None:
        """Whoever answered for it elsewhere is asked nothing more, and nothing more is logged of it."""
        if self._services is not None:
            self._services.forget(uid, pool)
        if self._logbook is not None:
            self._logbook.forget(uid)

    def _apply_claim(self, uid: str, body: Mapping[str, Any], *, gone: bool) -> None:
        workload, status = body["spec"]["workload"], body.get("status", {})
        if workload["kind"] != "Endpoint":
            return
        serving = status.get("phase") == "Running" and status.get("address")
        if gone or body["metadata"].get("deletionTimestamp") or not serving:
            self._refused.pop(uid, None)
            self._drop_claim(uid)
            return
        host, address = body["spec"]["host"], status["address"]
        folder = self._folder_of(host)
        if not self._admits(uid, address, folder=folder):
            self._drop_claim(uid)
            return
        place = (body["metadata"]["namespace"], workload["name"])
        entry = self.endpoints.get(place)
        home = entry.pool if entry is not None else self._homeless.setdefault(place, Pool(tally=self.tally))
        known = home.replicas.get(uid)
        if known is None or known.address != address:
            known = Replica(uid, host, address, folder)
            home.add(known)
        intent = body["spec"].get("intent") or {}
        known.leaving = Notice.read(body["metadata"].get("annotations") or {}) is not None
        labels = body["metadata"].get("labels") or {}
        known.revision, known.owner = labels.get(REVISION, ""), labels.get(MODEL_OF, "")
        known.made_of = _made_of(body["metadata"])
        known.slots, known.context_tokens = intent.get("slots", 0), intent.get("contextTokens", 0)
        _adapt(known, project=place[0], intent=intent, detail=status.get("detail") or {})
        if entry is None:
            home.changed()
        else:
            _fit(entry, entry.context_tokens)
        self._claims[uid] = place
        self.arrived(home)

    def _admits(self, uid: str, address: str, *, folder: Path | None) -> bool:
        """Whether the address may be dialled; one that may not is told of once."""
        reason = refusal(address, folder)
        if not reason:
            self._refused.pop(uid, None)
        elif self._refused.get(uid) != address:
            self._refused[uid] = address
            _log.warning("replica refused", object_uid=uid, address=address[:200], reason=reason)
        return not reason

    def _drop_claim(self, uid: str) -> None:
        place = self._claims.pop(uid, None)
        if place is None:
            return
        if (entry := self.endpoints.get(place)) is not None:
            entry.pool.drop(uid)
        elif (homeless := self._homeless.get(place)) is not None:
            homeless.drop(uid)
            if not homeless.replicas:
                del self._homeless[place]
