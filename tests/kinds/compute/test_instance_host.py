"""The Instance's host side on a fake host: the way up, what guests do wrong, the way down."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.core.clock import FakeClock, epoch
from bessemer.core.errors import DriverError
from bessemer.core.resource import Done, Fail
from bessemer.core.units import GIB, MIB
from bessemer.core.values import BILLING
from bessemer.drivers.qemu.fake import FakeQemu, Fault
from bessemer.drivers.qemu.protocol import GuestState
from bessemer.kinds.compute.instance.host import BOOTS, InstanceHost, judge, nonce_of
from bessemer.kinds.compute.instance.spec import InstanceIntent
from bessemer.kinds.retry import CALM_SECONDS
from tests.kinds.host_bench import DIGEST, HostBench

INTENT = InstanceIntent(image=DIGEST, cpus=2, memory_bytes=256 * MIB, disk_bytes=GIB, hostname="vm")


@pytest.fixture
def bench() -> HostBench:
    return HostBench(InstanceHost(), INTENT.dump(), kind="Instance")


async def test_it_comes_up_and_says_what_the_guest_said(bench: HostBench) -> None:
    await bench.until_phase("Running")
    assert bench.history == ["Preparing", "Starting", "Running"]
    assert bench.status.detail["guest"]["cpus"] == 2
    assert bench.status.pid == bench.qemu.guests["c-1"].process.pid
    assert bench.disks.sizes == {"c-1": GIB}
    assert bench.content.pins == {"c-1": (DIGEST,)}


async def test_a_second_look_changes_nothing(bench: HostBench) -> None:
    await bench.until_phase("Running")
    before = bench.status
    for _ in range(5):
        outcome = await bench.step()
        assert isinstance(outcome, Done)
    assert bench.status == before
    assert bench.qemu.starts == 1


async def test_a_new_agent_adopts_what_runs(bench: HostBench) -> None:
    await bench.until_phase("Running")
    pid, started = bench.status.pid, bench.status.started_at
    await bench.clock.advance(3600)
    await bench.step()
    assert (bench.status.pid, bench.status.started_at, bench.qemu.starts) == (pid, started, 1)


async def test_an_agent_that_forgot_its_status_finds_the_guest_again(bench: HostBench) -> None:
    await bench.until_phase("Running")
    bench.claim = bench.claim.model_copy(update={"status": type(bench.status)()})
    await bench.until_phase("Running")
    assert bench.qemu.starts == 1


async def test_stop_keeps_the_disk_and_start_finds_it(bench: HostBench) -> None:
    await bench.until_phase("Running")
    bench.amend(running=False)
    await bench.step()
    assert bench.status.phase == "Stopping"
    stopping = bench.step()
    await _with_time(bench.clock, stopping)
    assert bench.status.phase == "Stopped"
    assert bench.status.pid is None
    assert bench.disks.sizes == {"c-1": GIB}
    bench.amend(running=True)
    await bench.until_phase("Running")
    assert bench.qemu.starts == 2
    assert bench.status.restarts == 0


async def test_a_start_that_comes_while_it_stops_finds_it_stopped_as_asked(bench: HostBench) -> None:
    """The agent was at the power button when the new intent came, so that its word on the stop counts no more."""
    await bench.until_phase("Running")
    bench.amend(running=False)
    await bench.step()
    before = bench.claim
    await _with_time(bench.clock, bench.step())
    bench.claim = before
    bench.amend(running=True)
    bench.history.clear()
    await bench.until_phase("Running")
    assert [BILLING[phase] for phase in bench.history] == ["deploying", "deploying", "running"]  # type: ignore[index]
    assert (bench.status.restarts, bench.qemu.starts) == (0, 2)


async def test_a_stop_that_was_begun_is_carried_through_before_the_start(bench: HostBench) -> None:
    """The guest may have heard the power button already, and would die soon as if by itself."""
    await bench.until_phase("Running")
    bench.amend(running=False)
    await bench.step()
    bench.amend(running=True)
    bench.history.clear()
    await _with_time(bench.clock, bench.step())
    assert not await bench.running()
    await bench.until_phase("Running")
    assert bench.history == ["Preparing", "Starting", "Running"]
    assert (bench.status.restarts, bench.qemu.starts) == (0, 2)


async def test_created_stopped_it_starts_nothing(bench: HostBench) -> None:
    bench.amend(running=False)
    await bench.until_phase("Stopped")
    assert bench.qemu.starts == 0


async def test_a_guest_that_dies_is_lost_until_it_runs_again(bench: HostBench) -> None:
    await bench.until_phase("Running")
    bench.history.clear()
    bench.qemu.kill_process("c-1")
    await bench.until_phase("Running")
    assert bench.history == ["Lost", "Starting", "Running"]
    assert [BILLING[phase] for phase in bench.history] == ["lost", "deploying", "running"]  # type: ignore[index]
    assert bench.status.restarts == 1


async def test_a_guest_that_reports_well_and_never_lasts_is_given_up(bench: HostBench) -> None:
    """Else it would hold its place for nothing: what lies between two of its boots is not billed."""
    bench.qemu.faults["*"] = Fault.CRASH
    await bench.until_phase("Stopped")
    assert (bench.status.reason, bench.qemu.starts, await bench.running()) == ("GuestDied", BOOTS, False)
    assert bench.history == [
        "Preparing",
        *["Starting", "Running", "Lost"] * (BOOTS - 1),
        "Starting",
        "Running",
        "Stopped",
    ]
    assert BILLING["Stopped"] == "stopped"
    assert bench.disks.sizes == {"c-1": GIB}
    before = bench.status
    await bench.clock.advance(3600)
    await bench.step()
    assert (bench.status, bench.qemu.starts) == (before, BOOTS)


async def test_a_guest_that_dies_now_and_then_is_started_again_for_ever(bench: HostBench) -> None:
    for deaths in range(1, 3 * BOOTS):
        await bench.until_phase("Running")
        await bench.clock.advance(CALM_SECONDS + 1)
        if deaths % 2:  # whether or not anybody looked at it when it had lasted for long enough
            await bench.step()
        bench.qemu.kill_process("c-1")
        await bench.until_phase("Lost")
        assert bench.status.restarts == deaths
        assert "tries" not in bench.status.detail


async def test_never_restart_means_never(bench: HostBench) -> None:
    bench.amend(restartPolicy="Never")
    await bench.until_phase("Running")
    bench.qemu.kill_process("c-1")
    for _ in range(4):
        outcome = await bench.step()
    assert isinstance(outcome, Done)
    assert (bench.status.phase, bench.status.reason, bench.qemu.starts) == ("Stopped", "GuestDied", 1)
    assert BILLING["Stopped"] == "stopped", "it is as its owner asked, and holds its place"
    bench.amend(running=False)
    await bench.until_phase("Stopped")
    bench.amend(running=True)
    await bench.until_phase("Running")
    assert bench.qemu.starts == 2


@pytest.mark.parametrize(
    ("fault", "reason", "words"),
    [
        (Fault.WRONG_CPUS, "GuestMismatch", "asked for 2 CPUs and 256 MiB, the guest has 3 and 255 MiB"),
        (Fault.WRONG_MEMORY, "GuestMismatch", "the guest has 2 and 128 MiB"),
        (Fault.HUGE_REPORT, "ReportInvalid", "longer than 4096 bytes"),
        (Fault.INVALID_UTF8, "ReportInvalid", "cannot be read"),
        (Fault.OTHER_NONCE, "ReportInvalid", "nonce"),
        (Fault.SILENT, "GuestSilent", "has reported nothing for 180 s"),
        (Fault.CRASH_AT_BOOT, "GuestDied", "does not run any more"),
    ],
)
async def test_a_guest_that_never_reports_well_is_ended_and_given_up(
    bench: HostBench, fault: Fault, reason: str, words: str
) -> None:
    """It is not billed, so it neither runs on nor is started for ever."""
    bench.qemu.faults["*"] = fault
    await bench.until_reason(reason)
    assert (bench.status.phase, await bench.running()) == ("Lost", False)
    assert words in bench.status.message
    await bench.until_phase("Failed")
    assert isinstance(bench.outcome, Fail)
    assert (bench.status.reason, bench.qemu.starts, await bench.running()) == (reason, BOOTS, False)
    assert words in bench.status.message
    assert "it last printed: Fake guest vm boots" in bench.status.message or fault is not Fault.SILENT
    assert {BILLING[phase] for phase in bench.history} == {"deploying", "lost"}  # type: ignore[index]
    before = bench.status
    await bench.clock.advance(3600)
    await bench.step()
    assert (bench.status, bench.qemu.starts) == (before, BOOTS)
    assert isinstance(await bench.remove(), Done)
    assert await bench.residue() == []


async def test_a_guest_that_is_given_up_is_tried_anew_when_it_is_asked_for_again(bench: HostBench) -> None:
    bench.qemu.faults["*"] = Fault.OTHER_NONCE
    await bench.until_phase("Failed")
    bench.qemu.faults.clear()
    bench.amend(running=False)
    bench.amend(running=True)
    await bench.until_phase("Running")
    assert "tries" not in bench.status.detail


async def test_what_has_run_once_keeps_its_disk_when_it_does_not_come_up_any_more(bench: HostBench) -> None:
    """Somebody's data may be on it: it rests as if stopped, and is billed so."""
    await bench.until_phase("Running")
    await bench.clock.advance(CALM_SECONDS + 1)
    bench.qemu.faults["*"] = Fault.SILENT
    bench.qemu.kill_process("c-1")
    await bench.until_phase("Stopped", seconds=900)
    assert (bench.status.reason, bench.qemu.starts, await bench.running()) == ("GuestSilent", 1 + BOOTS, False)
    assert bench.disks.sizes == {"c-1": GIB}
    await bench.step()
    assert (bench.status.phase, bench.status.reason) == ("Stopped", "GuestSilent")
    bench.qemu.faults.clear()
    bench.amend(running=False)
    await bench.until_reason("")
    bench.amend(running=True)
    await bench.until_phase("Running")


