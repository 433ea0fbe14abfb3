"""What comes next for a replica on its host, and what replicas mean to their Endpoint: every turn of pure functions."""

from __future__ import annotations

from typing import Any

import pytest

from bessemer.core.asking import ReasonView
from bessemer.core.resource import Done, Metadata, Wait
from bessemer.core.values import ClaimSpec, WorkloadRef
from bessemer.drivers.engine.protocol import RunningEngine
from bessemer.kinds.fleet.claim import Claim, ClaimStatus
from bessemer.kinds.inference.endpoint import control, host
from bessemer.kinds.inference.endpoint.placing import Seen
from bessemer.kinds.inference.endpoint.shift import Bounds, numbers_of, shift
from bessemer.kinds.inference.endpoint.spec import Endpoint, EndpointSpec, EndpointStatus
from bessemer.kinds.turns import Hold
from bessemer.kinds.workload import HostView

NOW = 1000.0
MINE, OTHER = RunningEngine("c-1", 7, 70, "/door"), RunningEngine("c-1", 8, 80, "/door")
KNOWN = {"process": host.identity(MINE)}
LATER = {"retry": {"failures": 3, "until": NOW + 2}}

TURNS: list[tuple[dict[str, Any], RunningEngine | None, host.Step]] = [
    ({"phase": "Pending"}, None, "announce"),
    ({"phase": "Preparing"}, None, "start"),
    ({"phase": "Preparing", "detail": LATER}, None, "hold"),
    ({"phase": "Lost"}, None, "start"),
    ({"phase": "Lost", "detail": {**KNOWN, **LATER}}, None, "ended"),
    ({"phase": "Starting"}, None, "announce"),
    ({"phase": "Starting", "detail": KNOWN}, None, "ended"),
    ({"phase": "Running", "detail": KNOWN}, None, "ended"),
    ({"phase": "Running", "detail": KNOWN}, MINE, "watch"),
    ({"phase": "Running", "detail": KNOWN}, OTHER, "probe"),
    ({"phase": "Running"}, MINE, "probe"),
    ({"phase": "Starting", "detail": KNOWN}, MINE, "probe"),
]


@pytest.mark.parametrize(("status", "engine", "step"), TURNS)
def test_what_comes_next(status: dict[str, Any], engine: RunningEngine | None, step: host.Step) -> None:
    assert host.decide(ClaimStatus.model_validate(status), engine, now=NOW) == step


def claim(replica: int, phase: str, **status: Any) -> Claim:
    ending = status.pop("ending", None)
    spec = ClaimSpec(
        host=status.pop("host", "h1"),
        tenant="acme",
        workload=WorkloadRef(kind="Endpoint", name="chat", uid="w-1", replica=replica),
        flavor="serve",
        intent={"model": "d", "alias": "chat", "slots": 4, "contextTokens": 2048, "coresMilli": 1, "memoryBytes": 1},
    )
    metadata = Metadata(name=f"endpoint-chat-{replica}", uid=f"c-{replica}", deletion_timestamp=ending)
    return Claim(metadata=metadata, spec=spec, status=ClaimStatus.model_validate({"phase": phase, **status}))


def endpoint(replicas: int) -> Endpoint:
    spec = EndpointSpec.model_validate({"model": "smol", "flavor": "serve", "replicas": replicas})
    return Endpoint(metadata=Metadata(name="chat"), spec=spec, status=EndpointStatus(message="of before"))


HOSTS = {"h1": HostView("h1"), "h2": HostView("h2", reachable=False, message="Host h2 is silent")}
ROOM = ReasonView(code="Room", hosts=3, text="short of 2 cores")
NO_PLACE = Hold("Unschedulable", "no host has room", remedy="a smaller flavor", waiting={"reasons": [ROOM]})
UP, COMING, DEAD = ("Running", {}), ("Starting", {"reason": "EngineStarting"}), ("Failed", {"reason": "KindUnknown"})
LOST, AWAY = ("Lost", {"reason": "EngineExited"}), ("Running", {"host": "h2"})
TAKEN, PREPARING = ("Pending", {}), ("Preparing", {})
ENDING = ("Running", {"ending": "2025-06-15T15:06:40Z"})

