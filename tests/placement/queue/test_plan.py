"""The queue by example: order, reservations, backfill, who is stopped for whom."""

from __future__ import annotations

from bessemer.core.asking import Allocation, Gang, Request
from bessemer.core.units import GIB
from bessemer.placement import Hold
from bessemer.placement.facts import Tenure
from bessemer.placement.queue import Rules, Share, plan
from tests.placement.queue.line import NOW, Here, Line, gpus, waits


def test_higher_priority_goes_first() -> None:
    line = Line(hosts=1)
    found = line.plan(waits("low", gpus(4), since=NOW - 50), waits("high", gpus(4), priority=5))
    assert found.order == {"high": 0, "low": 1}
    assert found.turns["high"].placed
    assert found.turns["low"].placed is None
    assert found.turns["low"].ahead == 1


def test_whoever_has_less_of_its_share_goes_first() -> None:
    line = Line(hosts=2)
    line.runs("one", 4, project="acme--a")
    found = line.plan(waits("more", gpus(4), since=NOW - 50), waits("first", gpus(4), project="beta--b"))
    assert found.order == {"first": 0, "more": 1}
    heavy = Line(hosts=2, tree={"acme": Share(weight=1000)})
    heavy.runs("one", 4, project="acme--a")
    heavy.runs("two", 1, project="beta--b")
    found = heavy.plan(waits("first", gpus(1), since=NOW - 50), waits("more", gpus(1), project="beta--b"))
    assert found.order == {"first": 0, "more": 1}


def test_tenants_take_turns_and_so_do_their_projects() -> None:
    line = Line(hosts=4)
    flood = [waits(f"f{n}", gpus(1), since=NOW - 100 + n) for n in range(4)]
    others = [waits("o", gpus(1), project="acme--b", since=NOW - 10), waits("t", gpus(1), project="beta--x")]
    found = line.plan(*flood, *others)
    assert list(found.order) == ["f0", "t", "o", "f1", "f2", "f3"]


def test_the_first_who_does_not_fit_has_its_place_kept() -> None:
    line = Line(hosts=1)
    line.runs("long", 2, ends=NOW + 500, project="x--y")
    found = line.plan(
        waits("big", gpus(4), priority=1), waits("small", gpus(1)), waits("brief", gpus(1), ends=NOW + 400)
    )
    kept = found.turns["big"].kept
    assert kept is not None
    assert (kept.start, kept.hosts) == (NOW + 500, ("h0",))
    assert found.turns["big"].expected == NOW + 500
    # Its place would be later: it waits. Who has ended by then goes by.
    assert found.turns["small"].placed is None
    assert found.turns["brief"].placed


def test_what_is_placed_in_the_same_plan_ends_like_any_claim() -> None:
    """Else nothing could be kept for who waits behind it, and who comes later would be told its place."""
    line = Line(hosts=1)
    line.runs("long", 2, ends=NOW + 48)
    waiting = (
        waits("first", gpus(1), since=NOW - 3, ends=NOW + 47),
        waits("big", gpus(4), since=NOW - 2, ends=NOW + 48),
        waits("later", gpus(3), since=NOW - 1, ends=NOW + 27),
    )
    turns = line.plan(*waiting).turns
    assert turns["first"].placed
    assert turns["big"].kept is not None
    assert (turns["big"].expected, turns["later"].expected) == (NOW + 48, NOW + 96)
    assert turns["later"].kept is None


def test_what_the_first_does_not_need_is_anybodys() -> None:
    line = Line(hosts=2)
    line.runs("long", 3, host="h0", ends=NOW + 500)
    line.runs("longer", 3, host="h1", ends=NOW + 900)
    found = line.plan(waits("big", gpus(4), priority=1), waits("small", gpus(1)))
    assert found.turns["big"].kept.hosts == ("h0",)
    assert found.turns["small"].placed.host == "h1"


def test_nobody_knows_when_what_has_no_end_ends() -> None:
    line = Line(hosts=1)
    line.runs("for ever", 4)
    found = line.plan(waits("big", gpus(4)))
    assert found.turns["big"].expected is None
    assert found.turns["big"].kept is None


def test_for_who_is_overdue_a_host_is_drained_though_nobody_knows_how_long_it_takes() -> None:
    line = Line(hosts=2, rules=Rules(patience=100))
    line.runs("one", 1, host="h0")
    line.runs("two", 1, host="h0", first=1)
    line.runs("three", 3, host="h1")
    found = line.plan(waits("big", gpus(4), since=NOW - 100), waits("small", gpus(1), project="beta--x"))
    assert found.turns["big"].kept.hosts == ("h1",)
    assert found.turns["big"].kept.start is None
    assert found.turns["small"].placed.host == "h0"


