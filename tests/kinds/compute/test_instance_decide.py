"""What comes next for an Instance on its host, and what its claim means to it: every turn of two pure functions."""

from __future__ import annotations

from typing import Any

import pytest

from bessemer.core.resource import Condition, Done, Fail, Metadata, Wait
from bessemer.core.units import GIB, MIB
from bessemer.core.values import ClaimSpec, WorkloadRef
from bessemer.drivers.qemu.protocol import Running
from bessemer.kinds.compute.instance import control, host
from bessemer.kinds.compute.instance.spec import Instance, InstanceIntent, InstanceSpec, InstanceStatus
from bessemer.kinds.fleet.claim import Claim, ClaimStatus
from bessemer.kinds.workload import HostView
from tests.kinds.host_bench import DIGEST

NOW = 1000.0
MINE, OTHER = Running("c-1", 7, 70), Running("c-1", 8, 80)
KNOWN = {"process": host.identity(MINE)}
LATER = {"retry": {"failures": 3, "until": NOW + 2}}
SOON = {"retry": {"failures": 3, "until": NOW - 1}}


def claim(phase: str = "Pending", *, generation: int = 1, running: bool = True, **status: Any) -> Claim:
    intent = InstanceIntent(image=DIGEST, cpus=2, memory_bytes=256 * MIB, disk_bytes=GIB, hostname="vm")
    spec = ClaimSpec(
        host="h1",
        tenant="acme",
        workload=WorkloadRef(kind="Instance", name="vm", uid="w-1"),
        intent=intent.model_copy(update={"running": running}).dump(),
    )
    said = ClaimStatus.model_validate({"phase": phase, "observed_generation": 1, **status})
    return Claim(metadata=Metadata(name="instance-vm-0", uid="c-1", generation=generation), spec=spec, status=said)


TURNS: list[tuple[dict[str, Any], Running | None, host.Step]] = [
    # Wanted, and there is no process.
    ({"phase": "Pending"}, None, "announce"),
    ({"phase": "Preparing"}, None, "start"),
    ({"phase": "Preparing", "detail": LATER}, None, "hold"),
    ({"phase": "Preparing", "detail": SOON}, None, "start"),
    ({"phase": "Lost"}, None, "start"),
    ({"phase": "Lost", "detail": LATER}, None, "hold"),
    ({"phase": "Lost", "detail": {**KNOWN, **LATER}}, None, "ended"),
    ({"phase": "Starting", "detail": KNOWN}, None, "ended"),
    ({"phase": "Running", "detail": KNOWN}, None, "ended"),
    ({"phase": "Stopping", "detail": KNOWN}, None, "announce"),
    ({"phase": "Stopped"}, None, "announce"),
    ({"phase": "Stopped", "detail": LATER}, None, "hold"),
    ({"phase": "Stopped", "reason": "GuestDied"}, None, "remain"),
    ({"phase": "Stopped", "reason": "GuestDied", "detail": LATER}, None, "remain"),
    ({"phase": "Stopped", "reason": "GuestDied", "generation": 2}, None, "announce"),
    ({"phase": "Failed", "reason": "GuestSilent"}, None, "remain"),
    ({"phase": "Failed", "reason": "GuestSilent", "generation": 2}, None, "announce"),
    ({"phase": "Preparing", "reason": "DiskFull"}, None, "start"),
    # Wanted, and there is one.
    ({"phase": "Running", "detail": KNOWN}, MINE, "watch"),
    ({"phase": "Running", "detail": KNOWN}, OTHER, "judge"),
    ({"phase": "Running"}, MINE, "judge"),
    ({"phase": "Starting", "detail": KNOWN}, MINE, "judge"),
    ({"phase": "Failed", "reason": "GuestMismatch", "detail": KNOWN}, MINE, "judge"),
    ({"phase": "Stopping", "detail": KNOWN}, MINE, "stop"),
    # Not wanted.
    ({"phase": "Pending", "running": False}, None, "rest"),
    ({"phase": "Running", "running": False, "detail": KNOWN}, None, "rest"),
    ({"phase": "Stopping", "running": False, "detail": KNOWN}, None, "rest"),
    ({"phase": "Failed", "running": False, "reason": "GuestSilent"}, None, "rest"),
    ({"phase": "Running", "running": False, "detail": KNOWN}, MINE, "announce-stop"),
    ({"phase": "Starting", "running": False, "detail": KNOWN}, MINE, "announce-stop"),
    ({"phase": "Stopping", "running": False, "detail": KNOWN}, MINE, "stop"),
]


@pytest.mark.parametrize(("facts", "process", "step"), TURNS)
def test_what_comes_next(facts: dict[str, Any], process: Running | None, step: host.Step) -> None:
    found = claim(**facts)
    intent = InstanceIntent.model_validate(found.spec.intent)
    assert host.decide(found, intent, process=process, now=NOW) == step


def instance(**spec: Any) -> Instance:
    return Instance(
        metadata=Metadata(name="vm", generation=1),
        spec=InstanceSpec.model_validate({"flavor": "small", "image": "micro", **spec}),
        status=InstanceStatus(remedy="of before", guest=None),
    )


