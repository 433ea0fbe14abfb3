"""Traces are read or refused by the line, and a replica is as fast as its figures say."""

from __future__ import annotations

import math

import pytest

from bessemer.core.errors import Invalid
from bessemer.kinds.inference.replay import (
    PEERS,
    PRESETS,
    Asked,
    Case,
    Replayed,
    Speed,
    figures,
    read,
    replay,
    thickened,
)
from bessemer.kinds.inference.replay.peers import Fixed, Knative, Waiting
from bessemer.kinds.inference.replay.replica import Replica, Request
from bessemer.kinds.inference.scaling import Scale, Sight
from tests.kinds.inference.traces import chat

HEAD = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
SPEED = Speed(reading=10_000.0, alone=0.02, batch=0.001, slots=4, start_seconds=30.0, devices=2)


def test_both_forms_are_read_in_order_and_from_the_first() -> None:
    csv = [HEAD, "2023-11-16 18:15:50.9951690,396,109\n", "2023-11-16 18:15:46.6805900,374,44\n", "\n"]
    first, second = read(csv, file="a.csv")
    assert (first.at, first.reads, first.writes) == (0.0, 374, 44)
    assert second.at == pytest.approx(4.314579, abs=1e-5)
    lines = ['{"timestamp": 1500, "input_length": 7, "output_length": 0, "hash_ids": [1]}\n']
    lines.insert(0, '{"timestamp": 500, "input_length": 6758, "output_length": 500}\n')
    assert read(lines, file="b.jsonl") == [Asked(0.0, 6758, 500), Asked(1.0, 7, 1)]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "the file is empty"),
        ([HEAD], "there is no request in it"),
        (["when,in,out\n", "1,2,3\n"], "it lacks the columns TIMESTAMP, ContextTokens, GeneratedTokens"),
        ([HEAD, "2023-11-16 18:15:50,396\n"], "line 2: it has 2 columns, and the first line names 3"),
        ([HEAD, "yesterday,396,4\n"], "line 2: 'yesterday' is no time, as in 2023-11-16 18:15:46.6805900"),
        ([HEAD, "2023-11-16 18:15:50,many,4\n"], "line 2: 'many' is no number of tokens"),
        ([HEAD, "2023-11-16 18:15:50,-1,4\n"], "line 2: '-1' is no number of tokens"),
        (['{"timestamp": 1}\n'], "line 1: a request has timestamp, input_length, output_length"),
        (['{"timestamp": 1\n'], "line 1: this is no JSON"),
        (['{"timestamp": "x", "input_length": 1, "output_length": 1}\n'], "timestamp is milliseconds, not 'x'"),
        (['{"timestamp": 1, "input_length": true, "output_length": 1}\n'], "line 1: 'True' is no number of tokens"),
    ],
)
def test_what_makes_no_sense_is_named_by_its_line(lines: list[str], words: str) -> None:
    with pytest.raises(Invalid) as raised:
        read(lines, file="trace")
    assert words in str(raised.value)


def test_more_of_the_same_people_ask_about_when_the_first_did() -> None:
    asked = [Asked(float(at), at, at) for at in range(100)]
    many = thickened(asked, 3)
    assert (len(many), thickened(asked, 1), many) == (300, asked, sorted(many, key=lambda one: one.at))
    assert sorted(one.reads for one in many) == sorted(3 * list(range(100)))
    assert all(abs(one.at - one.reads) <= 15 for one in many)
    assert many == thickened(asked, 3)


def test_a_replica_reads_then_writes_a_token_at_each_step() -> None:
    replica, request = Replica(SPEED, 0.0, 0.0), Request(Asked(0.0, 1000, 11))
    replica.take(request, 0.0)
    replica.advance(100.0)
    assert request.first == pytest.approx(0.02 + 0.001 + 1000 / 10_000)
    assert request.pace == pytest.approx(0.021)
    assert (replica.busy, [request]) == (0, replica.ended)


