"""`Moving`: what Consolidations move at this moment, and what is kept for it, as every process that decides knows it.

Which claim goes where stands in the Consolidation's status before anything is done about it, and is followed from
there like hosts and claims. Invariants: what is kept for who moves is counted in the arrays, so that nobody else is
sent there, until it has come; a host that is opened takes nobody; nothing stands here that is lost with the process.
It moves nothing: the Consolidation tells claims, and their workloads ask for a place as ever, and are given this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from bessemer.core.asking import Decision, Gang, GangDecision, Request
from bessemer.core.resource import Change, Key
from bessemer.kinds.fleet.moved import ENDED, KeptPlace
from bessemer.placement import FleetArrays, Hold
from bessemer.placement.choose import place
from bessemer.placement.moves.holdings import Holdings
from bessemer.placement.moves.plan import Place
from bessemer.placement.sight import Sight
from bessemer.placement.thought import Thought

GONE_MAX = 1024
"""Deleted Consolidations that are known to be."""


@dataclass(frozen=True, slots=True)
class Fork:
    """The fleet of this moment for who plans: arrays of its own, who places on them, and what is held there."""

    fleet: FleetArrays
    place: Place
    holdings: Holdings


@dataclass(frozen=True, slots=True)
class _Step:
    """A claim on its way: the ``uid`` of whose it is, and what is kept for it under the name ``ghost``. ``known`` are
    the uids of the workload's claims that there were when it began; ``replaced``: another is to come before it goes."""

    ghost: str
    uid: str
    claim: str
    kept: Hold
    known: frozenset[str]
    replaced: bool


@dataclass(frozen=True, slots=True)
class _Course:
    """One Consolidation, as it was heard of."""

    key: Key
    steps: Sequence[_Step] = ()
    shut: frozenset[str] = field(default_factory=frozenset)


class Moving:
    """``shut`` is told the hosts on which nobody new is to land."""

    def __init__(self, arrays: FleetArrays, shut: Callable[[frozenset[str]], None]) -> None:
        self._arrays = arrays
        self._shut = shut
        self._courses: dict[str, _Course] = {}
        self._heard: dict[str, int] = {}
        self._gone: dict[str, None] = {}
        self._ghosts: set[str] = set()

    def changed(self, change: Change) -> None:
        """A Consolidation did. What is older than what was heard of it is no news, nor is anything of one that is gone.
        Raises ValueError where no sense can be made of it."""
        if change.type == "DELETED":
            self.gone(change.uid)
            return
        if change.uid in self._gone or change.revision < self._heard.get(change.uid, 0):
            return
        self._heard[change.uid] = change.revision
        self._courses[change.uid] = _course(change)
        self._follow()

    def gone(self, uid: str) -> None:
        """It is deleted, for good. Who tells of changes need not tell of them in time: so the last that went are
        known."""
        self._heard.pop(uid, None)
        self._gone[uid] = None
        if len(self._gone) > GONE_MAX:
            del self._gone[next(iter(self._gone))]
        self.left_out(uid)

    def left_out(self, uid: str) -> None:
        """It moves nothing, as far as anybody can read."""
        if self._courses.pop(uid, None) is not None:
            self._follow()

    def settle(self) -> None:
        """Count what is kept for those that have not come yet, and for nobody else. Not in thought: what is held there
        is gone when it is left, and would be taken for held."""
        if self._arrays.held.thoughts:
            return
        if not self._ghosts and not any(course.steps for course in self._courses.values()):
            return
        wanted = {step.ghost: step.kept for step in self._steps() if not self._come(step)}
        for ghost in self._ghosts - wanted.keys():
            self._arrays.drop(ghost)
        for ghost, kept in wanted.items():
            self._arrays.hold(ghost, kept)
        self._ghosts = set(wanted)

    def place(self, workload: str, request: Request) -> Decision | None:
        """The place that is kept for the workload with the uid, for what it asks; None where none is, or it would not
        do any more."""
        self.settle()
        for step in self._steps():
            if step.uid == workload and step.ghost in self._ghosts:
                found = self._there(step, request)
                if found is not None:
                    return found
        return None

    def kept(self, workload: str, wants: Request | Gang) -> Decision | GangDecision | None:
        """The same for whoever asks for itself, also for a gang of one."""
        if isinstance(wants, Request):
            return self.place(workload, wants)
        found = self.place(workload, wants.member) if wants.count == 1 else None
        return None if found is None else GangDecision(members=(found,), leaves=1, spines=1, score=found.score)

    def replaced(self, workload: str) -> frozenset[str]:
        """The claims of the workload with the uid for each of which another is to come before it goes."""
        return frozenset(step.claim for step in self._steps() if step.uid == workload and step.replaced)

    def concerned(self, change: Change) -> Sequence[Key]:
        """The Consolidations to which a claim's change matters."""
        courses = [course for course in self._courses.values() if course.steps]
        if not courses:
            return ()
        uid = orjson.loads(change.body)["spec"]["workload"]["uid"]
        return [course.key for course in courses if any(step.uid == uid for step in course.steps)]

    def _steps(self) -> Iterator[_Step]:
        return (step for course in self._courses.values() for step in course.steps)

    def _follow(self) -> None:
        self._shut(frozenset().union(*(course.shut for course in self._courses.values())))
        self.settle()

    def _come(self, step: _Step) -> bool:
        """Whether the workload has taken it, or is about to: then it is counted by that."""
        held = self._arrays.held.at(step.kept.host)
        return any(
            hold.tenure.workload == step.uid and uid != step.claim and uid not in step.known
            for uid, hold in held.items()
            if uid != step.ghost
        )

    def _there(self, step: _Step, request: Request) -> Decision | None:
        row = self._arrays.row(step.kept.host)
        if row is None:
            return None
        with Thought(self._arrays) as thought:
            thought.leave_out([step.ghost])
            return place(Sight.of(self._arrays.view(np.array([row])), request))


def _course(change: Change) -> _Course:
    body = orjson.loads(change.body)
    spec, status = body["spec"], body.get("status", {})
    phase = status.get("phase")
    steps = [step for step in status.get("steps", ()) if step.get("phase") == "Moving" and phase not in ENDED]
    opens = phase == "Moving" and spec.get("open") is not None
    # Of several places one may be opened beside a claim that another one's plan brought there: until it has come, its
    # host takes it.
    comes = {step["place"]["host"] for step in status.get("steps", ()) if step.get("phase") in ("Waiting", "Moving")}
    return _Course(
        change.key,
        [_step(change.uid, step, lasting=phase == "Moving") for step in steps],
        frozenset(status.get("hosts", ()) if opens else ()) - comes,
    )


def _step(uid: str, step: Mapping[str, Any], *, lasting: bool) -> _Step:
    """``lasting``: it is carried out, and not only brought to its end."""
    kept = Hold.of(KeptPlace.model_validate(step["place"]).decision())
    return _Step(
        ghost=f"moved/{uid}/{step['claimUid']}",
        uid=step["workloadUid"],
        claim=step["claimUid"],
        kept=kept,
        known=frozenset(step.get("known", ())),
        replaced=lasting and step.get("how") == "Replace",
    )
