"""A small queue over a small fleet: claims that end, requests that wait, and a day of them second by second."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bessemer.core.asking import Asker, Decision, Gang, GangDecision, Request
from bessemer.core.units import GIB
from bessemer.placement import FleetArrays, Hold, decide
from bessemer.placement.arrays import Arrays
from bessemer.placement.facts import Tenure
from bessemer.placement.gangs import place_gang
from bessemer.placement.moves.holdings import Holdings
from bessemer.placement.queue import Book, Pending, Plan, Rules, Running, Share, plan
from tests.placement.hosts import fleet, host

NOW = 1_000_000


class Here:
    """Says where something goes now, by the criteria."""

    def __init__(self, arrays: FleetArrays) -> None:
        self._arrays = arrays

    def place(self, request: Request) -> Decision | None:
        answer = decide(self._arrays, request)
        return answer if isinstance(answer, Decision) else None

    def place_gang(self, gang: Gang, among: Arrays | None = None) -> GangDecision | None:
        return place_gang(among or self._arrays, gang)


def gpus(count: int, **more: Any) -> Request:
    return Request(tenant="", milli_cores=100, memory_bytes=GIB // 8, device_count=count, **more)


def waits(name: str, wants: Request | Gang, *, project: str = "acme--a", **more: Any) -> Pending:
    return Pending(Asker(uid=name, project=project, **{"since": NOW, **more}), wants)


@dataclass
class Line:
    """``hosts`` hosts with ``gpus`` GPUs each. ``took`` is who was placed, where and when."""

    hosts: int = 2
    gpus: int = 4
    rules: Rules = field(default_factory=Rules)
    tree: Mapping[str, Share] = field(default_factory=dict)
    now: int = NOW

    def __post_init__(self) -> None:
        names = [f"h{number}" for number in range(self.hosts)]
        self.fleet = fleet(*(host(name, gpus=self.gpus, leaf=f"l{int(name[1:]) // 2}", spine="s") for name in names))
        self.book, self.known = Book(self.fleet), Running(Holdings(self.fleet))
        self.waiting: dict[str, Pending] = {}
        self.took: dict[str, tuple[int, tuple[Decision, ...]]] = {}
        self.lasts: dict[str, int] = {}

    def runs(self, uid: str, count: int, *, host: str = "", first: int = 0, **tenure: Any) -> None:
        """A claim on so many GPUs: anywhere, or on a host from its GPU ``first`` on."""
        wants = gpus(count)
        answer = decide(self.fleet, wants)
        if host:
            names = tuple(f"gpu{number}" for number in range(first, first + count))
            hold = Hold(host, names, (), request=wants, tenure=Tenure(**{"since": self.now, **tenure}))
        else:
            assert isinstance(answer, Decision), answer
            since = Tenure(**{"since": self.now, **tenure})
            hold = Hold(answer.host, answer.devices, answer.allocations, request=wants, tenure=since)
        self.fleet.hold(uid, hold)

    def plan(self, *waiting: Pending) -> Plan:
        some = waiting or tuple(self.waiting.values())
        here = Here(self.fleet)
        return plan(self.book, self.known, places=here, waiting=some, now=self.now, terms=(self.tree, self.rules))

    # --- time ---

    def joins(self, pending: Pending, *, lasts: int) -> None:
        self.waiting[pending.uid] = pending
        self.lasts[pending.uid] = lasts

    def step(self, seconds: int = 1) -> None:
        """What has ended goes, and each who is in turn takes its place."""
        self.now += seconds
        for uid, hold in self.running().items():
            if hold.tenure.ends is not None and hold.tenure.ends <= self.now:
                self.fleet.drop(uid)
        for uid, turn in self.plan().turns.items() if self.waiting else ():
            if turn.placed is not None:
                self.take(uid, turn.placed)

    def take(self, uid: str, placed: Decision | GangDecision) -> None:
        pending = self.waiting.pop(uid)
        members = placed.members if isinstance(placed, GangDecision) else (placed,)
        self.took[uid] = (self.now, members)
        asker = pending.asker
        tenure = Tenure(
            project=asker.project,
            priority=asker.priority,
            since=self.now,
            ends=self.now + self.lasts[uid],
            preemptible=asker.preemptible,
        )
        for number, member in enumerate(members):
            self.fleet.hold(f"{uid}/{number}", Hold(member.host, member.devices, member.allocations, tenure=tenure))

    def running(self) -> dict[str, Hold]:
        return {uid: hold for name in self.fleet.names for uid, hold in self.fleet.held.at(name).items()}
