"""Limits and budgets beside a plain model of them: gateways that hold, settle, lose answers, die and come back, bounds
that come, go and are lowered, and time that passes. After each step the store says what the model says, and nothing is
over its bound that was not before."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bessemer.core.bounds import Ask, Want
from bessemer.core.clock import FakeClock
from bessemer.core.values import UsageBatch
from bessemer.store import open_store, places
from bessemer.store.leases import SteadyTime
from bessemer.store.transaction import Tx
from tests.store.conftest import KEY as SEAL
from tests.store.conftest import KINDS
from tests.store.invariants import check
from tests.store.make import PROJECT
from tests.store.server import Server, empty
from tests.store.test_bounds import KEY, MEMBER, OWN, TENANT, furnish, restate, standing
from tests.store.test_money import record

T = TypeVar("T")
Place = tuple[str, str]

BOUNDED: dict[Place, tuple[str, str, dict[str, Any]]] = {
    (KEY, "tokens/total"): ("ApiKey", "budget", {"period": "Total", "tokens": 0}),
    (KEY, "concurrent"): ("ApiKey", "limits", {"concurrent": 0}),
    (MEMBER, "micro/day"): ("Member", "budget", {"period": "Day", "micro": 0}),
    (OWN, "requests/minute"): ("Project", "limits", {"requestsPerMinute": 0}),
    (TENANT, "requests/day"): ("Tenant", "limits", {"requestsPerDay": 0}),
}
"""What is bounded → where it stands, and how: the number goes where the 0 is."""

PLACES = list(BOUNDED)
GATEWAYS = st.sampled_from(["g", "h"])
WANTS = st.dictionaries(st.sampled_from(PLACES), st.integers(0, 40), min_size=1, max_size=4)
GIVEN = (OWN, "requests/minute")
SILENT = {"concurrent": 90}
HOUR = 3600


@dataclass
class Level:
    """What a gateway has said."""

    number: int = 0
    until: float = 0.0
    held: dict[Place, int] = field(default_factory=dict)


@dataclass
class Plain:
    """The same rules, written as they are read."""

    bounds: dict[Place, int | None] = field(default_factory=dict)
    used: dict[Place, int] = field(default_factory=dict)
    since: dict[Place, str] = field(default_factory=dict)
    levels: dict[str, Level] = field(default_factory=dict)

    def spent(self, place: Place, now: float) -> int:
        period = {"day": "%F", "minute": "%F %R"}.get(place[1].rpartition("/")[2], "")
        name = datetime.fromtimestamp(now, UTC).strftime(period) if period else ""
        if self.since.get(place) != name:
            self.since[place], self.used[place] = name, 0
        return self.used[place]

    def counts(self, level: Level, place: Place, now: float) -> int:
        silent = place[1] in SILENT and now - (level.until - HOUR) >= SILENT[place[1]]
        return 0 if silent else level.held.get(place, 0)

    def held(self, place: Place, now: float) -> int:
        return sum(self.counts(level, place, now) for level in self.levels.values())

    def want(self, name: str, wants: dict[Place, int], *, anew: bool, now: float) -> bool:
        """Whether it is all there; then it is given."""
        level = self.levels.setdefault(name, Level())
        over = level.until <= now
        kept = {place: held for place, held in level.held.items() if not anew and not (over and place[1] in SILENT)}
        for place, amount in wants.items():
            if (bound := self.bounds.get(place)) is None:
                continue
            mine = self.counts(level, place, now) if place in kept else 0
            others = self.held(place, now) - self.counts(level, place, now)
            if place == GIVEN and self.spent(place, now) + amount > bound:
                return False
            if place != GIVEN and amount > mine and self.spent(place, now) + others + amount > bound:
                return False
        for place, amount in wants.items():
            bounded = self.bounds.get(place) is not None
            if place == GIVEN:
                self.used[place] = self.spent(place, now) + (amount if bounded else 0)
            else:
                kept[place] = amount if bounded else 0
        for other in self.levels.values() if not level.number else ():
            if other.until <= now:  # who speaks for the first time finds no words that are over and hold nothing
                other.held = {place: held for place, held in other.held.items() if held and place[1] not in SILENT}
                other.number = other.number if other.held else 0
        level.held, level.until, level.number = kept, now + HOUR, level.number + 1
        return True

    def settle(self, name: str, *, tokens: int, held: set[Place], now: float) -> None:
        level = self.levels.setdefault(name, Level())
        for place in self.used:
            cost = {"tokens": tokens, "micro": tokens, "requests": 1}.get(place[1].partition("/")[0])
            if cost is not None and place != GIVEN:
                self.used[place] = self.spent(place, now) + cost
                if place in held:
                    level.held[place] = max(0, level.held.get(place, 0) - cost)


class BoundsMachine(RuleBasedStateMachine):
    """Each rule does one thing to both."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="bessemer-bounds-"))
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(places.Server, "time", lambda _, clock: SteadyTime(clock))
        self.patch.setattr(Tx, "server_time", property(lambda tx: tx.now))
        self.place, self.runner, self.clock = self.choose(), asyncio.Runner(), FakeClock()
        self.store = open_store(self.place, clock=self.clock, kinds=KINDS, seal_key=SEAL)
        self.plain, self.sequences, self.loose = Plain(), dict[str, int](), True
        self.before: dict[Place, int] = {}
        self.run(furnish(self.store))
        for place in PLACES:
            self.state(place, 60)

    def choose(self) -> str:
        return str(self.folder / "store.db")

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    def teardown(self) -> None:
        self.run(asyncio.sleep(0))
        self.store.close()
        self.runner.close()
        check(self.place)
        self.patch.undo()
        shutil.rmtree(self.folder)

    @property
    def now(self) -> float:
        return self.clock.now()

    @rule(place=st.sampled_from(PLACES), bound=st.none() | st.integers(0, 100))
    def state(self, place: Place, bound: int | None) -> None:
        """What is lowered below what is used touches nothing."""
        kind, part, said = BOUNDED[place]
        value = None if bound is None else {**said, list(said)[-1]: bound}
        if kind == "Member":
            self.run(restate(self.store, "Tenant", "acme", members=[{"user": "alice", part: value}]))
        else:
            name = {"ApiKey": "k", "Project": PROJECT, "Tenant": "acme"}[kind]
            self.run(restate(self.store, kind, name, **{part: value}))
        self.plain.bounds[place] = bound
        if bound is not None and place not in self.plain.used:
            self.plain.used[place] = 0
        self.loose = True

    @rule(name=GATEWAYS, wants=WANTS, late=st.sampled_from([0, 0, 0, 0, 1]), anew=st.sampled_from([False] * 5 + [True]))
    def want(self, name: str, wants: dict[Place, int], late: int, anew: bool) -> None:
        """A word that does not know of the last one moves nothing; ``anew`` is of one that was killed."""
        level = self.plain.levels.setdefault(name, Level())
        said = [Want(scope=scope, meter=meter, amount=amount) for (scope, meter), amount in wants.items()]
        ask = Ask(holder=name, after=level.number + late, key="k", owner="alice", anew=anew, wants=said)
        answer = self.run(self.store.bounds.hold(PROJECT, ask))
        if late:
            assert (answer.stands, answer.number, answer.lacks) == (False, level.number, "")
            return
        given = self.plain.want(name, wants, anew=anew, now=self.now)
        assert (answer.stands, bool(answer.lacks)) == (given, not given), answer
        assert answer.number == level.number

    @rule(name=GATEWAYS, tokens=st.integers(0, 40), again=st.booleans())
    def settle(self, name: str, tokens: int, again: bool) -> None:
        """An answer that came to no more than is held, and says of what it was. Once, however often it is sent."""
        level = self.plain.levels.setdefault(name, Level())
        held = {place for place in PLACES if self.plain.counts(level, place, self.now) and place != GIVEN}
        for place in held:
            tokens = min(tokens, level.held[place]) if place[1] != "requests/day" else tokens
        names = [f"{scope.partition('/')[0]} {meter}" for scope, meter in sorted(held) if meter != "concurrent"]
        if any(place not in held for place in self.plain.used if place != GIVEN and place[1] != "concurrent"):
            self.loose = True  # of some bound nothing was held: it came, or the hold went, after the request began
        sequence = self.sequences[name] = self.sequences.get(name, 0) + 1
        one = record(sequence, read=tokens).model_copy(update={"owner": "alice", "held_bounds": names or None})
        for _ in range(1 + again):
            batch = UsageBatch(gateway_uid=name, spool_uid=f"s-{name}", first_sequence=sequence, records=[one])
            self.run(self.store.ledger.settle(batch))
        self.plain.settle(name, tokens=tokens, held={p for p in held if p[1] != "concurrent"}, now=self.now)

    @rule(seconds=st.sampled_from([1, 61, 91, 1800, HOUR, 86_400]))
    def pass_time(self, seconds: int) -> None:
        self.run(self.clock.advance(seconds))

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        found = self.run(standing(self.store))
        assert {place: bound.bound for place, bound in found.items()} == {
            place: bound for place, bound in self.plain.bounds.items() if bound is not None
        }
        after = {}
        for place, bound in found.items():
            held = 0 if place == GIVEN else self.plain.held(place, self.now)
            assert (bound.used, bound.held) == (self.plain.spent(place, self.now), held), place
            after[place] = bound.used + bound.held
            if not self.loose:
                assert after[place] <= max(bound.bound, self.before.get(place, 0)), place
        self.before, self.loose = after, False


BoundsMachine.TestCase.settings = settings(
    max_examples=12,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestBounds = BoundsMachine.TestCase


class DatabaseMachine(BoundsMachine):
    """The same on PostgreSQL."""

    server: Server

    def choose(self) -> str:
        empty(self.server.url())
        return self.server.url()


@pytest.mark.real
class TestBoundsInADatabase(DatabaseMachine.TestCase):
    settings = settings(BoundsMachine.TestCase.settings, max_examples=4, stateful_step_count=30)

    @pytest.fixture(autouse=True)
    def at_a_server(self, server: Server) -> None:
        DatabaseMachine.server = server


@pytest.mark.long
class TestBoundsInADatabaseLong(TestBoundsInADatabase):
    settings = settings(BoundsMachine.TestCase.settings, max_examples=100)