@pytest.mark.parametrize("way", ["died", "stopped"])
async def test_what_runs_under_an_older_agents_state_keeps_its_disk(bench: HostBench, way: str) -> None:
    """It did not note that the guest had been good; that the claim is Running says so."""
    await bench.until_phase("Running")
    _of_an_older_agent(bench)
    bench.amend(restartPolicy="Never")
    if way == "stopped":
        bench.amend(running=False)
        await bench.step()
        await _with_time(bench.clock, bench.step())
        bench.amend(running=True)
        bench.qemu.faults["*"] = Fault.CRASH_AT_BOOT
        await bench.until_phase("Starting")
    bench.qemu.kill_process("c-1")
    await bench.step()
    assert (bench.status.phase, bench.status.reason, isinstance(bench.outcome, Done)) == ("Stopped", "GuestDied", True)
    assert bench.disks.sizes == {"c-1": GIB}


async def test_that_a_guest_was_good_is_not_forgotten_while_it_is_lost(bench: HostBench) -> None:
    await bench.until_phase("Running")
    _of_an_older_agent(bench)
    bench.qemu.faults["*"] = Fault.SILENT
    bench.qemu.kill_process("c-1")
    await bench.until_phase("Lost")
    await bench.until_phase("Stopped", seconds=900)
    assert bench.disks.sizes == {"c-1": GIB}


