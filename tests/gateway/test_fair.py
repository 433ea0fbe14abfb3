"""Who is next where all wait."""

from __future__ import annotations

import random
from collections import Counter

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.gateway.fair import COST_MAX, WEIGHTS, Line
from bessemer.gateway.request import ROUTES, read
from bessemer.gateway.seeking import path, session
from bessemer.gateway.tables import KeyEntry

PATHS = st.tuples(st.sampled_from(list(WEIGHTS)), st.sampled_from("abc"), st.sampled_from("xyz"))


def test_two_tenants_have_as_much_however_many_wait() -> None:
    line: Line[str] = Line(WEIGHTS)
    for number in range(300):
        line.push(("default", "loud", f"key{number % 30}"), "loud")
    for _ in range(50):
        line.push(("default", "calm", "key"), "calm")
    served = Counter(line.pop() for _ in range(100))
    assert served == {"loud": 50, "calm": 50}


def test_what_counts_is_the_cost() -> None:
    line: Line[str] = Line()
    for _ in range(100):
        line.push(("long",), "long", cost=3000)
        line.push(("short",), "short", cost=1000)
    served = Counter(line.pop() for _ in range(100))
    assert abs(served["short"] - 75) <= 3


def test_classes_have_their_weights_and_none_starves() -> None:
    line: Line[str] = Line(WEIGHTS)
    for name in WEIGHTS:
        for _ in range(400):
            line.push((name, "t", "k"), name)
    served = Counter(line.pop() for _ in range(210))
    assert served["priority"] > 3 * served["default"] > 6 * served["flex"] > 0


def test_a_tenant_is_no_class_whatever_it_is_called() -> None:
    line: Line[str] = Line(WEIGHTS)
    for name in ("priority", "acme"):
        for _ in range(50):
            line.push(("default", name, "k"), name)
    assert Counter(line.pop() for _ in range(40)) == {"priority": 20, "acme": 20}


def test_who_comes_late_has_saved_up_nothing() -> None:
    line: Line[str] = Line()
    for _ in range(200):
        line.push(("early",), "early")
    for _ in range(100):
        line.pop()
    for _ in range(50):
        line.push(("late",), "late")
    assert abs(Counter(line.pop() for _ in range(40))["late"] - 20) <= 1


def test_the_longest_line_gives_way_and_its_last_goes() -> None:
    line: Line[int] = Line(WEIGHTS)
    for number in range(10):
        line.push(("default", "loud", "k"), number)
    line.push(("default", "calm", "k"), 99)
    assert line.yield_to(("default", "loud", "k")) is None, "he would be the last of the longest himself"
    assert line.yield_to(("default", "calm", "k")) == 9
    assert line.yield_to(("default", "third", "k")) == 8
    assert line.count == 9


@given(st.lists(st.one_of(st.tuples(PATHS, st.integers(1, 2 * COST_MAX)), st.none()), max_size=200), st.booleans())
def test_all_who_come_are_served_once_in_their_own_order(steps: list[object], leaves: bool) -> None:
    """And nothing is remembered of an empty line, or of more than twice as many as wait of one that is not."""
    line: Line[tuple[object, int]] = Line(WEIGHTS)
    inside: dict[object, list[tuple[object, int]]] = {}
    for number, step in enumerate(steps):
        if isinstance(step, tuple):
            path, cost = step
            line.push(path, who := (path, number), cost=cost)
            inside.setdefault(path, []).append(who)
            if leaves and number % 5 == 0:
                assert line.remove(path, who)
                inside[path].remove(who)
                assert not line.remove(path, who)
        elif (served := line.pop()) is not None:
            assert inside[served[0]].pop(0) == served, "who came first on a path is first"
        assert line.count == sum(map(len, inside.values()))
    while (served := line.pop()) is not None:
        assert inside[served[0]].pop(0) == served
    assert not any(inside.values())
    assert line.known == 0


@given(st.lists(st.integers(1, 50), min_size=2, max_size=6), st.integers(0, 1000))
def test_nobody_starves(costs: list[int], seed: int) -> None:
    """Of children that all wait, none is ever behind another by more than the largest cost of each (the bound of
    start-time fair queueing); so none waits for longer than the others take for that."""
    line: Line[tuple[int, int]] = Line()
    draw = random.Random(seed)
    for child, most in enumerate(costs):
        for _ in range(200):
            cost = draw.randint(1, most)
            line.push((str(child),), (child, cost), cost=cost)
    had = [0] * len(costs)
    for _ in range(200):
        child, cost = line.pop() or (0, 0)
        had[child] += cost
        behind = min(range(len(costs)), key=had.__getitem__)
        assert all(had[one] - had[behind] <= costs[one] + costs[behind] for one in range(len(costs)))


def test_a_crowd_that_went_is_forgotten() -> None:
    line: Line[int] = Line()
    line.push(("stays",), -1)
    for number in range(5000):
        line.push((str(number),), number)
        line.remove((str(number),), number)
    assert line.known <= 2 * line.count + 66


def test_the_class_is_the_keys_or_a_lesser_one_that_is_asked_for() -> None:
    def classed(key: str, said: str | None) -> str:
        body = {"model": "m", "messages": [], **({"service_tier": said} if said else {})}
        wanted = read(orjson.dumps(body), ROUTES["/v1/chat/completions"])
        return path(wanted, KeyEntry("u", "k", "acme--lab", frozenset(), None, priority=key))[0]

    table = {
        "priority": {
            None: "priority",
            "auto": "priority",
            "default": "default",
            "flex": "flex",
            "priority": "priority",
        },
        "default": {None: "default", "auto": "default", "default": "default", "flex": "flex", "priority": "default"},
        "flex": {None: "flex", "auto": "flex", "default": "flex", "flex": "flex", "priority": "flex"},
    }
    for key, row in table.items():
        assert {said: classed(key, said) for said in row} == row
    assert classed("a newer one", None) == "default"


@pytest.mark.parametrize("raw", [b'{"model":"m","user":null}', b'{"model":"m","user":"","prompt_cache_key":null}'])
def test_who_names_no_session_is_of_none(raw: bytes) -> None:
    """A client's library writes what it was not told: all who use it would be of one session, and at one replica."""
    wanted = read(raw, ROUTES["/v1/completions"])
    assert session(wanted, {}, project="acme--lab") == session(wanted, {b"x-session-id": b""}, project="acme--lab") == 0
    named = read(b'{"model":"m","user":null,"prompt_cache_key":"a"}', ROUTES["/v1/completions"])
    assert session(named, {}, project="acme--lab") not in (0, session(named, {}, project="rival--lab"))