def test_those_that_run_together_slow_each_other_and_wait_for_prompts() -> None:
    replica = Replica(SPEED, 0.0, 0.0)
    first, second = Request(Asked(0.0, 100, 101)), Request(Asked(1.0, 4096, 101))
    replica.take(first, 0.0)
    replica.advance(1.0)
    replica.take(second, 1.0)
    replica.advance(100.0)
    # Two steps read 2,048 tokens each, and both are steps of the first, too.
    assert second.first - 1.0 == pytest.approx(2 * 0.021 + 0.4096 + 0.001, abs=0.025)
    assert second.pace == pytest.approx(0.0215, abs=0.001)
    alone = 100 * 0.021
    assert first.done - first.first == pytest.approx(alone + 0.4096 + 0.001 * 53, abs=0.05)


def test_time_is_cut_in_any_pieces() -> None:
    whole, cut = Replica(SPEED, 0.0, 0.0), Replica(SPEED, 0.0, 0.0)
    for replica, step in ((whole, 50.0), (cut, 0.0137)):
        for request in (Request(Asked(0.0, 300, 40)), Request(Asked(0.0, 5000, 90))):
            replica.take(request, 0.0)
        at = 0.0
        while replica.busy:
            at += step
            replica.advance(at)
    assert [one.done for one in whole.ended] == pytest.approx([one.done for one in cut.ended])


def test_all_are_answered_and_all_replicas_are_paid_for() -> None:
    asked = chat(seconds=300, a_second=2)
    case = Case(SPEED, Scale(min=1, max=10), first=10)
    found = figures(Replayed("fixed", replay(asked, Fixed(case), case=case), case))
    assert (found["requests"], found["unanswered"], found["scaled"]) == (len(asked), 0, 0)
    assert found["device_hours"] == pytest.approx(10 * 2 * 300 / 3600, rel=0.15)
    assert found["attained_percent"] == 100.0, "nothing is asked of it"
    assert found["ttft_ms"]["p50"] < found["ttft_ms"]["p99"]


def test_one_that_starts_answers_nothing_and_is_paid_for() -> None:
    asked = [Asked(0.0, 100, 2), Asked(100.0, 100, 2)]
    case = Case(SPEED, Scale(min=1, max=2), first=0)
    course = replay(asked, Fixed(Case(SPEED, Scale(min=1, max=1))), case=case)
    assert course.requests[0].first == pytest.approx(2.0 + 30.0 + 0.031, abs=0.05), "a look, and a start"
    assert course.replica_seconds == pytest.approx(100.0, abs=5.0)


def test_knative_panics_at_twice_what_is_there_and_does_not_go_down_meanwhile() -> None:
    case = Case(SPEED, Scale(min=1, max=100))
    policy = Knative(case, target=2.0)
    wanted = [policy.decide(Sight(at=2.0 * n, busy=2, ready=1), present=1).replicas for n in range(30)]
    assert set(wanted) == {1}
    rush = [policy.decide(Sight(at=60.0 + 2 * n, busy=40, ready=1), present=1).replicas for n in range(3)]
    assert rush[-1] == 20
    after = [policy.decide(Sight(at=66.0 + 2 * n, busy=2, ready=20), present=20).replicas for n in range(60)]
    assert (after[0], after[10], after[-1]) == (20, 20, 10), "and then at most by half at a time"


def test_by_who_waits_it_rises_in_steps_and_falls_to_the_most_of_five_minutes() -> None:
    case = Case(SPEED, Scale(min=1, max=100))
    policy, present, seen = Waiting(case, target=5.0), 1, []
    for number in range(40):
        waiting = 100.0 if number < 4 else 0.0
        present = policy.decide(Sight(at=15.0 * number, waiting=waiting, ready=present), present=present).replicas
        seen.append(present)
    assert seen[:3] == [5, 10, 20]
    assert seen[22] == 20
    assert seen[-1] == 1


def test_replicas_that_are_known_say_where_that_is_from() -> None:
    assert set(PEERS) == {"knative", "waiting", "fixed"}
    for speed in PRESETS.values():
        assert "roofline" in speed.source
        assert math.isclose(speed.alone * speed.reading, PRESETS["8b"].alone * PRESETS["8b"].reading, rel_tol=1e-6)