async def test_a_guest_that_comes_up_at_last_has_all_its_tries_again_once_it_has_lasted(bench: HostBench) -> None:
    bench.qemu.faults["*"] = Fault.OTHER_NONCE
    await bench.until(lambda b: b.status.detail.get("tries") == BOOTS - 1)
    bench.qemu.faults.clear()
    await bench.until_phase("Running")
    assert bench.status.detail["tries"] == BOOTS - 1
    await bench.clock.advance(CALM_SECONDS + 1)
    await bench.step()
    assert "tries" not in bench.status.detail


async def test_what_ended_with_its_machine_is_no_try_of_its_own(bench: HostBench) -> None:
    for _ in range(2 * BOOTS):
        await bench.until_phase("Running")
        bench.qemu.kill_process("c-1")
        bench.began = bench.clock.now() + 1.0  # `down`, or power that failed, and an agent that starts anew
        await bench.until_phase("Lost")
    await bench.until_phase("Running")
    assert "tries" not in bench.status.detail


async def test_never_restart_means_one_boot(bench: HostBench) -> None:
    bench.amend(restartPolicy="Never")
    bench.qemu.faults["*"] = Fault.SILENT
    await bench.until_phase("Failed")
    assert (bench.status.reason, bench.qemu.starts) == ("GuestSilent", 1)
    assert "its restart policy is Never" in bench.status.message


