"""The store beside a plain model of it: random writes, and after each the same objects, errors, counts and views.

The model is `plain`. A watcher without a selector and one with a selector follow along; what they were told must add up
to what is there, and whoever watches from an earlier revision is told each change since then.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bessemer.core.clock import FakeClock, settle
from bessemer.core.errors import (
    AlreadyExists,
    BessemerError,
    Conflict,
    Forbidden,
    NotFound,
    QuotaExceeded,
)
from bessemer.core.ports import CONTROLLER, Bookmark, Policy, Scope
from bessemer.core.quota import Quota
from bessemer.core.resource import Change, Key
from bessemer.core.values import BILLING
from bessemer.store import open_store
from tests.store.conftest import KEY, KINDS
from tests.store.invariants import check
from tests.store.make import ALICE, PROJECT, agent, body, claim, inventory, read
from tests.store.plain import THREADS, Event, Model, Name, Thing
from tests.store.server import Server, empty

T = TypeVar("T")
PLAIN = ("Thing", "Guarded", "Instance")
NAMED = ("a", "b")
PLACES = [(kind, name) for kind in PLAIN for name in NAMED]
CLAIMS = [("Claim", f"instance-{name}-0") for name in NAMED]
NAMES = st.sampled_from(NAMED)
LABELS = st.sampled_from([{}, {"x": "1"}, {"x": "2"}, {"x": "1", "y": "1"}])
FEW = st.sampled_from([False, False, False, False, True])
MOST = FEW.map(lambda rare: not rare)
AT = st.tuples(MOST, st.integers(0, 5))
"""Which of those that are there, or few times of those that are not: by chance most would be asked in vain."""

HOSTS = st.sampled_from(["h1", "h1", "h2"])
GPUS = st.sampled_from([set(), {"gpu-0"}, {"gpu-1"}, {"gpu-0", "gpu-2"}])
SELECTED = {"x": "1"}
POLICIES: Any = st.sampled_from([None, "Background", "Foreground", "Foreground", "Orphan"])
FIELDS = st.sampled_from(["f", "g"])
SECRETS = st.sampled_from([b"", b"one", b"two" * 1000])
SEALED = st.none() | st.none() | st.dictionaries(FIELDS, SECRETS)
OWNER = st.tuples(st.integers(0, 5), st.booleans())
OWNERS, OWNED = st.lists(OWNER, max_size=2), st.lists(OWNER, min_size=1, max_size=2)


class StoreMachine(RuleBasedStateMachine):
    """Each rule does one thing to both, and says which error it expects."""

    def __init__(self) -> None:
        super().__init__()
        # Dependents go in the order of their uids: these are the same at each run, where the examples are.
        dice, self.patch = random.Random(0 if settings.default.derandomize else None), pytest.MonkeyPatch()
        self.patch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=dice.getrandbits(128), version=4))
        self.folder = Path(tempfile.mkdtemp(prefix="bessemer-model-"))
        self.place = self.choose()
        self.runner = asyncio.Runner()
        self.clock = FakeClock()
        self.store = open_store(self.place, clock=self.clock, kinds=KINDS, seal_key=KEY)
        self.model = Model()
        self.views: dict[str, dict[str, Change]] = {"all": {}, "some": {}}
        self.ever = set[tuple[str, str]]()
        self.tidied = 0
        self.followers: list[asyncio.Task[None]] = []
        self.run(self.begin(None))

    def choose(self) -> str:
        """Where this one is kept: nothing is there yet."""
        return str(self.folder / "store.db")

    async def begin(self, since: int | None) -> None:
        """Watch from there on."""
        scopes = {"all": Scope(kind="Thing"), "some": Scope(kind="Thing", labels=SELECTED)}
        self.followers = [
            asyncio.ensure_future(follow(self.store.objects.watch(scope, since=since), self.views[name]))
            for name, scope in scopes.items()
        ]
        await settle()

    async def end(self) -> None:
        """No more watching."""
        for follower in self.followers:
            follower.cancel()
        await asyncio.gather(*self.followers, return_exceptions=True)
        self.store.close()

    def teardown(self) -> None:
        self.patch.undo()
        self.run(self.end())
        self.runner.close()
        check(self.place)
        shutil.rmtree(self.folder)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    def one_of(self, names: list[Name], at: tuple[bool, int]) -> Name:
        there, number = at
        if there and names == PLACES and not self.model.things.keys() & {*PLACES}:
            self.make(*PLACES[number], owners=[])
        found = [name for name in names if (name in self.model.things) == there] or names
        return found[number % len(found)]

    def refused(self, error: type[BessemerError] | None, coroutine: Coroutine[Any, Any, T]) -> T | None:
        """Run it; it must raise exactly that, or nothing where that is None."""
        value, raised = None, None
        try:
            value = self.run(coroutine)
        except BessemerError as caught:
            raised = caught
        assert (type(raised) if raised else None) is error
        return value

    @initialize(family=st.permutations(PLACES), owners=st.lists(OWNED, min_size=3, max_size=6))
    def begin_with_a_family(self, family: list[Name], owners: list[list[tuple[int, bool]]]) -> None:
        """Who owns whom matters more than how they came: hypothesis tries lives without any creation, too."""
        for (kind, name), theirs in zip(family, owners, strict=False):
            self.make(kind, name, owners=theirs)

    # --- objects ------------------------------------------------------------------------------------------------

    @rule(at=AT, labels=LABELS, owners=OWNERS, stale=FEW, sealed=SEALED)
    def create(
        self,
        at: tuple[bool, int],
        labels: dict[str, str],
        owners: list[tuple[int, bool]],
        stale: bool,
        sealed: dict[str, bytes] | None,
    ) -> None:
        kind, name = self.one_of(PLACES, (not at[0], at[1]))
        self.make(kind, name, labels=labels, owners=owners, stale=stale, sealed=sealed)

    def make(
        self,
        kind: str,
        name: str,
        *,
        owners: list[tuple[int, bool]],
        labels: dict[str, str] | None = None,
        stale: bool = False,
        sealed: dict[str, bytes] | None = None,
    ) -> None:
        model, labels = self.model, labels or {}
        there = sorted(thing.uid for at, thing in model.things.items() if at in PLACES)
        found = {there[number % len(there)]: blocks for number, blocks in owners if there}
        found |= {"gone": True} if stale and owners else {}
        error: type[BessemerError] | None = None
        if (kind, name) in model.things:
            error = AlreadyExists
        elif "gone" in found:
            error = Conflict
        elif kind == "Instance" and model.instances_bound is not None and model.counted() >= model.instances_bound:
            error = QuotaExceeded
        said = body(kind, name, labels=labels, ownerReferences=references(found))
        stored = self.refused(error, self.store.objects.create(said, ALICE, sealed=sealed))
        if stored is not None:
            model.make((kind, name), Thing(stored.uid, {"size": 1}, labels, owners=found, finalizer=kind != "Thing"))
            model.sealed |= {(stored.uid, field): secret for field, secret in (sealed or {}).items()}

    @rule(at=AT, size=st.integers(1, 3), labels=LABELS, let_go=st.booleans(), stale=FEW, sealed=SEALED)
    def replace(
        self,
        at: tuple[bool, int],
        size: int,
        labels: dict[str, str],
        let_go: bool,
        stale: bool,
        sealed: dict[str, bytes] | None,
    ) -> None:
        kind, name = self.one_of(PLACES, at)
        thing = self.model.things.get((kind, name))
        keep = thing is not None and thing.finalizer and not let_go
        said = body(kind, name, spec={"size": size}, labels=labels)
        said["metadata"]["finalizers"] = [f"bessemer.dev/{kind.lower()}"] if keep else []
        if thing is not None:
            said["metadata"]["finalizers"] += [thing.waits] if thing.waits else []
            said["metadata"]["ownerReferences"] = references(thing.owners)
            said["metadata"]["resourceVersion"] = str(thing.revision - 1 if stale else thing.revision)
        error = NotFound if thing is None else Conflict if stale else None
        self.refused(error, self.store.objects.replace(said, CONTROLLER, sealed=sealed))
        if thing is None or stale:
            return
        if sealed is not None:
            kept = {at: secret for at, secret in self.model.sealed.items() if at[0] != thing.uid}
            self.model.sealed = kept | {(thing.uid, field): secret for field, secret in sealed.items()}
        if (thing.spec, thing.labels, thing.finalizer) == ({"size": size}, labels, keep):
            return
        thing.generation += thing.spec != {"size": size}
        thing.spec, thing.labels, thing.finalizer = {"size": size}, labels, keep
        if thing.deleting and not thing.finalizers:
            self.model.drop((kind, name))
        else:
            self.model.change((kind, name))

    @rule(at=AT, phase=st.sampled_from(["Ready", "Waiting"]))
    def observe(self, at: tuple[bool, int], phase: str) -> None:
        kind, name = self.one_of(PLACES, at)
        thing = self.model.things.get((kind, name))
        said = body(kind, name) | {"status": {"phase": phase}}
        self.refused(None if thing else NotFound, self.store.objects.replace(said, CONTROLLER, part="status"))
        if thing is not None and thing.phase != phase:
            thing.phase = phase
            self.model.change((kind, name))

    @rule(at=AT, policy=POLICIES)
    def delete(self, at: tuple[bool, int], policy: Policy | None) -> None:
        kind, name = self.one_of(PLACES, at)
        there = (kind, name) in self.model.things
        asked = self.store.objects.delete(Key(kind, PROJECT, name), ALICE, policy=policy)
        self.refused(None if there else NotFound, asked)
        if there:
            self.model.delete((kind, name), policy)

    @rule()
    def tidy(self) -> None:
        self.tidied = self.model.revision  # what is older may be forgotten
        self.run(self.store.tidy())
        self.model.tidy()

    # --- sealed values ------------------------------------------------------------------------------------------

    @rule(at=AT, field=FIELDS, secret=SECRETS)
    def seal(self, at: tuple[bool, int], field: str, secret: bytes) -> None:
        thing = self.model.things.get(self.one_of(PLACES, at))
        uid = thing.uid if thing else "gone"
        self.refused(None if thing else NotFound, self.store.sealed.put(uid, field, secret))
        if thing is not None:
            self.model.sealed[uid, field] = secret
            self.ever.add((uid, field))

    @rule(values=st.booleans())
    def rotate(self, values: bool) -> None:
        """What is sealed stays, whatever it is sealed with."""
        self.run(self.store.sealed.rotate(values=values))

    # --- capacity -----------------------------------------------------------------------------------------------

    @initialize()
    def begin_with_a_host(self) -> None:
        self.declare(host="h1", gpus=2)

    @rule(host=HOSTS, gpus=st.integers(0, 3))
    def declare(self, host: str, gpus: int) -> None:
        self.run(self.store.capacity.declare(host, inventory(gpus, threads=THREADS)))
        before = self.model.gpus.get(host, {})
        found = {f"gpu-{i}": before.get(f"gpu-{i}", "") for i in range(gpus)}
        self.model.found[host] = set(found)
        self.model.gpus[host] = found | {gpu: uid for gpu, uid in before.items() if uid}

    @rule(wanted=st.lists(st.tuples(NAMES, HOSTS, GPUS), min_size=1, max_size=2, unique_by=lambda one: one[0]))
    def take(self, wanted: list[tuple[str, str, set[str]]]) -> None:
        model = self.model
        claims = [claim(name, host=host, devices=tuple(sorted(gpus))) for name, host, gpus in wanted]
        error = model.refusal(wanted)
        taken = self.refused(error, self.store.capacity.take(claims, CONTROLLER))
        for (name, host, gpus), stored in zip(wanted, taken or (), strict=taken is not None):
            key = ("Claim", f"instance-{name}-0")
            if key in model.things:
                assert stored.uid == model.things[key].uid
                continue
            model.make(key, Thing(stored.uid, read(stored)["spec"], {}, phase="Pending"))
            model.ledger[stored.uid] += 1
            for gpu in gpus:
                model.gpus[host][gpu] = stored.uid

    @rule(
        at=AT,
        phase=st.sampled_from(["Starting", "Running", "Lost", "Gone"]),
        mine=MOST,
        jump=st.sampled_from([0, 86400, -86400]),
    )
    def report(self, at: tuple[bool, int], phase: str, mine: bool, jump: int) -> None:
        at_claim = self.one_of(CLAIMS, at)
        thing = self.model.things.get(at_claim)
        self.clock.jump(jump)
        said = body(*at_claim) | {"status": {"phase": phase}}
        host = thing.spec["host"] if thing is not None and mine else "h9"
        error = NotFound if thing is None else None if mine else Forbidden
        self.refused(error, self.store.objects.replace(said, agent(host), part="status"))
        if thing is not None and mine and thing.phase != phase:
            self.model.ledger[thing.uid] += BILLING[thing.phase] != BILLING[phase]
            thing.phase = phase
            self.model.change(at_claim)

    @rule(at=AT, number=st.integers(0, 1))
    def amend(self, at: tuple[bool, int], number: int) -> None:
        at_claim = self.one_of(CLAIMS, at)
        thing = self.model.things.get(at_claim)
        key = Key("Claim", PROJECT, at_claim[1])
        self.refused(None if thing else NotFound, self.store.capacity.amend(key, {"n": number}, CONTROLLER))
        if thing is not None and thing.spec.get("intent", {}) != {"n": number} and not thing.deleting:
            thing.spec = {**thing.spec, "intent": {"n": number}}
            thing.generation += 1
            self.model.change(at_claim)

    @rule(at=AT)
    def retire(self, at: tuple[bool, int]) -> None:
        at_claim = self.one_of(CLAIMS, at)
        thing = self.model.things.get(at_claim)
        key = Key("Claim", PROJECT, at_claim[1])
        self.refused(None if thing else NotFound, self.store.capacity.retire(key, CONTROLLER))
        if thing is not None:
            self.model.mark(at_claim)

    @rule(at=AT, fenced=st.booleans())
    def release(self, at: tuple[bool, int], fenced: bool) -> None:
        at_claim = self.one_of(CLAIMS, at)
        thing = self.model.things.get(at_claim)
        key = Key("Claim", PROJECT, at_claim[1])
        stays = thing is not None and thing.phase != "Gone" and not fenced
        self.refused(Conflict if stays else None, self.store.capacity.release(key, CONTROLLER, fenced=fenced))
        if thing is None or stays:
            return
        self.model.drop(at_claim)
        self.model.ledger[thing.uid] += 1
        host = self.model.gpus[thing.spec["host"]]
        for gpu in [gpu for gpu, uid in host.items() if uid == thing.uid]:
            host[gpu] = ""
            if gpu not in self.model.found[thing.spec["host"]]:
                del host[gpu]

    @rule(instances=st.none() | st.integers(0, 3), gpus=st.none() | st.integers(0, 3))
    def set_quota(self, instances: int | None, gpus: int | None) -> None:
        quota = Quota(instances=instances, devices={} if gpus is None else {"*": gpus})
        self.run(self.store.capacity.set_quota("tenant/acme", quota))
        self.model.instances_bound, self.model.gpus_bound = instances, gpus

    @rule()
    def reopen(self) -> None:
        """Everything but the watches goes on after a restart; those begin anew."""
        self.run(self.end())
        self.store = open_store(self.place, clock=self.clock, kinds=KINDS, seal_key=KEY)
        self.run(self.begin(self.model.revision))

    # --- what must hold -----------------------------------------------------------------------------------------

    @invariant()
    def the_same_objects(self) -> None:
        found: dict[Name, Thing] = {}
        for kind in ("Thing", "Guarded", "Instance", "Claim"):
            for item in self.run(self.store.objects.list(Scope(kind=kind))).items:
                document = read(item)
                metadata = document["metadata"]
                found[kind, item.key.name] = Thing(
                    item.uid,
                    document["spec"],
                    metadata.get("labels", {}),
                    item.revision,
                    {one["uid"]: bool(one.get("blockOwnerDeletion")) for one in metadata.get("ownerReferences", ())},
                    finalizer=any("/" in finalizer for finalizer in metadata.get("finalizers", ())),
                    waits="".join(finalizer for finalizer in metadata.get("finalizers", ()) if "/" not in finalizer),
                    deleting="deletionTimestamp" in metadata,
                    generation=item.generation,
                    phase=document.get("status", {}).get("phase", ""),
                )
        assert found == self.model.things
        assert self.store.revision == self.model.revision

    @invariant()
    def the_same_account(self) -> None:
        rows = self.run(self.store.ledger.entries())
        assert Counter(row.claim_uid for row in rows) == self.model.ledger
        used = {use.meter: use.used for use in self.run(self.store.capacity.use("tenant/acme"))}
        assert used.get("instances", 0) == self.model.counted()
        assert used.get("claims", 0) == len(self.model.claims())
        rows_ = self.run(self.store.capacity.devices())
        assert {(row.host, row.device): row.claim for row in rows_} == {
            (host, gpu): uid for host, gpus in self.model.gpus.items() for gpu, uid in gpus.items()
        }

    @invariant()
    def the_same_secrets(self) -> None:
        self.ever |= self.model.sealed.keys()
        for uid, field in self.ever:
            assert self.run(self.store.sealed.get(uid, field)) == self.model.sealed.get((uid, field))

    @rule(kind=st.sampled_from(PLAIN), back=st.integers(0, 40))
    def watch_from(self, kind: str, back: int) -> None:
        """Each change of a kind since some revision, in order."""
        since = max(self.model.revision - back, self.tidied)
        expected = [event for event in self.model.log[since:] if event.kind == kind]
        told = self.run(first(self.store.objects.watch(Scope(kind=kind), since=since), len(expected)))
        assert [Event(one.revision, one.type, one.key.kind, one.key.name) for one in told] == expected

    @invariant()
    def watches_add_up(self) -> None:
        self.run(self.told())
        for follower in self.followers:
            assert not follower.done()
        for name, view in self.views.items():
            assert {other: change.revision for other, change in view.items()} == self.expected(name)

    async def told(self) -> None:
        """Until the watchers have heard: the writer is a thread, and may be slow to tell on a busy machine."""
        for _ in range(3_000):
            await settle()
            seen = {name: {n: change.revision for n, change in view.items()} for name, view in self.views.items()}
            if all(view == self.expected(name) for name, view in seen.items()):
                return
            await asyncio.sleep(0.01)

    def expected(self, name: str) -> dict[str, int]:
        """What a watcher must have seen last: of all things, or of those that are selected."""
        wanted = SELECTED if name == "some" else {}
        return {
            other: thing.revision
            for (kind, other), thing in self.model.things.items()
            if kind == "Thing" and wanted.items() <= thing.labels.items()
        }


def references(owners: dict[str, bool]) -> list[dict[str, Any]]:
    return [{"kind": "Thing", "name": "o", "uid": uid, "blockOwnerDeletion": blocks} for uid, blocks in owners.items()]


async def first(watch: AsyncIterator[Change | Bookmark], count: int) -> list[Change]:
    """The first changes of a watch; it is left once they were told."""
    found: list[Change] = []
    async with asyncio.timeout(60), aclosing(watch):  # type: ignore[type-var]
        while len(found) < count:
            event = await anext(watch)
            found += [] if isinstance(event, Bookmark) else [event]
    return found


async def follow(watch: AsyncIterator[Change | Bookmark], view: dict[str, Change]) -> None:
    """Let the view be what the watcher is told, and hold the watcher to its word."""
    async for event in watch:
        if isinstance(event, Bookmark):
            continue
        if event.type == "DELETED":
            assert event.key.name in view
            del view[event.key.name]
        else:
            assert (event.type == "ADDED") == (event.key.name not in view)
            view[event.key.name] = event


StoreMachine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestStore = StoreMachine.TestCase


class DatabaseMachine(StoreMachine):
    """The same on PostgreSQL."""

    server: Server

    def choose(self) -> str:
        empty(self.server.url())
        return self.server.url()


@pytest.mark.real
class TestStoreInADatabase(DatabaseMachine.TestCase):
    settings = settings(StoreMachine.TestCase.settings, max_examples=10, stateful_step_count=40)

    @pytest.fixture(autouse=True)
    def at_a_server(self, server: Server) -> None:
        DatabaseMachine.server = server


@pytest.mark.long
class TestStoreInADatabaseLong(TestStoreInADatabase):
    settings = settings(StoreMachine.TestCase.settings, max_examples=100)
