"""Which replica answers, as a function of what is known: no gateway, no time that passes."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from bessemer.gateway import prefix
from bessemer.gateway.health import ERRORS_IN_A_ROW, REST_SECONDS
from bessemer.gateway.prefix import HOLDERS_MAX, MARKS_MAX, Trail, marks
from bessemer.gateway.route import FULL, Pool, Replica, Sought


def pool(count: int, *, slots: int = 0) -> Pool:
    made = Pool(slots)
    for number in range(count):
        made.add(Replica(f"r{number}", "h", "https://10.0.0.1:1"))
    return made


def text(*words: int) -> memoryview:
    """Blocks of a kilobyte."""
    return memoryview(b"".join(word.to_bytes(4, "big") * 256 for word in words))


def prompt(*words: int) -> Sought:
    return Sought(marks=marks(text(*words)), cost=256 * len(words))


def chosen(of: Pool, sought: Sought, now: float = 0.0) -> Replica:
    """Who is asked, and has answered at once."""
    there = of.choose(sought, now)
    assert isinstance(there, Replica)
    return there


def test_marks_of_a_longer_text_begin_with_those_of_the_shorter() -> None:
    short, long = marks(text(1, 2, 3)), marks(text(1, 2, 3, 4, 5))
    assert long[: len(short)] == short
    assert marks(text(1, 9, 3))[1:2] == short[1:2], "the first kilobyte is the same"
    assert marks(text(1, 9, 3))[2] != short[2]
    assert marks(text(1, 2), 7)[0] != short[0], "another tenant's"
    assert marks(memoryview(b"x" * 511)) == ()
    assert len(marks(memoryview(bytes(1 << 20)))) == MARKS_MAX


def test_the_turns_of_a_conversation_go_to_one_replica() -> None:
    of = pool(8)
    first = chosen(of, prompt(0, 1, 2))
    for turn in range(3, 12):
        assert chosen(of, prompt(0, *range(1, turn + 1))) is first
    assert of.tally.prefix == 9


def test_what_all_begin_with_ties_nobody() -> None:
    """A beginning that everybody has is known of some replica; what follows it is spread over all."""
    of = pool(8)
    asked = Counter(chosen(of, prompt(0, number, number)).claim_uid for number in range(1, 400))
    assert len(asked) == 8
    assert max(asked.values()) < 120


def test_gateways_that_know_nothing_of_each_other_agree() -> None:
    """On the turns of conversations that begin with what all of them know."""
    ours, other = pool(8), pool(8)
    for one in (ours, other):
        one.choose(prompt(0, 1, 1), 0.0)
        one.choose(prompt(0, 2, 2), 0.0)
    same = 0
    for number in range(10, 110):
        same += chosen(ours, prompt(0, number, 1)).claim_uid == chosen(other, prompt(0, number, 1, 5, 6)).claim_uid
    assert same >= 95


def test_a_session_stays_and_moves_with_its_replica_only() -> None:
    of = pool(8)
    before = {key: chosen(of, Sought(session=key)).claim_uid for key in range(1, 500)}
    assert {chosen(of, Sought(session=1), now).claim_uid for now in (0.0, 5.0)} == {before[1]}
    of.drop("r3")
    after = {key: chosen(of, Sought(session=key)).claim_uid for key in range(1, 500)}
    assert {key for key in before if before[key] != after[key]} == {key for key in before if before[key] == "r3"}


def test_who_has_much_to_do_is_passed_by() -> None:
    of = pool(4)
    first = chosen(of, prompt(*range(20)))
    for _ in range(40):
        of.began(first, 1000)
    assert chosen(of, prompt(*range(20))) is not first
    assert chosen(of, Sought()) is not first


def test_a_prompt_that_is_read_weighs_no_more() -> None:
    of = pool(2)
    one, other = of.replicas.values()
    of.began(one, 100_000)
    of.began(other, 10)
    of.began(other, 10)
    assert chosen(of, Sought()) is other
    one.tokens -= 100_000
    assert chosen(of, Sought()) is one
    of.ended(one, 0, probe=False)
    assert (of.busy, one.busy, one.tokens) == (2, 0, 0)


def test_an_adapter_is_asked_where_it_is() -> None:
    of = pool(8)
    of.replicas["r5"].adapters = frozenset({"poems"})
    assert {chosen(of, Sought(adapter="poems")).claim_uid for _ in range(5)} == {"r5"}
    assert of.choose(Sought(adapter="prose"), 0.0) is None, "whoever has it not would answer without it"
    of.lost(of.replicas["r5"], 0.0)
    assert chosen(of, Sought(adapter="poems")).claim_uid == "r5", "who rests is asked before who has it not"


def test_an_adapter_that_the_busy_have_holds_up_no_line() -> None:
    of = pool(2, slots=1)
    one, other = of.replicas.values()
    one.adapters = frozenset({"poems"})
    of.began(one, 1)
    assert of.choose(Sought(adapter="poems"), 0.0) is one, "beyond its slots: the engine lets it wait"
    of.began(other, 1)
    assert of.choose(Sought(adapter="poems"), 0.0) is FULL
    assert of.choose(Sought(adapter="prose"), 0.0) is None


def test_many_replicas_are_told_apart_by_two() -> None:
    of = pool(64)
    for _ in range(64 * 8):
        of.began(chosen(of, Sought(cost=1)), 1)
    busy = [one.busy for one in of.replicas.values()]
    assert max(busy) <= 12, "of turns by chance alone it would be some 17"


def test_all_slots_busy_is_a_wait_and_a_retry_is_not() -> None:
    of = pool(2, slots=1)
    one, other = of.replicas.values()
    of.began(one, 1)
    assert of.choose(Sought(), 0.0) is other
    of.began(other, 1)
    assert of.choose(Sought(), 0.0) is FULL
    assert not of.room(0.0)
    assert of.choose(Sought(), 0.0, tried=frozenset([one.claim_uid])) is other, "it had its turn"
    of.ended(one, 1, probe=False)
    assert of.room(0.0)
    assert of.choose(Sought(), 0.0) is one
    assert of.choose(Sought(), 0.0, tried=frozenset(of.replicas)) is None
    assert pool(0, slots=1).choose(Sought(), 0.0) is None


# --- health -----------------------------------------------------------------------------------------------------------


def test_a_lost_replica_rests_longer_each_time_and_is_probed_by_one() -> None:
    of = pool(2)
    one, other = of.replicas.values()
    now = 0.0
    for doublings in (0, 1, 2, 3, 4, 5, 5):
        of.lost(one, now)
        rest = REST_SECONDS * 2**doublings
        assert not one.health.ready(now + rest - 0.01)
        now += rest
        assert one.health.ready(now)
    probe = of.began(one, 1)
    assert probe
    assert [chosen(of, Sought(), now) for _ in range(9)] == [other] * 9, "one at a time"
    of.ended(one, 1, probe=probe)
    assert chosen(of, Sought(), now) is one, "it ended without a word: the next may try"
    of.answered(one)
    assert not of.began(one, 1)
    assert one.health.failures == 0


def test_errors_in_a_row_eject_but_never_more_than_half() -> None:
    of = pool(4)
    for one in of.replicas.values():
        for _ in range(ERRORS_IN_A_ROW - 1):
            of.erred(one, 0.0)
    assert of.tally.ejected == 0
    for one in of.replicas.values():
        of.erred(one, 0.0)
    assert of.tally.ejected == 2
    assert sum(one.health.ready(0.0) for one in of.replicas.values()) == 2


def test_an_answer_ends_the_row_of_errors() -> None:
    of = pool(2)
    one = of.replicas["r0"]
    for _ in range(3 * ERRORS_IN_A_ROW):
        of.erred(one, 0.0)
        of.answered(one)
    assert of.tally.ejected == 0


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "end", "lost", "erred", "answered", "leave", "stay", "drop", "add", "later"]),
        st.integers(0, 5),
        st.integers(0, 40),
    ),
    max_size=80,
)


@given(STEPS, st.integers(0, 3))
def test_whoever_is_chosen_is_the_best_that_there_is(steps: list[tuple[str, int, int]], slots: int) -> None:
    """Never one that is ejected or leaving while another is there, never one without a slot; FULL only where none of
    those has one; the sums are right; and at most one probe is under way to each."""
    of, now = pool(3, slots=slots), 0.0
    under: list[tuple[Replica, int, bool]] = []
    for what, number, key in steps:
        uid = f"r{number}"
        there = of.replicas.get(uid)
        match what:
            case "later":
                now += key
            case "add" if there is None:
                of.add(Replica(uid, "h", "https://10.0.0.1:1"))
            case "drop":
                of.drop(uid)
            case "end" if under:
                of.ended(*under[number % len(under)][:2], probe=under.pop(number % len(under))[2])
            case "leave" | "stay" if there is not None:
                there.leaving = what == "leave"
                of.changed()
            case "lost" | "erred" if there is not None:
                getattr(of, what)(there, now)
            case "answered" if there is not None:
                of.answered(there)
            case "ask":
                sought = prompt(0, key, key) if key % 2 else Sought(session=key, cost=3)
                _judge(of, chosen := of.choose(sought, now), now=now)
                if isinstance(chosen, Replica):
                    under.append((chosen, sought.cost, of.began(chosen, sought.cost)))
        assert of.busy == sum(one.busy for one in of.replicas.values())
        for one in of.replicas.values():
            assert sum(probe for other, _, probe in under if other is one) <= 1
            assert one.busy == sum(other is one for other, _, _ in under)
            assert one.tokens == sum(cost for other, cost, _ in under if other is one)


def _judge(of: Pool, chosen: object, *, now: float) -> None:
    ready = [one for one in of.replicas.values() if one.health.ready(now)]
    best = [one for one in ready if not one.leaving] or ready
    if not of.replicas:
        assert chosen is None
    elif chosen is FULL:
        assert of.slots
        assert all(one.busy >= of.slots for one in best)
    else:
        assert isinstance(chosen, Replica)
        assert not best or chosen in best
        assert not of.slots or chosen.busy < of.slots


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 60)), max_size=300))
def test_memory_is_bounded_whatever_is_asked(asked: list[tuple[int, int]]) -> None:
    trail = Trail(most=MARKS_MAX + 10)
    for uid, number in asked:
        sent = marks(text(number % 3, number, uid))
        trail.keep(sent, f"r{uid}")
        depth, holders = trail.find(sent)
        assert depth == len(sent), "what was just sent is known"
        assert holders[-1] == f"r{uid}"
        assert len(set(holders)) == len(holders) <= HOLDERS_MAX
        assert len(trail) <= 2 * trail.most


def test_a_replica_that_is_gone_is_not_found_by_what_it_read() -> None:
    of = pool(3)
    first = chosen(of, prompt(1, 2, 3))
    of.drop(first.claim_uid)
    assert chosen(of, prompt(1, 2, 3)) is not first
    assert prefix.MARKS_KEPT >= MARKS_MAX