@pytest.mark.parametrize("state", [None, GuestState("guest-panicked", 1.0)])
@pytest.mark.parametrize("phase", ["Starting", "Running"])
async def test_a_guest_that_is_over_is_ended_though_its_process_lives(
    bench: HostBench, monkeypatch: pytest.MonkeyPatch, phase: str, state: GuestState | None
) -> None:
    await bench.until_phase(phase)

    async def over(_qemu: FakeQemu, _uid: str) -> GuestState | None:
        return state

    monkeypatch.setattr(FakeQemu, "state", over)
    await bench.step()
    assert (bench.status.phase, bench.status.reason, await bench.running()) == ("Lost", "GuestDied", False)


async def test_a_guest_that_is_busy_is_left_alone(bench: HostBench) -> None:
    bench.qemu.faults["*"] = Fault.UNRESPONSIVE
    await bench.until_phase("Running")
    before = bench.status
    await bench.step()
    assert (bench.status, bench.qemu.starts) == (before, 1)


async def test_a_guest_that_was_started_before_its_agent_ended_has_its_time_from_now(bench: HostBench) -> None:
    await bench.until_phase("Starting")
    pid = bench.status.pid
    bench.claim = bench.claim.model_copy(update={"status": type(bench.status)()})
    await bench.step()
    assert (bench.status.phase, bench.status.pid, bench.qemu.starts) == ("Starting", pid, 1)
    assert epoch(bench.status.started_at or "") == int(bench.clock.now())


@pytest.mark.parametrize(("virtualization", "accel"), [("kvm", "kvm"), ("tcg", "tcg"), ("none", "tcg")])
async def test_it_is_started_as_the_host_can_and_without_a_disk_where_none_is_wanted(
    bench: HostBench, virtualization: str, accel: str
) -> None:
    bench.virtualization = virtualization
    bench.amend(diskBytes=0)
    await bench.until_phase("Running")
    spec = bench.qemu.guests["c-1"].spec
    assert (spec.accel, spec.disks, bench.disks.sizes) == (accel, (), {})


async def test_a_guest_may_take_its_time_to_boot(bench: HostBench) -> None:
    bench.qemu.boot_seconds = 175.0
    await bench.until_phase("Running")
    assert bench.qemu.starts == 1


async def test_with_kvm_it_is_sooner_said_to_be_silent(bench: HostBench) -> None:
    bench.virtualization = "kvm"
    bench.qemu.faults["*"] = Fault.SILENT
    await bench.until_reason("GuestSilent")
    assert 60 < bench.clock.monotonic() < 61


async def test_a_silent_guest_leaves_nothing(bench: HostBench) -> None:
    bench.qemu.faults["*"] = Fault.SILENT
    await bench.until_reason("GuestSilent")
    await bench.remove()
    assert await bench.residue() == []


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault.START_FAILS, "GuestStartFailed"),
        (Fault.IMAGE_CORRUPTED, "DigestMismatch"),
        (Fault.DISK_FULL, "DiskFull"),
        (Fault.OUT_OF_MEMORY, "OutOfMemory"),
    ],
)
async def test_what_the_host_refuses_is_said_and_tried_again(bench: HostBench, fault: Fault, reason: str) -> None:
    bench.qemu.faults["*"] = fault
    await bench.until_reason(reason)
    assert bench.status.phase == "Preparing"
    bench.qemu.faults.clear()
    await bench.until_phase("Running")
    assert bench.status.reason == ""


async def test_a_full_disk_waits_for_space(bench: HostBench) -> None:
    bench.disks.full = True
    await bench.until_reason("DiskFull")
    assert bench.qemu.starts == 0
    bench.disks.full = False
    await bench.until_phase("Running")
    assert bench.status.reason == ""


async def test_a_corrupted_image_is_fetched_anew(bench: HostBench) -> None:
    bench.content.refuse = DriverError("DigestMismatch", "the file holds something else and was removed")
    await bench.until_reason("DigestMismatch")
    bench.content.refuse = None
    await bench.until_phase("Running")
    assert bench.content.fetched[-1] == DIGEST