Read = tuple[type, str, str]
FOLDS: list[tuple[dict[str, Any], Read]] = [
    ({"phase": "Pending"}, (Wait, "Preparing", "Placed")),
    ({"phase": "Preparing"}, (Wait, "Preparing", "Preparing")),
    ({"phase": "Preparing", "reason": "DiskFull"}, (Wait, "Preparing", "DiskFull")),
    ({"phase": "Starting"}, (Wait, "Booting", "Booting")),
    ({"phase": "Lost", "reason": "GuestDied"}, (Wait, "Booting", "GuestDied")),
    ({"phase": "Running"}, (Done, "Running", "Ready")),
    ({"phase": "Stopping"}, (Wait, "Stopping", "Stopping")),
    ({"phase": "Stopped"}, (Done, "Stopped", "Stopped")),
    ({"phase": "Stopped", "reason": "GuestSilent"}, (Done, "Stopped", "GuestSilent")),
    ({"phase": "Failed", "reason": "GuestSilent"}, (Fail, "Failed", "GuestSilent")),
    # What a host said of an older intent: that it runs, has stopped or failed is no answer to the newer one.
    ({"phase": "Running", "generation": 2}, (Wait, "Booting", "Booting")),
    ({"phase": "Stopped", "generation": 2}, (Wait, "Booting", "Booting")),
    ({"phase": "Failed", "generation": 2, "reason": "GuestSilent"}, (Wait, "Booting", "Booting")),
    ({"phase": "Starting", "generation": 2}, (Wait, "Booting", "Booting")),
    ({"phase": "Stopping", "generation": 2}, (Wait, "Stopping", "Stopping")),
]


@pytest.mark.parametrize(("facts", "read"), FOLDS)
def test_what_a_claim_means(facts: dict[str, Any], read: Read) -> None:
    outcome = control.fold(instance(), claim(**facts), host=HostView("h1"))
    status = outcome.status
    assert isinstance(status, InstanceStatus)
    assert (type(outcome), status.phase, outcome.reason) == read
    assert (status.claim, status.host, status.remedy) == ("instance-vm-0", "h1", "")
    if isinstance(outcome, Done):
        assert outcome.ready == (status.phase == "Running")
    else:
        assert outcome.message == status.message != ""
        assert outcome.remedy == control.REMEDIES[status.phase]
        assert isinstance(outcome, Fail) or status.phase in control.DEADLINES


@pytest.mark.parametrize("phase", ["Running", "Stopped", "Failed", "Starting"])
def test_of_a_silent_host_nothing_is_believed(phase: str) -> None:
    outcome = control.fold(instance(), claim(phase), host=HostView("h1", reachable=False, message="Host h1 is silent"))
    assert isinstance(outcome.status, InstanceStatus)
    assert (outcome.status.phase, outcome.reason, outcome.message) == ("Unknown", "HostSilent", "Host h1 is silent")


def test_its_words_are_its_hosts() -> None:
    for phase, said, words in (
        ("Lost", {"reason": "GuestDied", "message": "start 2 follows"}, "start 2 follows"),
        ("Starting", {}, "Host h1 has been asked"),
        ("Stopped", {}, "stopped as asked; its disk and place stay"),
        ("Stopped", {"reason": "GuestDied", "message": "it ended"}, "it ended; set running to false and to true again"),
    ):
        outcome = control.fold(instance(), claim(phase, **said), host=HostView("h1"))
        assert outcome.message.startswith(words)


def test_asked_to_stop_it_says_so_at_once() -> None:
    outcome = control.fold(instance(running=False), claim("Running", generation=2), host=HostView("h1"))
    assert isinstance(outcome.status, InstanceStatus)
    assert (outcome.status.phase, outcome.reason) == ("Stopping", "Stopping")


def test_a_note_is_shown_where_all_is_well_and_no_note_outlives_that() -> None:
    for phase, note, shown in (("Running", "gone", "gone"), ("Running", "", ""), ("Stopped", "gone", "gone")):
        outcome = control.fold(instance(), claim(phase), host=HostView("h1"), note=note)
        assert isinstance(outcome.status, InstanceStatus)
        assert outcome.status.message == shown


def test_what_a_host_says_that_a_guest_said_is_shown_only_where_it_can_be_read() -> None:
    good = {"kernel": "6.1", "cpus": 2, "memoryBytes": 1, "addresses": []}
    for guest, shown in ((good, True), ({**good, "cpus": -1}, False), ({**good, "kernel": "\x1b"}, False), (7, False)):
        outcome = control.fold(instance(), claim("Running", detail={"guest": guest}), host=HostView("h1"))
        assert isinstance(outcome.status, InstanceStatus)
        assert (outcome.status.guest is not None) == shown


def test_a_failure_is_said_before_its_place_is_let_go() -> None:
    outcome = control.fold(instance(), claim("Failed", reason="GuestSilent", message="no word"), host=HostView("h1"))
    assert outcome.again == 0.0
    assert outcome.message == "on Host h1: no word"


def test_given_up_it_says_the_same_for_ever() -> None:
    ready = Condition(type="Ready", status="False", reason="GuestSilent", message="x", last_transition_time="t")
    status = InstanceStatus(phase="Failed", message="no word", claim="c", host="h1", conditions=[ready])
    outcome = control._given_up(instance().model_copy(update={"status": status}))
    assert isinstance(outcome, Fail)
    assert (outcome.reason, outcome.message) == ("GuestSilent", "no word")
    assert isinstance(outcome.status, InstanceStatus)
    assert (outcome.status.phase, outcome.status.claim, outcome.status.host) == ("Failed", "", "")