Read = tuple[type, str, str, int]
FOLDS: list[tuple[int, list[tuple[str, dict[str, Any]]], Hold | None, Read]] = [
    (0, [], None, (Done, "Stopped", "Stopped", 0)),
    (0, [UP], None, (Done, "Stopped", "Stopped", 0)),
    (1, [UP], None, (Done, "Ready", "Ready", 1)),
    (1, [UP, UP], None, (Done, "Ready", "Ready", 1)),
    (2, [UP, UP], None, (Done, "Ready", "Ready", 2)),
    (1, [], NO_PLACE, (Wait, "Pending", "Unschedulable", 0)),
    (1, [COMING], None, (Wait, "Starting", "EngineStarting", 0)),
    (2, [UP, COMING], None, (Wait, "Starting", "Starting", 1)),
    (2, [UP, TAKEN], None, (Wait, "Starting", "Starting", 1)),
    (2, [UP, PREPARING], None, (Wait, "Starting", "Starting", 1)),
    (2, [UP], NO_PLACE, (Wait, "Degraded", "Degraded", 1)),
    (2, [UP, LOST], None, (Wait, "Degraded", "Degraded", 1)),
    (2, [UP, AWAY], None, (Wait, "Degraded", "Degraded", 1)),
    (2, [UP, ENDING], None, (Wait, "Degraded", "Degraded", 1)),
    (2, [AWAY, AWAY], None, (Wait, "Unknown", "HostSilent", 0)),
    (2, [AWAY, COMING], None, (Wait, "Starting", "HostSilent", 0)),
    (2, [DEAD, DEAD], None, (Wait, "Failed", "KindUnknown", 0)),
    (2, [DEAD, COMING], None, (Wait, "Starting", "KindUnknown", 0)),
    (1, [LOST], None, (Wait, "Starting", "EngineExited", 0)),
]


@pytest.mark.parametrize(("wanted", "replicas", "hold", "read"), FOLDS)
def test_what_replicas_mean(
    wanted: int, replicas: list[tuple[str, dict[str, Any]]], hold: Hold | None, read: Read
) -> None:
    claims = [claim(number, phase, **facts) for number, (phase, facts) in enumerate(replicas)]
    outcome = control.fold(endpoint(wanted), Seen(claims, HOSTS, hold))
    status = outcome.status
    assert isinstance(status, EndpointStatus)
    assert (type(outcome), status.phase, outcome.reason, status.ready_replicas) == read
    assert status.wanted_replicas == wanted
    assert status.reasons == ([ROOM] if hold else [])
    if isinstance(outcome, Done):
        assert outcome.ready == (status.phase == "Ready")
        assert (status.message != "") == (len(replicas) > wanted)
    else:
        assert status.message == outcome.message
        assert outcome.message.startswith(f"{read[3]} of {wanted} replicas answer: ")
        assert outcome.again == (hold.again if hold else 30.0)
        assert outcome.remedy == (hold.remedy if hold else control.REMEDIES[status.phase]) != ""
        assert status.phase in control.DEADLINES


def test_the_first_replica_that_says_something_speaks_for_all() -> None:
    claims = [claim(0, "Running"), claim(1, "Lost", reason="EngineExited", message="it crashed"), claim(2, "Starting")]
    outcome = control.fold(endpoint(3), Seen(claims, HOSTS))
    assert outcome.message == "1 of 3 replicas answer: replica 1: it crashed"


@pytest.mark.parametrize(
    ("phases", "moved", "said"),
    [
        (["Running", "Running"], 0, "1 replica is leaving"),
        (["Running", "Running", "Running"], 0, "2 replicas are leaving"),
        (["Running", "Starting"], 1, "1 replica goes once another answers"),
        (["Running", "Running", "Starting"], 1, "1 replica goes once another answers; 1 replica is leaving"),
    ],
)
def test_of_more_than_are_wanted_it_says_who_goes_and_who_goes_later(phases: list[str], moved: int, said: str) -> None:
    claims = [claim(number, phase) for number, phase in enumerate(phases)]
    outcome = control.fold(endpoint(1), Seen(claims, HOSTS, moved=claims[:moved]))
    assert isinstance(outcome.status, EndpointStatus)
    assert outcome.status.message == said


