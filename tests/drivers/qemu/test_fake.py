"""What a fake guest does wrong when it is told to."""

from __future__ import annotations

import json

import pytest

from bessemer.core.errors import DriverError
from bessemer.drivers.qemu.fake import FakeQemu, Fault
from bessemer.drivers.qemu.protocol import REPORT_READ_LIMIT_BYTES
from tests.drivers.qemu.rig import NONCE, FakeRig


async def booted(fault: Fault) -> tuple[FakeRig, FakeQemu, str]:
    rig = FakeRig()
    spec = await rig.spec()
    rig.world.faults[spec.uid] = fault
    qemu = FakeQemu(rig.clock, world=rig.world, disks=rig.store)
    await qemu.start(spec)
    await rig.clock.advance(rig.world.boot_seconds)
    return rig, qemu, spec.uid


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault.START_FAILS, "GuestStartFailed"),
        (Fault.IMAGE_CORRUPTED, "DigestMismatch"),
        (Fault.DISK_FULL, "DiskFull"),
        (Fault.OUT_OF_MEMORY, "OutOfMemory"),
    ],
)
async def test_a_start_is_refused(fault: Fault, reason: str) -> None:
    with pytest.raises(DriverError) as caught:
        await booted(fault)
    assert caught.value.reason == reason


async def test_a_silent_guest_never_reports() -> None:
    rig, qemu, uid = await booted(Fault.SILENT)
    await rig.clock.advance(3600)
    assert await qemu.report(uid) is None
    assert await qemu.find(uid) is not None


@pytest.mark.parametrize("fault", [Fault.CRASH, Fault.CRASH_AT_BOOT])
async def test_a_guest_crashes(fault: Fault) -> None:
    rig, qemu, uid = await booted(fault)
    assert (await qemu.report(uid) is not None) == (fault is Fault.CRASH)
    await rig.clock.advance(1)
    assert await qemu.find(uid) is None
    assert await qemu.last_words(uid)


@pytest.mark.parametrize(
    ("fault", "field"), [(Fault.WRONG_CPUS, "cpus"), (Fault.WRONG_MEMORY, "memoryBytes"), (Fault.OTHER_NONCE, "nonce")]
)
async def test_a_report_lies_in_one_field(fault: Fault, field: str) -> None:
    rig, qemu, uid = await booted(fault)
    spec = rig.world.guests[uid].spec
    said = json.loads(await qemu.report(uid) or b"")
    right = {"cpus": spec.cpus, "memoryBytes": spec.memory_bytes - (1 << 20), "nonce": NONCE}
    assert [name for name, value in right.items() if said[name] != value] == [field]


async def test_a_report_is_bounded_and_may_be_no_text() -> None:
    _, qemu, uid = await booted(Fault.HUGE_REPORT)
    assert len(await qemu.report(uid) or b"") == REPORT_READ_LIMIT_BYTES
    _, qemu, uid = await booted(Fault.INVALID_UTF8)
    with pytest.raises(UnicodeDecodeError):
        (await qemu.report(uid) or b"").decode()


async def test_an_unresponsive_one_says_so() -> None:
    _, qemu, uid = await booted(Fault.UNRESPONSIVE)
    with pytest.raises(DriverError) as caught:
        await qemu.state(uid)
    assert caught.value.reason == "GuestUnresponsive"


async def test_a_deaf_one_ends_after_the_grace() -> None:
    rig, qemu, uid = await booted(Fault.DEAF)
    before = rig.clock.monotonic()
    await rig.during(qemu.shutdown(uid, 30.0))
    assert rig.clock.monotonic() - before >= 30.0
    assert await qemu.find(uid) is None


async def test_each_act_is_announced_before_and_after() -> None:
    rig = FakeRig()
    calls: list[str] = []
    qemu = FakeQemu(rig.clock, world=rig.world, disks=rig.store, on_call=calls.append)
    spec = await rig.spec()
    await qemu.start(spec)
    await rig.during(qemu.shutdown(spec.uid, 5.0))
    await qemu.remove(spec.uid)
    assert calls == [
        "qemu.start",
        "qemu.start.done",
        "qemu.shutdown",
        "qemu.shutdown.done",
        "qemu.remove",
        "qemu.remove.done",
    ]