def test_a_higher_priority_stops_what_costs_least() -> None:
    line = Line(hosts=2)
    line.runs("old", 4, host="h0", since=NOW - 5000, preemptible=True)
    line.runs("young", 4, host="h1", since=NOW - 50, preemptible=True)
    turn = line.plan(waits("high", gpus(2), priority=1)).turns["high"]
    assert turn.victims == ("young",)
    assert turn.expected == NOW + line.rules.grace
    assert turn.kept.hosts == ("h1",)


def test_a_place_is_free_once_what_was_stopped_is_cleared_away() -> None:
    rules = Rules(grace=30, cleared=20)
    line = Line(hosts=2, rules=rules)
    line.runs("told", 4, host="h0", ends=NOW + 45, preemptible=True)
    line.runs("young", 4, host="h1", preemptible=True)
    found = line.plan(waits("high", gpus(4), priority=1), waits("next", gpus(4), priority=1, since=NOW + 1))
    # What was told a while ago is not told for somebody else, and nobody else is while it goes.
    assert (found.turns["high"].victims, found.turns["high"].expected) == ((), NOW + 45)
    assert (found.turns["next"].victims, found.turns["next"].expected) == (("young",), NOW + 50)


def test_what_is_not_preemptible_or_of_equal_priority_is_let_be() -> None:
    line = Line(hosts=2)
    line.runs("kept", 4, host="h0", since=NOW - 5000)
    line.runs("equal", 4, host="h1", since=NOW - 5000, priority=1, preemptible=True)
    assert line.plan(waits("high", gpus(2), priority=1)).turns["high"].victims == ()


def test_nobody_is_stopped_for_what_a_quota_refuses() -> None:
    asks = waits("high", gpus(2), priority=5)
    for owner, most in (("acme--a", 2), ("acme", 2), ("acme", 3)):
        line = Line(hosts=1, tree={owner: Share(bounds={"devices": most * 1000})})
        line.runs("own", 1, project="acme--a", since=NOW - 900)
        line.runs("low", 3, project="beta--b", since=NOW - 900, preemptible=True)
        assert line.plan(asks).turns["high"].victims == (() if most == 2 else ("low",))


def test_for_whom_it_was_in_vain_no_place_is_made_and_no_stop_spent() -> None:
    line = Line(hosts=1, rules=Rules(stops=1, vain=frozenset({"vain"})))
    line.runs("low", 4, preemptible=True)
    found = line.plan(waits("vain", gpus(4), priority=2), waits("high", gpus(4), priority=1)).turns
    assert (found["vain"].victims, found["vain"].kept) == ((), None)
    assert found["high"].victims == ("low",)


def test_nobody_is_stopped_for_another_of_its_own() -> None:
    line = Line(hosts=1)
    line.runs("replica", 4, project="acme--a", since=NOW - 900, preemptible=True, workload="endpoint")
    assert line.plan(waits("endpoint", gpus(4), priority=5)).turns["endpoint"].victims == ()
    assert line.plan(waits("another", gpus(4), priority=5)).turns["another"].victims == ("replica",)


def test_who_leaves_already_is_waited_for() -> None:
    line = Line(hosts=2)
    line.runs("leaving", 4, host="h0", ends=NOW + 20, preemptible=True)
    line.runs("other", 4, host="h1", since=NOW - 50, preemptible=True)
    turn = line.plan(waits("high", gpus(2), priority=1)).turns["high"]
    assert turn.victims == ()
    assert turn.expected == NOW + 20


def test_who_should_have_left_long_ago_is_not_waited_for() -> None:
    line = Line(hosts=2)
    line.runs("stuck", 4, host="h0", ends=NOW - 400)
    line.runs("low", 4, host="h1", since=NOW - 900, preemptible=True)
    assert line.plan(waits("w", gpus(4), priority=1)).turns["w"].victims == ("low",)