async def test_what_failed_counts_no_more_after_a_calm_while(bench: HostBench) -> None:
    await bench.until_phase("Running")
    bench.qemu.kill_process("c-1")
    await bench.until_phase("Running")
    assert bench.status.detail["retry"]["failures"] == 1
    await bench.clock.advance(700)
    await bench.step()
    assert "retry" not in bench.status.detail


async def test_a_clock_that_jumps_back_holds_up_no_restart(bench: HostBench) -> None:
    await bench.until_phase("Running")
    bench.qemu.kill_process("c-1")
    await bench.until_phase("Lost")
    bench.clock.jump(-86_400)
    await bench.until_phase("Running", seconds=60)
    assert epoch(bench.status.started_at or "") < bench.clock.now() + 1


async def test_a_clock_that_jumps_while_it_boots_costs_one_try(bench: HostBench) -> None:
    await bench.until_phase("Starting")
    bench.clock.jump(86_400)
    await bench.until_phase("Running")
    assert (bench.status.restarts, bench.qemu.starts) == (1, 2)


async def test_a_clock_that_steps_back_while_it_boots_costs_nothing(bench: HostBench) -> None:
    await bench.until_phase("Starting")
    bench.clock.jump(-86_400)
    await bench.step()
    assert (bench.status.phase, epoch(bench.status.started_at or "")) == ("Starting", int(bench.clock.now()))
    await bench.until_phase("Running")
    assert (bench.status.restarts, bench.qemu.starts) == (0, 1)


async def test_a_silent_guest_has_no_more_time_for_a_clock_that_stepped_back(bench: HostBench) -> None:
    bench.qemu.faults["*"] = Fault.SILENT
    await bench.until_phase("Starting")
    bench.clock.jump(-86_400)
    await bench.until_reason("GuestSilent", seconds=200)
    assert (bench.qemu.starts, await bench.running()) == (1, False)


async def test_it_deletes_cleanly_from_every_phase(bench: HostBench) -> None:
    for _ in range(8):
        await bench.step()
        outcome = await bench.remove()
        assert isinstance(outcome, Done)
        assert await bench.residue() == []
        bench.claim = bench.claim.model_copy(update={"status": bench.status})
        await bench.clock.advance(1)


def test_the_nonce_is_the_claims_own(bench: HostBench) -> None:
    other = HostBench(InstanceHost(), INTENT.dump(), kind="Instance", uid="c-2")
    assert nonce_of(bench.claim) == nonce_of(bench.claim) != nonce_of(other.claim)


def said(**changes: object) -> bytes:
    good = {"nonce": "n", "kernel": "6.1", "cpus": 2, "memoryBytes": 255 * MIB, "addresses": ["10.0.2.15"]}
    return json.dumps({**good, **changes}).encode() + b"\n"


def test_memory_may_fall_short_by_what_the_firmware_keeps_and_never_exceed() -> None:
    for memory, reason in ((256, ""), (252, ""), (251, "GuestMismatch"), (257, "GuestMismatch")):
        assert judge(said(memoryBytes=memory * MIB), INTENT, nonce="n").reason == reason


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 4000 + b"\n",
        b"null\n",
        b"[]\n",
        said() + said(),
        said(cpus="two"),
        said(cpus=10**400),
        said(kernel="\x1b[31mred"),
        said(addresses=["x"] * 100),
        said(uptimeSeconds=float("nan")),
        said(nonce=7),
        b"\n",
    ],
)
def test_hostile_reports_are_invalid(raw: bytes) -> None:
    assert judge(raw, INTENT, nonce="n").reason == "ReportInvalid"


def test_half_a_report_is_none_yet() -> None:
    assert judge(said()[:-1], INTENT, nonce="n").reason == ""
    assert judge(said()[:-1], INTENT, nonce="n").report is None


@given(st.binary(max_size=5000))
def test_no_bytes_make_it_raise(raw: bytes) -> None:
    assert judge(raw, INTENT, nonce="n").reason in ("", "ReportInvalid")


def _of_an_older_agent(bench: HostBench) -> None:
    detail = {name: value for name, value in bench.status.detail.items() if name != "booted"}
    bench.claim = bench.claim.model_copy(update={"status": bench.status.model_copy(update={"detail": detail})})


async def _with_time(clock: FakeClock, work: Awaitable[object]) -> None:
    """Let something run that sleeps on the clock."""
    task = asyncio.ensure_future(work)
    await clock.advance(20)
    await task
