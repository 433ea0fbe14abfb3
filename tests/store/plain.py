"""A store in the plainest words: dictionaries and loops, written from the contract and not from the code.

It says what becomes of each write: which objects there are, in which order they changed, what is held and counted, what
is sealed. It knows no transaction, no index and no bound.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from bessemer.core.errors import BessemerError, Conflict, QuotaExceeded, Taken
from bessemer.core.ports import Policy

THREADS = 4
OURS = {"Foreground": "foregroundDeletion", "Orphan": "orphan", "Background": ""}

Name = tuple[str, str]
"""Kind and name."""


class Event(NamedTuple):
    """A line of the change log."""

    revision: int
    type: Literal["ADDED", "MODIFIED", "DELETED"]
    kind: str
    name: str


@dataclass
class Thing:
    """An object as the model has it."""

    uid: str
    spec: dict[str, Any]
    labels: dict[str, str]
    revision: int = 0
    owners: dict[str, bool] = field(default_factory=dict)
    """By uid, whether it blocks a deletion in the foreground."""
    finalizer: bool = False
    waits: str = ""
    """The finalizer of a deletion that is not done at once."""
    deleting: bool = False
    generation: int = 1
    phase: str = ""

    @property
    def finalizers(self) -> int:
        return self.finalizer + bool(self.waits)


class Model:
    """What the contract says."""

    def __init__(self) -> None:
        self.things: dict[Name, Thing] = {}
        self.log: list[Event] = []
        self.sealed: dict[tuple[str, str], bytes] = {}
        self.instances_bound: int | None = None
        self.gpus_bound: int | None = None
        self.gpus: dict[str, dict[str, str]] = {}
        self.found: dict[str, set[str]] = {}
        self.ledger: Counter[str] = Counter()
        self._deletions = Deletions(self)

    @property
    def revision(self) -> int:
        return len(self.log)

    def told(self, name: Name, type: Literal["ADDED", "MODIFIED", "DELETED"]) -> int:
        """A line of the log more; its revision."""
        self.log.append(Event(len(self.log) + 1, type, *name))
        return len(self.log)

    def make(self, name: Name, thing: Thing) -> None:
        self.things[name] = thing
        thing.revision = self.told(name, "ADDED")

    def change(self, name: Name) -> None:
        self.things[name].revision = self.told(name, "MODIFIED")

    def delete(self, name: Name, policy: Policy | None = None) -> None:
        self._deletions.begin(name, policy)
        self._deletions.see_to([self.things[name].uid] if name in self.things else [])

    def drop(self, name: Name) -> None:
        self._deletions.finish(name)

    def mark(self, name: Name) -> None:
        self._deletions.mark(name, self.things[name].waits)

    def tidy(self) -> None:
        self._deletions.again()

    def counted(self) -> int:
        return sum(kind == "Instance" for kind, _ in self.things)

    def claims(self) -> dict[str, Thing]:
        return {name: thing for (kind, name), thing in self.things.items() if kind == "Claim"}

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


class Deletions:
    """How objects go: what finalizers keep stays, marked, and what is owned goes behind its last owner, or before it in
    the foreground, or is left behind. Dependents are taken by their uids."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._seen: dict[str, bool] = {}
        """Those that wait, by uid, and whether all of their dependents were seen to."""

    def begin(self, name: Name, policy: Policy | None) -> None:
        """Somebody deletes it: by that policy, and without one as it was begun, or in the background."""
        thing = self._model.things[name]
        wished = thing.waits if policy is None else OURS[policy]
        if thing.finalizer or wished:
            self.mark(name, wished)
        else:
            thing.waits = ""
            self.finish(name)

    def mark(self, name: Name, waits: str) -> None:
        thing = self._model.things[name]
        if not thing.deleting or thing.waits != waits:
            thing.generation += not thing.deleting
            thing.deleting, thing.waits = True, waits
            self._model.change(name)
            self._seen.pop(thing.uid, None)
        if waits:
            self._seen.setdefault(thing.uid, False)

    def finish(self, name: Name) -> None:
        """It goes, and then by turns what has lost its last owner and who waited for what went."""
        blocked = self._drop(name)
        lost, relieved = deque(self._lost(blocked.uid)), deque(_blocks(blocked))
        while lost or relieved:
            if lost:
                at = lost.popleft()
                one = self._model.things[at]
                if at[0] == "Claim" or one.finalizers:
                    self.mark(at, one.waits)
                    continue
            elif (found := self._over(relieved.popleft())) is None:
                continue
            else:
                at = found
            gone = self._drop(at)
            lost.extend(self._lost(gone.uid))
            relieved.extend(_blocks(gone))

    def see_to(self, uids: Iterable[str]) -> None:
        """The dependents of what waits, and theirs."""
        line = deque(uids)
        while line:
            uid = line.popleft()
            if self._seen.get(uid, True) or not (name := self._name(uid)) or not self._model.things[name].waits:
                continue
            for other in self._dependents(uid):
                if self._see_to_one(other, uid, left_behind=self._model.things[name].waits == OURS["Orphan"]):
                    line.append(self._model.things[other].uid)
            self._seen[uid] = True
            self._relieve(uid)

    def again(self) -> None:
        """All that waits, once more: for what was made meanwhile."""
        for uid in sorted(self._seen):
            self._seen[uid] = False
        while left := sorted(uid for uid, seen in self._seen.items() if not seen):
            for uid in left:
                name = self._name(uid)
                if not name or not self._model.things[name].waits:
                    del self._seen[uid]
                else:
                    self.see_to([uid])

    def _see_to_one(self, other: Name, owner: str, *, left_behind: bool) -> bool:
        """One dependent; whether it waits for its own from now on."""
        things = self._model.things
        if other not in things:
            return False
        thing = things[other]
        if left_behind or any(self._lives(uid) for uid in thing.owners if uid != owner):
            del thing.owners[owner]
            self._model.change(other)
            return False
        first = thing.waits == OURS["Foreground"] or self._dependents(thing.uid)
        self.begin(other, "Orphan" if thing.waits == OURS["Orphan"] else "Foreground" if first else "Background")
        return other in things and bool(things[other].waits)

    def _relieve(self, uid: str) -> None:
        name = self._over(uid)
        if name is not None:
            self.finish(name)

    def _over(self, uid: str) -> Name | None:
        """Who waited for nothing more, and goes; None where there is something, or it has another finalizer."""
        name = self._name(uid)
        if not self._seen.get(uid) or name is None:
            return None
        thing = self._model.things[name]
        blocked = any(self._model.things[other].owners[uid] for other in self._dependents(uid))
        if not thing.waits or (thing.waits == OURS["Foreground"] and blocked):
            return None
        del self._seen[uid]
        thing.waits = ""
        if not thing.finalizer:
            return name
        self._model.change(name)
        return None

    def _drop(self, name: Name) -> Thing:
        gone = self._model.things.pop(name)
        self._model.told(name, "DELETED")
        for at in [at for at in self._model.sealed if at[0] == gone.uid]:
            del self._model.sealed[at]
        return gone

    def _lost(self, owner: str) -> list[Name]:
        there = {thing.uid for thing in self._model.things.values()}
        return [name for name in self._dependents(owner) if not there & self._model.things[name].owners.keys()]

    def _dependents(self, owner: str) -> list[Name]:
        found = [(thing.uid, name) for name, thing in self._model.things.items() if owner in thing.owners]
        return [name for _, name in sorted(found)]

    def _lives(self, uid: str) -> bool:
        """Whether an owner keeps its dependents."""
        name = self._name(uid)
        return name is not None and self._model.things[name].waits != OURS["Foreground"]

    def _name(self, uid: str) -> Name | None:
        return next((name for name, thing in self._model.things.items() if thing.uid == uid), None)


def _blocks(thing: Thing) -> list[str]:
    return [uid for uid, blocks in thing.owners.items() if blocks]