def test_while_none_says_anything_the_engines_load() -> None:
    outcome = control.fold(endpoint(1), Seen([claim(0, "Starting")], HOSTS))
    assert (outcome.reason, outcome.message) == ("Starting", "0 of 1 replicas answer: the engines load the model")


def test_a_replica_that_is_cleared_away_counts_no_more_and_says_so() -> None:
    for said, read in (({}, ("Stopping", "it is being cleared away")), ({"reason": "R", "message": "m"}, ("R", "m"))):
        ending = claim(0, "Running", ending="2025-06-15T15:06:40Z", **said)
        outcome = control.fold(endpoint(1), Seen([ending], HOSTS))
        assert isinstance(outcome.status, EndpointStatus)
        (replica,) = outcome.status.replicas
        assert (replica.phase, replica.ready) == ("Stopping", False)
        assert (replica.reason, replica.message) == read


def test_new_replicas_have_the_lowest_numbers_that_nobody_has() -> None:
    assert numbers_of({1, 5}, count=3) == [0, 2, 3]
    assert numbers_of(frozenset(), count=0) == []
    assert numbers_of({0}, count=-1) == []


SHIFTS: list[tuple[int, list[str], set[int], tuple[list[int], list[int], list[int]]]] = [
    # wanted, phases of those that stand, which are moved; who stays, who stays until another answers, for whom one does
    (2, ["Running", "Running"], set(), ([0, 1], [], [])),
    (1, ["Running", "Running"], set(), ([0], [], [])),
    (0, ["Running"], set(), ([], [], [])),
    (2, ["Running", "Running"], {0}, ([1], [0], [])),
    (2, ["Running", "Running", "Starting"], {0}, ([1, 2], [0], [])),
    (2, ["Running", "Running", "Running"], {0}, ([1, 2], [], [0])),
    (2, ["Running", "Running", "Running"], {0, 1}, ([2], [0], [1])),
    (2, ["Running", "Running"], {0, 1}, ([], [0, 1], [])),
    (1, ["Running", "Running"], {0}, ([1], [], [0])),
    (0, ["Running"], {0}, ([], [], [0])),
    # One that came in vain goes before one that answers, whatever its number; else the highest goes.
    (2, ["Running", "Starting", "Running"], set(), ([0, 2], [], [])),
    (1, ["Failed", "Running"], set(), ([1], [], [])),
    (1, ["Starting", "Starting"], set(), ([0], [], [])),
]


@pytest.mark.parametrize(("wanted", "phases", "moved", "read"), SHIFTS)
def test_who_is_moved_stays_until_as_many_answer_without_it(
    wanted: int, phases: list[str], moved: set[int], read: tuple[list[int], list[int], list[int]]
) -> None:
    claims = [claim(number, phase) for number, phase in enumerate(phases)]
    found = shift(claims[::-1], bounds=Bounds(wanted), moved={f"c-{number}" for number in moved})
    parts = (found.staying, found.moved, found.relieved)
    assert tuple([one.spec.workload.replica for one in some] for some in parts) == read


def test_one_whose_host_is_silent_answers_in_nobodys_place() -> None:
    claims = [claim(0, "Running"), claim(1, "Running")]
    found = shift(claims, bounds=Bounds(1), moved={"c-0"}, silent={"c-1"})
    assert (found.staying, found.moved, found.relieved) == ([claims[1]], [claims[0]], [])
    assert shift(claims, bounds=Bounds(1), moved=set(), silent={"c-0"}).staying == [claims[1]]


def test_it_is_fake_where_one_replica_is() -> None:
    real, fake = claim(0, "Running"), claim(1, "Running")
    fake = fake.model_copy(update={"spec": fake.spec.model_copy(update={"fake": True})})
    for claims, said in (([real], False), ([real, fake], True)):
        outcome = control.fold(endpoint(len(claims)), Seen(claims, HOSTS))
        assert isinstance(outcome.status, EndpointStatus)
        assert outcome.status.fake is said