def test_an_end_that_is_long_past_is_known_to_nobody() -> None:
    line = Line(hosts=1)
    line.runs("late", 4, ends=NOW - 5)
    assert line.plan(waits("w", gpus(4))).turns["w"].expected == NOW + 1
    stuck = Line(hosts=1)
    stuck.runs("stuck", 2, ends=NOW - 400)
    stuck.runs("other", 2, ends=NOW + 50)
    assert stuck.plan(waits("w", gpus(4))).turns["w"].expected is None
    assert stuck.plan(waits("w", gpus(2))).turns["w"].expected == NOW + 50
    # Who is overdue waits there as for anything of which nobody knows the end.
    found = stuck.plan(waits("w", gpus(4), since=NOW - 700)).turns["w"]
    assert found.kept is not None
    assert (found.kept.hosts, found.expected) == (("h0",), None)


def test_two_do_not_count_on_the_cores_of_one_who_leaves() -> None:
    line = Line(hosts=1)
    wants = Request(tenant="", milli_cores=line.fleet.cores_free[0].max().item(), memory_bytes=GIB, numa="required")
    part = [Allocation(numa_node=n, milli_cores=wants.milli_cores, memory_bytes=GIB) for n in range(2)]
    for number, ends in enumerate((NOW + 20, NOW + 500)):
        line.fleet.hold(f"r{number}", Hold("h0", (), (part[number],), tenure=Tenure(ends=ends)))
    found = line.plan(waits("first", wants, since=NOW - 2), waits("second", wants, since=NOW - 1))
    assert [turn.expected for turn in found.turns.values()] == [NOW + 20, NOW + 500]


def test_a_gang_is_stopped_whole_and_costs_as_much() -> None:
    line = Line(hosts=3)
    for number in range(2):
        line.runs(f"g{number}", 4, host=f"h{number}", since=NOW - 100, preemptible=True, workload="g", gang="g")
    turn = line.plan(waits("high", gpus(4), priority=1)).turns["high"]
    assert turn.placed.host == "h2"
    line.runs("v", 4, host="h2", since=NOW - 150, preemptible=True)
    # Each of the gang alone would cost less.
    assert line.plan(waits("high", gpus(4), priority=1)).turns["high"].victims == ("v",)
    line.runs("v", 4, host="h2", since=NOW - 250, preemptible=True)
    assert line.plan(waits("high", gpus(4), priority=1)).turns["high"].victims == ("g0", "g1")
    gang = line.plan(waits("high", Gang(member=gpus(4), count=2), priority=1)).turns["high"]
    assert gang.victims == ("g0", "g1")


def test_several_of_a_gang_on_one_host_cost_no_more_than_the_gang() -> None:
    line = Line(hosts=2)
    for number in range(4):
        line.runs(f"g{number}", 1, host="h0", first=number, since=NOW - 100, preemptible=True, gang="g")
        line.runs(f"v{number}", 1, host="h1", first=number, since=NOW - 110, preemptible=True)
    assert line.plan(waits("high", gpus(4), priority=1)).turns["high"].victims == ("g0", "g1", "g2", "g3")
    assert line.plan(waits("high", gpus(1), priority=1)).turns["high"].victims == ("v0",)


def test_who_of_a_gang_is_told_takes_the_others_along() -> None:
    line = Line(hosts=2)
    line.runs("g0", 4, host="h0", ends=NOW + 20, gang="g", preemptible=True)
    line.runs("g1", 4, host="h1", gang="g", preemptible=True)
    found = line.plan(waits("a", gpus(4), priority=1), waits("b", gpus(4), priority=1))
    assert [(turn.victims, turn.expected) for turn in found.turns.values()] == [((), NOW + 20), ((), NOW + 30)]


def test_a_stop_that_was_cut_short_goes_on_with_the_same_host() -> None:
    line = Line(hosts=2)
    line.runs("told", 2, host="h0", ends=NOW + 20, since=NOW - 900, preemptible=True)
    line.runs("untold", 2, host="h0", first=2, since=NOW - 900, preemptible=True)
    line.runs("other", 4, host="h1", since=NOW - 1000, preemptible=True)
    assert line.plan(waits("high", gpus(4), priority=1)).turns["high"].victims == ("untold",)


def test_what_is_borrowed_is_given_back_and_no_more() -> None:
    line = Line(hosts=1, gpus=8)
    for number in range(8):
        line.runs(f"b{number}", 1, project="acme--a", since=NOW - 1000 + number, preemptible=True)
    found = line.plan(*(waits(f"w{n}", gpus(1), project="beta--b") for n in range(8)))
    victims = [uid for turn in found.turns.values() for uid in turn.victims]
    assert victims == ["b7", "b6", "b5", "b4"]
    over = Line(hosts=1, gpus=8)
    for number in range(4):
        over.runs(f"b{number}", 1, project="acme--a", since=NOW - 1000, preemptible=True)
        over.runs(f"c{number}", 1, project="beta--b", since=NOW - 1000, preemptible=True)
    assert not over.plan(waits("w", gpus(1), project="beta--b")).turns["w"].victims


