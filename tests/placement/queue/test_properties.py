"""What the queue promises, over random fleets, claims and requests; and days of it, second by second."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.core.asking import Decision, Gang, Refusal
from bessemer.core.resource import tenant_of
from bessemer.placement import Hold, decide
from bessemer.placement.facts import Tenure
from bessemer.placement.queue import Book, Pending, Rules, Share
from bessemer.placement.queue.standing import HAIR, Standing, filled
from tests.placement.queue.line import NOW, Line, gpus, waits

PROJECTS = ("acme--a", "acme--b", "beta--x", "corp--y")
LAST = 60
"""Seconds: no claim stands longer."""

projects = st.sampled_from(PROJECTS)
tenures = st.fixed_dictionaries(
    {
        "project": projects,
        "priority": st.integers(0, 2),
        "since": st.integers(NOW - 2000, NOW),
        "ends": st.none() | st.integers(NOW - 5, NOW + 500),
        "preemptible": st.booleans(),
    }
)
wants = st.builds(gpus, st.integers(1, 4)) | st.builds(
    lambda size, count: Gang(member=gpus(size), count=count), st.integers(1, 4), st.integers(2, 3)
)


@st.composite
def lines(draw: Any) -> tuple[Line, list[Pending]]:
    line = Line(hosts=draw(st.integers(1, 4)), rules=Rules(patience=100, depth=draw(st.sampled_from((3, 32)))))
    for number in range(line.hosts):
        free = line.gpus
        for claim in range(draw(st.integers(0, 3))):
            size = draw(st.integers(1, 2))
            if size <= free:
                line.runs(f"r{number}-{claim}", size, host=f"h{number}", first=line.gpus - free, **draw(tenures))
                free -= size
    waiting = []
    for number in range(draw(st.integers(1, 6))):
        asker = {
            "project": draw(projects),
            "priority": draw(st.integers(0, 2)),
            "since": draw(st.integers(NOW - 200, NOW)),
            "ends": draw(st.none() | st.integers(NOW + 1, NOW + 600)),
        }
        waiting.append(waits(f"w{number}", draw(wants), **asker))
    return line, waiting


@settings(max_examples=120, deadline=None)
@given(lines())
def test_nobody_is_stopped_for_an_equal_or_lower_standing(made: tuple[Line, list[Pending]]) -> None:
    line, waiting = made
    found = line.plan(*waiting)
    held = line.running()
    standing = Standing(line.book.used, line.book.total, waiting=waiting, tree={})
    by_uid = {pending.uid: pending for pending in waiting}
    for uid, turn in found.turns.items():
        asker = by_uid[uid].asker
        for victim in turn.victims:
            tenure = held[victim].tenure
            assert tenure.preemptible
            assert tenure.priority <= asker.priority
            if tenure.priority == asker.priority:
                mine, other = tenant_of(asker.project), tenant_of(tenure.project)
                if mine == other:
                    mine, other = asker.project, tenure.project
                assert mine != other
                assert standing.share(mine) <= standing.fair[mine] + HAIR
                assert standing.share(other) > standing.fair[other] + HAIR


@settings(max_examples=120, deadline=None)
@given(lines())
def test_what_is_given_and_stopped_is_enough_and_all_of_it(made: tuple[Line, list[Pending]]) -> None:
    line, waiting = made
    found = line.plan(*waiting)
    by_uid = {pending.uid: pending for pending in waiting}
    taken: set[tuple[str, str]] = set()
    for uid, turn in found.turns.items():
        if turn.placed is not None:
            members = getattr(turn.placed, "members", (turn.placed,))
            assert len(members) == by_uid[uid].count
            devices = {(member.host, device) for member in members for device in member.devices}
            assert len(devices) == by_uid[uid].count * by_uid[uid].member.device_count
            # Two of one plan share a device only where one will have ended before the other comes.
            assert not devices & taken
            taken |= devices
    held = line.running()
    leaving = {uid for uid, hold in held.items() if (hold.tenure.ends or NOW + 99) <= NOW + line.rules.grace}
    for turn in found.turns.values():
        if turn.victims:
            for victim in {*turn.victims, *leaving}:
                line.fleet.drop(victim)
            assert turn.kept is not None
            free = {
                (name, device.id)
                for name in line.fleet.names
                for column, device in enumerate(line.fleet.devices(line.fleet.row(name) or 0))
                if line.fleet.device_milli[line.fleet.row(name) or 0, column] == 1000
            }
            wanted = {(place.host, device) for place in turn.kept.places for device in place.devices}
            assert wanted <= free
            for victim in {*turn.victims, *leaving}:
                line.fleet.hold(victim, held[victim])


@settings(max_examples=60, deadline=None)
@given(lines(), st.randoms(use_true_random=False))
def test_equal_queues_give_equal_plans(made: tuple[Line, list[Pending]], random: Any) -> None:
    line, waiting = made
    first = line.plan(*waiting)
    shuffled = list(waiting)
    random.shuffle(shuffled)
    assert line.plan(*shuffled) == first
    again = Line(hosts=line.hosts, rules=line.rules)
    held = list(line.running().items())
    random.shuffle(held)
    for uid, hold in held:
        again.fleet.hold(uid, hold)
    assert again.plan(*shuffled) == first


@settings(max_examples=120, deadline=None)
@given(lines())
def test_nobody_who_comes_later_delays_a_start_that_was_promised(made: tuple[Line, list[Pending]]) -> None:
    """What ends is gone by the promised start, what was placed meanwhile stands for as long as it may: the place is
    free."""
    line, waiting = made
    found = line.plan(*waiting)
    by_uid = {pending.uid: pending for pending in waiting}
    for uid, turn in found.turns.items():
        kept = turn.kept
        if kept is None or kept.start is None or turn.placed is not None or turn.victims:
            continue
        # Others that are kept a place for later come later.
        sure = Line(hosts=line.hosts)
        for other, hold in line.running().items():
            if hold.tenure.ends is None or hold.tenure.ends > kept.start:
                sure.fleet.hold(other, hold)
        for other, theirs in found.turns.items():
            placed = theirs.placed
            ends = by_uid[other].asker.ends
            if other != uid and placed is not None and (ends is None or ends > kept.start):
                for number, member in enumerate(getattr(placed, "members", (placed,))):
                    sure.fleet.hold(f"{other}/{number}", Hold(member.host, member.devices, member.allocations))
        for place in kept.places:
            row = sure.fleet.row(place.host)
            assert row is not None
            free = {d.id for c, d in enumerate(sure.fleet.devices(row)) if sure.fleet.device_milli[row, c] == 1000}
            assert set(place.devices) <= free


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_who_is_told_starts_no_later(data: Any) -> None:
    """Of one project, where nobody else comes: nothing is kept for them. Sizes mix, of what runs and of what waits; of
    each host a part is taken nobody knows how long, and what else runs ends when it said or sooner."""
    line, over = Line(hosts=data.draw(st.integers(1, 2)), rules=Rules(grace=1)), dict[str, int]()
    for host in range(line.hosts):
        first = 0
        while first < line.gpus:
            size = data.draw(st.integers(1, min(2, line.gpus - first)))
            ends, uid = None if first == 0 else NOW + data.draw(st.integers(2, 20)), f"r{host}-{first}"
            line.runs(uid, size, host=f"h{host}", first=first, ends=ends)
            over[uid] = NOW + data.draw(st.integers(2, 20 if ends is None else ends - NOW))
            first += size
    for number in range(data.draw(st.integers(2, 6))):
        wants, lasts = gpus(data.draw(st.sampled_from((1, 2, 4)))), data.draw(st.integers(1, 30))
        line.joins(waits(f"w{number}", wants, since=NOW - 10 + number, ends=NOW + lasts), lasts=lasts)
    told = {uid: turn.expected for uid, turn in line.plan().turns.items() if turn.kept is None}
    for _ in range(300):
        for uid in [uid for uid, end in over.items() if end <= line.now + 1]:
            line.fleet.drop(uid)
        line.step()
        for uid, pending in line.waiting.items():  # each says anew when it will have ended
            line.waiting[uid] = Pending(replace(pending.asker, ends=line.now + 1 + line.lasts[uid]), pending.wants)
        if not line.waiting:
            break
    assert all(line.took[uid][0] <= at for uid, at in told.items() if at is not None)


# --- fair shares ---


@given(st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.floats(0, 2), st.integers(1, 5)), max_size=6))
def test_shares_are_max_min_and_sum_up(made: dict[str, tuple[float, int]]) -> None:
    wants = {name: want for name, (want, _) in made.items()}
    weights = {name: weight for name, (_, weight) in made.items()}
    shares = filled(1.0, wants, weights=weights)
    assert abs(sum(shares.values()) - min(1.0, sum(wants.values()))) < 1e-9
    for name, share in shares.items():
        assert share <= wants[name] + 1e-12
        # Who wants more has at least as much by weight as anybody.
        if share < wants[name] - 1e-9:
            assert all(share / weights[name] >= other / weights[who] - 1e-9 for who, other in shares.items())


@settings(max_examples=80, deadline=None)
@given(lines())
def test_projects_share_what_their_tenant_may_have(made: tuple[Line, list[Pending]]) -> None:
    line, waiting = made
    line.book.refresh()
    standing = Standing(line.book.used, line.book.total, waiting=waiting, tree={"acme": Share(weight=3)})
    tenants = [name for name in standing.fair if not tenant_of(name)]
    assert sum(standing.fair[name] for name in tenants) <= 1 + 1e-9
    for tenant in tenants:
        parts = [share for name, share in standing.fair.items() if tenant_of(name) == tenant]
        assert sum(parts) <= standing.fair[tenant] + 1e-9


@settings(max_examples=60, deadline=None)
@given(lines())
def test_a_book_that_is_kept_equals_one_that_is_made_anew(made: tuple[Line, list[Pending]]) -> None:
    line, waiting = made
    line.plan(*waiting)
    line.book.refresh()

    fresh = Book(line.fleet)
    fresh.refresh()
    assert (fresh.total, fresh.used) == (line.book.total, line.book.used)
    assert (fresh.ending, fresh.gangs) == (line.book.ending, line.book.gangs)


# --- starvation ---


@settings(max_examples=4, deadline=None)
@given(st.integers(1, 3), st.integers(0, 2), st.integers(1, 4), st.booleans())
def test_nobody_starves_under_an_endless_stream(hosts: int, earlier: int, size: int, ends: bool) -> None:
    """Rivals of a tenant with a hundred times the weight ask for one GPU each, for ever, faster than they end. Whoever
    waits starts after at most ``patience + (1 + n) * LAST``, n being those of its tenant that wait longer."""
    rules = Rules(patience=40)
    line = Line(hosts=hosts, rules=rules, tree={"rival": Share(weight=100)})
    for host in range(hosts):
        for gpu in range(line.gpus):
            line.runs(
                f"r{host}-{gpu}", 1, host=f"h{host}", first=gpu, project="rival--r", ends=NOW + 7 * gpu + host + 1
            )
    for number in range(earlier + 1):
        line.joins(waits(f"mine{number}", gpus(4 if number == earlier else size)), lasts=LAST)
    bound = rules.patience + (1 + earlier) * LAST + 2
    for second in range(bound):
        for number in range(2):
            uid = f"s{second}-{number}"
            until = line.now + 1 + 10 + number if ends else None
            line.joins(waits(uid, gpus(1), project="rival--r", since=line.now, ends=until), lasts=10 + number)
        # Each says anew when it will have ended, were it to start now.
        for uid, pending in list(line.waiting.items()):
            if pending.asker.ends is not None:
                line.waiting[uid] = Pending(replace(pending.asker, ends=line.now + 1 + line.lasts[uid]), pending.wants)
        line.step()
        while len(line.waiting) > 12:  # rivals do not wait for ever; more come
            line.waiting.pop(next(uid for uid in line.waiting if uid.startswith("s")))
        if f"mine{earlier}" in line.took:
            break
    assert f"mine{earlier}" in line.took, "it starved"


def test_without_the_queue_it_would_starve() -> None:
    """The stream of the test above is one that starves: whoever takes what is free leaves never four at once."""
    line = Line(hosts=1)
    for gpu in range(4):
        line.runs(f"r{gpu}", 1, host="h0", first=gpu, ends=NOW + 7 * gpu + 1)
    for second in range(300):
        line.now += 1
        for uid, hold in line.running().items():
            if hold.tenure.ends is not None and hold.tenure.ends <= line.now:
                line.fleet.drop(uid)
        while isinstance(answer := decide(line.fleet, gpus(1)), Decision):
            tenure = Tenure(ends=line.now + 10)
            line.fleet.hold(
                f"s{second}-{answer.devices[0]}", Hold("h0", answer.devices, answer.allocations, tenure=tenure)
            )
        assert isinstance(decide(line.fleet, gpus(4)), Refusal)


def test_what_was_lent_comes_back() -> None:
    """One tenant fills the fleet with what may be stopped; another comes for its half, and has it within the grace."""
    line = Line(hosts=2, rules=Rules(least_run=100))
    for number in range(8):
        line.joins(waits(f"a{number}", gpus(1), project="acme--a", preemptible=True), lasts=10_000)
    line.step()
    assert len(line.took) == 8
    line.now += 200
    came = line.now
    for number in range(8):
        line.joins(waits(f"b{number}", gpus(1), project="beta--b", since=came, preemptible=True), lasts=10_000)
    for _ in range(100):
        for turn in line.plan().turns.values():
            for victim in turn.victims:
                hold = line.running()[victim]

                told = replace(hold, tenure=replace(hold.tenure, ends=line.now + line.rules.grace))
                line.fleet.hold(victim, told)
        line.step()
    theirs = [uid for uid in line.took if uid.startswith("b")]
    assert len(theirs) == 4
    assert all(line.took[uid][0] <= came + 2 * line.rules.grace for uid in theirs)
