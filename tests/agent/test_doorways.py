"""Doorways follow the engines: open once they answer, open again after a restart, shut before they end."""

from __future__ import annotations

from pathlib import Path

import pytest

from bessemer.agent.doorways import OpenEngine
from bessemer.core.clock import FakeClock
from bessemer.core.errors import DriverError
from bessemer.drivers.engine.fake import FakeEngine
from bessemer.drivers.engine.protocol import EngineSpec, Listen
from bessemer.drivers.process.protocol import End

LISTEN = Listen("192.0.2.7", 0, Path("crt"), Path("key"), Path("ca"))
SPEC = EngineSpec("uid-1", Path("/fake/model"), "chat", 1, 1024, 1, 1 << 29, 1000, "s3cret")


class FakeDoorway:
    """Addresses by uid, while its engine runs."""

    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine
        self.opened: dict[str, str] = {}
        self.refuse: DriverError | None = None

    async def open(self, uid: str, listen: Listen) -> str:
        if self.refuse is not None:
            raise self.refuse
        if await self._engine.find(uid) is None:
            raise DriverError("EngineExited", "no engine runs")
        return self.opened.setdefault(uid, f"{listen.host}:{4000 + len(self.opened)}")

    async def find(self, uid: str) -> str | None:
        return self.opened.get(uid)

    async def close(self, uid: str) -> None:
        self.opened.pop(uid, None)


@pytest.fixture
def engine(clock: FakeClock) -> FakeEngine:
    return FakeEngine(clock)


@pytest.fixture
def doorway(engine: FakeEngine) -> FakeDoorway:
    return FakeDoorway(engine)


async def test_opens_with_the_first_answer_and_shuts_with_the_engine(
    engine: FakeEngine, doorway: FakeDoorway, clock: FakeClock
) -> None:
    kept = OpenEngine(engine, doorway, listen=lambda: LISTEN)
    await kept.start(SPEC)
    assert kept.advertise("uid-1", "/door") == ""
    await clock.advance(5)
    await kept.probe("uid-1", "s3cret")
    assert kept.advertise("uid-1", "/door") == "https://192.0.2.7:4000"
    await kept.stop("uid-1")
    assert doorway.opened == {}
    assert kept.advertise("uid-1", "/door") == ""


async def test_an_agent_that_begins_anew_finds_it_by_looking(
    engine: FakeEngine, doorway: FakeDoorway, clock: FakeClock
) -> None:
    await OpenEngine(engine, doorway, listen=lambda: LISTEN).start(SPEC)
    again = OpenEngine(engine, doorway, listen=lambda: LISTEN)
    found = await again.find("uid-1")
    assert found is not None
    assert again.advertise("uid-1", found.door).startswith("https://")


async def test_a_doorway_that_cannot_be_opened_is_no_address(engine: FakeEngine, doorway: FakeDoorway) -> None:
    kept = OpenEngine(engine, doorway, listen=lambda: LISTEN)
    await kept.start(SPEC)
    doorway.refuse = DriverError("PortTaken", "the port is in use")
    assert await kept.find("uid-1") is not None, "the engine runs all the same"
    assert kept.advertise("uid-1", "/door") == ""
    doorway.refuse = None
    await kept.find("uid-1")
    assert kept.advertise("uid-1", "/door") == "https://192.0.2.7:4000"


async def test_all_else_is_the_engine_s_own(engine: FakeEngine, doorway: FakeDoorway, clock: FakeClock) -> None:
    kept = OpenEngine(engine, doorway, listen=lambda: LISTEN)
    await kept.start(SPEC)
    await clock.advance(5)
    assert await kept.running() == await engine.running()
    assert await kept.stats("uid-1") == await engine.stats("uid-1")
    assert await kept.metrics("uid-1", "s3cret") == await engine.metrics("uid-1", "s3cret")
    assert kept.door("uid-1") == engine.door("uid-1")
    assert b"".join([part async for part in kept.log("uid-1")])
    await engine.end("uid-1", End.CRASHED)
    assert await kept.ended("uid-1") == await engine.ended("uid-1")