def test_what_is_borrowed_runs_for_a_while_first() -> None:
    line = Line(hosts=1)
    line.runs("b", 4, project="acme--a", since=NOW - 200, preemptible=True)
    assert not line.plan(waits("w", gpus(1), project="beta--b")).turns["w"].victims


def test_a_gang_is_planned_whole_and_stops_one_leaf() -> None:
    line = Line(hosts=4)
    for number, ago in enumerate((900, 50, 100, 100)):
        line.runs(f"v{number}", 4, host=f"h{number}", since=NOW - ago, preemptible=True)
    gang = Gang(member=gpus(4), count=2, policy="required")
    turn = line.plan(waits("gang", gang, priority=1)).turns["gang"]
    assert turn.victims == ("v2", "v3")
    assert turn.kept.hosts == ("h2", "h3")


def test_who_goes_for_a_gang_is_found_in_few_questions() -> None:
    line = Line(hosts=32)
    for number in range(128):
        since = NOW - 10 * (number + 1)
        line.runs(f"v{number:03}", 1, host=f"h{number // 4}", first=number % 4, since=since, preemptible=True)
    asked = []
    gang = Gang(member=gpus(4), count=3)
    here = Here(line.fleet)
    place = here.place_gang
    here.place_gang = lambda gang, among=None: asked.append(gang) or place(gang, among)
    found = plan(
        line.book, line.known, places=here, waiting=[waits("g", gang, priority=1)], now=NOW, terms=({}, Rules())
    )
    assert found.turns["g"].victims == tuple(f"v{number:03}" for number in range(12))
    assert len(asked) < 100


def test_a_gang_has_its_hosts_kept_until_they_are_free() -> None:
    line = Line(hosts=4)
    for number, ends in enumerate((100, 400, 300, 200)):
        line.runs(f"r{number}", 3, host=f"h{number}", ends=NOW + ends)
    found = line.plan(waits("gang", Gang(member=gpus(4), count=2, policy="required"), priority=1), waits("s", gpus(1)))
    assert (found.turns["gang"].kept.start, found.turns["gang"].kept.hosts) == (NOW + 300, ("h2", "h3"))
    assert found.turns["s"].placed.host in ("h0", "h1")


def test_the_others_are_told_when_behind_those_before_them() -> None:
    line = Line(hosts=1)
    line.runs("r", 4, ends=NOW + 100)
    some = [waits(f"w{n}", gpus(4), since=NOW - 10 + n, ends=NOW + 60) for n in range(3)]
    assert [turn.expected for turn in line.plan(*some).turns.values()] == [NOW + 100, NOW + 160, NOW + 220]


def test_nobody_is_told_behind_whom_nobody_knows_when_it_starts() -> None:
    line = Line(hosts=1)
    line.runs("for ever", 2)
    line.runs("r", 2, ends=NOW + 100)
    first, *others = (waits(f"w{n}", gpus(2), since=NOW - 10 + n, ends=NOW + 60) for n in range(3))
    big = waits("big", gpus(4), since=NOW - 10)
    known = {first.uid: NOW + 100, others[0].uid: NOW + 160, others[1].uid: NOW + 220}
    found = line.plan(first, *others, waits("last", gpus(4), since=NOW)).turns
    assert {uid: turn.expected for uid, turn in found.items()} == {**known, "last": None}
    found = line.plan(first, big, *others).turns
    assert [found[uid].expected for uid in ("w0", "big", "w1", "w2")] == [NOW + 100, None, None, None]


def test_it_leaves_the_arrays_as_they_were() -> None:
    line = Line(hosts=2)
    line.runs("long", 2, ends=NOW + 500, preemptible=True)
    before = (line.fleet.device_milli.copy(), line.fleet.cores_free.copy(), set(line.fleet.held._by_uid))
    line.plan(*(waits(f"w{n}", gpus(4), priority=n % 2) for n in range(5)))
    assert (line.fleet.device_milli == before[0]).all()
    assert (line.fleet.cores_free == before[1]).all()
    assert set(line.fleet.held._by_uid) == before[2]
