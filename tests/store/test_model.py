"""The store beside a plain model of it: random writes, and after each the same objects, errors, counts and views.

The model is dictionaries and loops, written from the contract and not from the code. A watcher without a selector and
one with a selector follow along; what they were told must add up to what is there.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter, deque
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
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
    Taken,
)
from bessemer.core.ports import CONTROLLER, Bookmark, Scope
from bessemer.core.quota import Quota
from bessemer.core.resource import Change, Key
from bessemer.core.values import BILLING
from bessemer.store import open_store
from tests.store.conftest import KEY, KINDS
from tests.store.invariants import check
from tests.store.make import ALICE, PROJECT, agent, body, claim, inventory, read
from tests.store.server import Server, empty

T = TypeVar("T")
THREADS = 4
PLAIN = st.sampled_from(["Thing", "Guarded", "Instance"])
NAMES = st.sampled_from(["a", "b"])
LABELS = st.sampled_from([{}, {"x": "1"}, {"x": "2"}, {"x": "1", "y": "1"}])
FEW = st.sampled_from([False, False, False, False, True])
MOST = FEW.map(lambda rare: not rare)
HOSTS = st.sampled_from(["h1", "h1", "h2"])
GPUS = st.sampled_from([set(), {"gpu-0"}, {"gpu-1"}, {"gpu-0", "gpu-2"}])
SELECTED = {"x": "1"}


@dataclass
class Thing:
    """An object as the model has it."""

    uid: str
    spec: dict[str, Any]
    labels: dict[str, str]
    revision: int
    owners: list[str] = field(default_factory=list)
    finalizer: bool = False
    deleting: bool = False
    generation: int = 1
    phase: str = ""


Name = tuple[str, str]


class Model:
    """What the contract says, in the plainest words."""

    def __init__(self) -> None:
        self.things: dict[Name, Thing] = {}
        self.revision = 0
        self.instances_bound: int | None = None
        self.gpus_bound: int | None = None
        self.gpus: dict[str, dict[str, str]] = {}
        self.found: dict[str, set[str]] = {}
        self.ledger: Counter[str] = Counter()

    def bump(self) -> int:
        self.revision += 1
        return self.revision

    def uids(self) -> set[str]:
        return {thing.uid for thing in self.things.values()}

    def counted(self) -> int:
        return sum(kind == "Instance" for kind, _ in self.things)

    def claims(self) -> dict[str, Thing]:
        return {name: thing for (kind, name), thing in self.things.items() if kind == "Claim"}

    def mark(self, thing: Thing) -> None:
        if not thing.deleting:
            thing.deleting = True
            thing.generation += 1
            thing.revision = self.bump()

    def drop(self, name: Name) -> None:
        gone = deque([self.things.pop(name)])
        self.bump()
        while gone:
            owner = gone.popleft()
            for other, thing in list(self.things.items()):
                if owner.uid not in thing.owners or set(thing.owners) & self.uids():
                    continue
                if other[0] == "Claim" or thing.finalizer:
                    self.mark(thing)
                else:
                    gone.append(self.things.pop(other))
                    self.bump()

    def delete(self, name: Name) -> None:
        thing = self.things[name]
        if thing.finalizer:
            self.mark(thing)
        else:
            self.drop(name)

    def refusal(self, wanted: list[tuple[str, str, set[str]]]) -> type[BessemerError] | None:
        """Why a gang cannot be had, in the order in which it is taken."""
        held = {(host, gpu) for host, gpus in self.gpus.items() for gpu, claim_ in gpus.items() if claim_}
        cores = Counter(thing.spec["host"] for thing in self.claims().values())
        total = len(held)
        for name, host, gpus in wanted:
            old = self.things.get(("Claim", f"instance-{name}-0"))
            if old is not None:
                if old.spec["host"] != host:
                    return Conflict
                continue
            if host not in self.gpus or cores[host] == THREADS:
                return Taken
            if any(gpu not in self.gpus[host] or (host, gpu) in held for gpu in gpus):
                return Taken
            total += len(gpus)
            if gpus and self.gpus_bound is not None and total > self.gpus_bound:
                return QuotaExceeded
            cores[host] += 1
            held |= {(host, gpu) for gpu in gpus}
        return None


class StoreMachine(RuleBasedStateMachine):
    """Each rule does one thing to both, and says which error it expects."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="bessemer-model-"))
        self.place = self.choose()
        self.runner = asyncio.Runner()
        self.clock = FakeClock()
        self.store = open_store(self.place, clock=self.clock, kinds=KINDS, seal_key=KEY)
        self.model = Model()
        self.views: dict[str, dict[str, Change]] = {"all": {}, "some": {}}
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
        self.run(self.end())
        self.runner.close()
        check(self.place)
        shutil.rmtree(self.folder)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    def refused(self, error: type[BessemerError] | None, coroutine: Coroutine[Any, Any, T]) -> T | None:
        """Run it; it must raise exactly that, or nothing where that is None."""
        value, raised = None, None
        try:
            value = self.run(coroutine)
        except BessemerError as caught:
            raised = caught
        assert (type(raised) if raised else None) is error
        return value

    # --- objects ------------------------------------------------------------------------------------------------

    @rule(kind=PLAIN, name=NAMES, labels=LABELS, owner=st.none() | st.tuples(PLAIN, NAMES), stale=FEW)
    def create(self, kind: str, name: str, labels: dict[str, str], owner: Name | None, stale: bool) -> None:
        model = self.model
        found = model.things.get(owner) if owner else None
        owners = [found.uid] if found else ["gone"] if stale and owner else []
        error: type[BessemerError] | None = None
        if (kind, name) in model.things:
            error = AlreadyExists
        elif owners == ["gone"]:
            error = Conflict
        elif kind == "Instance" and model.instances_bound is not None and model.counted() >= model.instances_bound:
            error = QuotaExceeded
        references = [{"kind": "Thing", "name": "o", "uid": uid} for uid in owners]
        said = body(kind, name, labels=labels, ownerReferences=references)
        stored = self.refused(error, self.store.objects.create(said, ALICE))
        if stored is not None:
            model.things[kind, name] = Thing(
                stored.uid, {"size": 1}, labels, model.bump(), owners, finalizer=kind != "Thing"
            )

    @rule(kind=PLAIN, name=NAMES, size=st.integers(1, 3), labels=LABELS, let_go=st.booleans(), stale=FEW)
    def replace(self, kind: str, name: str, size: int, labels: dict[str, str], let_go: bool, stale: bool) -> None:
        thing = self.model.things.get((kind, name))
        keep = thing is not None and thing.finalizer and not let_go
        said = body(kind, name, spec={"size": size}, labels=labels)
        said["metadata"]["finalizers"] = [f"bessemer.dev/{kind.lower()}"] if keep else []
        if thing is not None:
            said["metadata"]["ownerReferences"] = [{"kind": "Thing", "name": "o", "uid": uid} for uid in thing.owners]
            said["metadata"]["resourceVersion"] = str(thing.revision - 1 if stale else thing.revision)
        error = NotFound if thing is None else Conflict if stale else None
        self.refused(error, self.store.objects.replace(said, CONTROLLER))
        if thing is None or stale:
            return
        same = (thing.spec, thing.labels, thing.finalizer) == ({"size": size}, labels, keep)
        if same:
            return
        thing.generation += thing.spec != {"size": size}
        thing.spec, thing.labels, thing.finalizer = {"size": size}, labels, keep
        if thing.deleting and not keep:
            self.model.drop((kind, name))
        else:
            thing.revision = self.model.bump()

    @rule(kind=PLAIN, name=NAMES, phase=st.sampled_from(["Ready", "Waiting"]))
    def observe(self, kind: str, name: str, phase: str) -> None:
        thing = self.model.things.get((kind, name))
        said = body(kind, name) | {"status": {"phase": phase}}
        self.refused(None if thing else NotFound, self.store.objects.replace(said, CONTROLLER, part="status"))
        if thing is not None and thing.phase != phase:
            thing.phase = phase
            thing.revision = self.model.bump()

    @rule(kind=PLAIN, name=NAMES)
    def delete(self, kind: str, name: str) -> None:
        there = (kind, name) in self.model.things
        self.refused(None if there else NotFound, self.store.objects.delete(Key(kind, PROJECT, name), ALICE))
        if there:
            self.model.delete((kind, name))

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
            model.things[key] = Thing(stored.uid, read(stored)["spec"], {}, model.bump(), phase="Pending")
            model.ledger[stored.uid] += 1
            for gpu in gpus:
                model.gpus[host][gpu] = stored.uid

    @rule(
        name=NAMES,
        phase=st.sampled_from(["Starting", "Running", "Lost", "Gone"]),
        mine=MOST,
        jump=st.sampled_from([0, 86400, -86400]),
    )
    def report(self, name: str, phase: str, mine: bool, jump: int) -> None:
        thing = self.model.claims().get(f"instance-{name}-0")
        self.clock.jump(jump)
        said = body("Claim", f"instance-{name}-0") | {"status": {"phase": phase}}
        host = thing.spec["host"] if thing is not None and mine else "h9"
        error = NotFound if thing is None else None if mine else Forbidden
        self.refused(error, self.store.objects.replace(said, agent(host), part="status"))
        if thing is not None and mine and thing.phase != phase:
            self.model.ledger[thing.uid] += BILLING[thing.phase] != BILLING[phase]
            thing.phase = phase
            thing.revision = self.model.bump()

    @rule(name=NAMES, number=st.integers(0, 1))
    def amend(self, name: str, number: int) -> None:
        thing = self.model.claims().get(f"instance-{name}-0")
        key = Key("Claim", PROJECT, f"instance-{name}-0")
        self.refused(None if thing else NotFound, self.store.capacity.amend(key, {"n": number}, CONTROLLER))
        if thing is not None and thing.spec.get("intent", {}) != {"n": number} and not thing.deleting:
            thing.spec = {**thing.spec, "intent": {"n": number}}
            thing.generation += 1
            thing.revision = self.model.bump()

    @rule(name=NAMES)
    def retire(self, name: str) -> None:
        thing = self.model.claims().get(f"instance-{name}-0")
        key = Key("Claim", PROJECT, f"instance-{name}-0")
        self.refused(None if thing else NotFound, self.store.capacity.retire(key, CONTROLLER))
        if thing is not None:
            self.model.mark(thing)

    @rule(name=NAMES, fenced=st.booleans())
    def release(self, name: str, fenced: bool) -> None:
        thing = self.model.claims().get(f"instance-{name}-0")
        key = Key("Claim", PROJECT, f"instance-{name}-0")
        stays = thing is not None and thing.phase != "Gone" and not fenced
        self.refused(Conflict if stays else None, self.store.capacity.release(key, CONTROLLER, fenced=fenced))
        if thing is None or stays:
            return
        self.model.drop(("Claim", f"instance-{name}-0"))
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
                    [reference["uid"] for reference in metadata.get("ownerReferences", ())],
                    finalizer=bool(metadata.get("finalizers")),
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
    def watches_add_up(self) -> None:
        self.run(self.told())
        for follower in self.followers:
            assert not follower.done()
        for name, view in self.views.items():
            assert {other: change.revision for other, change in view.items()} == self.expected(name)

    async def told(self) -> None:
        """Until the watchers have heard: the writer is a thread, and may be slow to tell on a busy machine."""
        for _ in range(500):
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
    settings = settings(StoreMachine.TestCase.settings, max_examples=2, stateful_step_count=40)

    @pytest.fixture(autouse=True)
    def at_a_server(self, server: Server) -> None:
        DatabaseMachine.server = server


@pytest.mark.long
class TestStoreInADatabaseLong(TestStoreInADatabase):
    settings = settings(StoreMachine.TestCase.settings, max_examples=100)
