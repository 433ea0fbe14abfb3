"""The demo's account of processes and of money: a process id that is nobody's, or a total that is wrong, fails it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bessemer.agent.fake import fake_drivers
from bessemer.core.clock import FakeClock
from bessemer.core.errors import DriverError
from bessemer.core.resource import Key
from bessemer.drivers.engine.fake import FakeEngine
from bessemer.drivers.engine.protocol import EngineSpec
from bessemer.drivers.process.protocol import End
from bessemer.drivers.qemu.fake import FakeQemu
from bessemer.drivers.qemu.protocol import MachineSpec
from bessemer.kinds.context import HostDrivers
from bessemer.main.demo import checks
from bessemer.main.demo.road import Road
from bessemer.main.factory import Factory
from bessemer.main.settings import Paths, Settings
from bessemer.main.steps import Steps

GUEST, REPLICA = "uid-of-a-guest", "uid-of-a-replica"


def claim(uid: str, pid: int | None, *, kind: str, fake: bool = False) -> dict[str, Any]:
    """A Claim as the api has it."""
    status = {"phase": "Running"} if pid is None else {"phase": "Running", "pid": pid}
    spec = {"workload": {"kind": kind, "name": "x"}, "fake": fake}
    return {"metadata": {"uid": uid, "name": f"{kind.lower()}-x-0"}, "spec": spec, "status": status}


@pytest.fixture
def machine(clock: FakeClock) -> HostDrivers:
    return fake_drivers(0, clock).host


async def a_guest(machine: HostDrivers) -> int:
    spec = MachineSpec(
        uid=GUEST, name="vm", cpus=1, memory_bytes=1 << 28, image=Path("/image"), image_digest="sha256:" + "0" * 64
    )
    return (await machine.qemu.start(spec)).pid


async def an_engine(machine: HostDrivers) -> int:
    spec = EngineSpec(
        uid=REPLICA,
        model_path=Path("/model"),
        alias="smol",
        slots=1,
        context_tokens=512,
        threads=1,
        memory_bytes=1 << 28,
        cores_milli=1000,
        secret="s",
    )
    return (await machine.engine.start(spec)).pid


async def test_a_process_that_lives_and_is_the_claims_is_shown(machine: HostDrivers) -> None:
    guest, engine = await a_guest(machine), await an_engine(machine)
    assert await checks.process_of(machine, claim(GUEST, guest, kind="Instance")) == guest
    assert await checks.process_of(machine, claim(REPLICA, engine, kind="Endpoint")) == engine


async def test_a_process_that_has_ended_fails(machine: HostDrivers) -> None:
    guest, engine = await a_guest(machine), await an_engine(machine)
    assert isinstance(machine.qemu, FakeQemu)
    await machine.qemu.kill(GUEST)
    assert isinstance(machine.engine, FakeEngine)
    await machine.engine.end(REPLICA, End.CRASHED)
    for uid, pid, kind in ((GUEST, guest, "Instance"), (REPLICA, engine, "Endpoint")):
        with pytest.raises(DriverError, match=f"says pid {pid}, the machine says None"):
            await checks.process_of(machine, claim(uid, pid, kind=kind))


@pytest.mark.parametrize("off", [1, None], ids=["another's", "none"])
async def test_a_pid_that_is_not_the_claims_process_fails(machine: HostDrivers, off: int | None) -> None:
    """Neither this very process's nor none at all will do, though the claim's own process lives."""
    told = None if off is None else await a_guest(machine) + off
    await a_guest(machine)
    with pytest.raises(DriverError, match=f"says pid {told}, the machine says Running"):
        await checks.process_of(machine, claim(GUEST, told, kind="Instance"))


async def test_a_claim_of_a_fake_host_fails(machine: HostDrivers) -> None:
    pid = await an_engine(machine)
    with pytest.raises(DriverError, match="endpoint-x-0 is on a fake host"):
        await checks.process_of(machine, claim(REPLICA, pid, kind="Endpoint", fake=True))


class Standing:
    """A machine's drivers, as the demo's stage has them."""

    def __init__(self, host: HostDrivers) -> None:
        self.host = host

    def for_agent(self) -> Standing:
        return self


async def test_what_was_shown_is_looked_at_again_for_the_closing_table(
    machine: HostDrivers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has died since, or another process has its place: the table is not printed."""
    road = Road(Factory(Paths(tmp_path), Settings(), steps=Steps(Console(quiet=True))))
    claims = {"instance-x-0": claim(GUEST, await a_guest(machine), kind="Instance")}

    async def read(key: Key) -> dict[str, Any]:
        return claims[key.name]

    monkeypatch.setattr(road._stage, "drivers", Standing(machine))
    monkeypatch.setattr(road._stage, "read", read)
    shown = await road._pid("instance-x-0")
    await machine.qemu.kill(GUEST)
    with pytest.raises(DriverError, match=f"says pid {shown}, the machine says None"):
        await road._summary()
    claims["instance-x-0"] = claim(GUEST, await a_guest(machine), kind="Instance")
    with pytest.raises(DriverError, match=f"and pid {shown} was shown: it was started anew"):
        await road._summary()


ROW = {
    "id": 1,
    "at": 10,
    "kind": "tokens",
    "workloadKind": "Endpoint",
    "workloadName": "smol",
    "workloadUid": "u",
    "project": "acme--research",
    "model": "smol",
    "requests": 1,
    "outputTokens": 75,
}
LEDGER = {
    "start": 0,
    "end": 60,
    "pricePlan": {"currency": "EUR", "billedStates": [], "rates": {"millionOutputTokens": 200_000}},
    "rows": [ROW],
}


@pytest.fixture
def export(tmp_path: Path) -> Path:
    path = tmp_path / "invoice.json"
    checks.write_export(path, LEDGER)
    return path


def test_a_total_that_a_second_implementation_gets_too_is_shown(export: Path) -> None:
    said = checks.same_total({"currency": "EUR", "totalMicro": 15}, export)
    assert said == "ours EUR 0.000015, theirs EUR 0.000015"


@pytest.mark.parametrize("total", [14, 16, 0])
def test_a_false_total_fails(export: Path, total: int) -> None:
    with pytest.raises(DriverError, match=rf"ours EUR 0\.0000{total:02d}, theirs EUR 0\.000015"):
        checks.same_total({"currency": "EUR", "totalMicro": total}, export)


def test_rows_that_say_something_else_fail(export: Path) -> None:
    checks.write_export(export, {**LEDGER, "rows": [{**ROW, "outputTokens": 80}]})
    with pytest.raises(DriverError, match=r"theirs EUR 0\.000016"):
        checks.same_total({"currency": "EUR", "totalMicro": 15}, export)


def test_an_installation_without_a_checkout_says_so(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "ORACLE", tmp_path / "none.py")
    assert checks.same_total({"currency": "EUR", "totalMicro": 1}, export).endswith("not in this installation")
