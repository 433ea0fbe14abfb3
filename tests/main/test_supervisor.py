"""The supervisor on a clock that stands: starts, adoption, backoff."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from rich.console import Console

from bessemer.core.clock import FakeClock
from bessemer.core.errors import DriverError, Invalid
from bessemer.drivers.process.fake import FakeParts
from bessemer.drivers.process.protocol import Command, Part
from bessemer.main import up
from bessemer.main.factory import Factory
from bessemer.main.part import main as part
from bessemer.main.parts import AGENT, CONTROL, ORDER, command
from bessemer.main.settings import Paths, Settings
from bessemer.main.steps import Steps
from bessemer.main.supervisor import LOOK_SECONDS, Standing, Supervisor

PATHS = Paths(Path("/var/lib/bessemer"))


class Parts(FakeParts):
    """Fake parts that may refuse to start, and remember in which order they were stopped."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.refuse: DriverError | None = None
        self.stopped: list[str] = []

    async def start(self, command: Command) -> Part:
        if self.refuse is not None:
            raise self.refuse
        return await super().start(command)

    async def stop(self, part: Part, *, grace_seconds: float = 5.0) -> None:
        self.stopped.append(self.commands[part].name)
        await super().stop(part, grace_seconds=grace_seconds)


@pytest.fixture
def parts(clock: FakeClock) -> Parts:
    return Parts(clock)


@pytest.fixture
def supervisor(parts: Parts, clock: FakeClock) -> Supervisor:
    return Supervisor(parts, clock)


def test_a_marker_names_one_part_of_one_state_directory() -> None:
    markers = [command(PATHS, name).marker for name in ORDER]
    assert len(set(markers)) == len(ORDER)
    for name in ORDER:
        made = command(PATHS, name)
        assert " ".join(made.argv).endswith(made.marker)
        assert made.marker.endswith("--state /var/lib/bessemer")
        others = [" ".join(command(PATHS, other).argv) for other in ORDER if other != name]
        assert not any(f" {made.marker} " in f" {line} " for line in others), f"{name} would be taken for another"


async def test_starts_what_is_not_there_and_adopts_what_is(
    parts: Parts, supervisor: Supervisor, clock: FakeClock
) -> None:
    first = await supervisor.start(command(PATHS, CONTROL))
    another = Supervisor(parts, clock)
    assert await another.start(command(PATHS, CONTROL)) == first
    assert list(await another.check()) == []
    assert await parts.find(command(PATHS, CONTROL).marker) == (first,)


async def test_another_state_directory_is_another_part(supervisor: Supervisor) -> None:
    first = await supervisor.start(command(PATHS, CONTROL))
    second = await supervisor.start(command(Paths(Path("/var/lib/other")), CONTROL))
    assert first != second


async def test_restarts_what_died_after_half_a_second_then_waits_longer_each_time(
    parts: Parts, supervisor: Supervisor, clock: FakeClock
) -> None:
    part = await supervisor.start(command(PATHS, AGENT))
    waits = []
    for _ in range(9):
        parts.die(part)
        began = clock.monotonic()
        while await supervisor.check():
            await clock.advance(0.5)
        waits.append(clock.monotonic() - began)
        (part,) = await parts.find(command(PATHS, AGENT).marker)
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert supervisor.failures(AGENT) == 9


async def test_one_that_lived_for_a_minute_begins_anew(parts: Parts, supervisor: Supervisor, clock: FakeClock) -> None:
    part = await supervisor.start(command(PATHS, AGENT))
    for _ in range(3):
        parts.die(part)
        while await supervisor.check():
            await clock.advance(0.5)
        (part,) = await parts.find(command(PATHS, AGENT).marker)
    assert supervisor.failures(AGENT) == 3
    await clock.advance(61)
    parts.die(part)
    assert list(await supervisor.check()) == [AGENT]
    assert supervisor.failures(AGENT) == 1


async def test_one_death_keeps_no_other_part_waiting(parts: Parts, supervisor: Supervisor, clock: FakeClock) -> None:
    for name in (CONTROL, AGENT):
        await supervisor.start(command(PATHS, name))
    (dead,) = await parts.find(command(PATHS, AGENT).marker)
    parts.die(dead)
    assert list(await supervisor.check()) == [AGENT]
    await clock.advance(0.5)
    assert list(await supervisor.check()) == []
    assert len(await parts.find(command(PATHS, CONTROL).marker)) == 1
    (again,) = await parts.find(command(PATHS, AGENT).marker)
    assert again != dead


async def test_one_that_cannot_be_started_is_tried_again(
    parts: Parts, supervisor: Supervisor, clock: FakeClock
) -> None:
    part = await supervisor.start(command(PATHS, AGENT))
    parts.die(part)
    parts.refuse = DriverError("ProcessFailed", "no more processes")
    await supervisor.check()
    await clock.advance(0.5)
    assert list(await supervisor.check()) == [AGENT]
    parts.refuse = None
    await clock.advance(30)
    assert list(await supervisor.check()) == []


async def test_sleeps_until_a_part_ends(parts: Parts, supervisor: Supervisor, clock: FakeClock) -> None:
    """It costs nothing while nothing happens; a death is seen at once, also of one that somebody else started."""
    adopted = await parts.start(command(PATHS, CONTROL))
    looks: list[str] = []
    parts._on_call = looks.append
    running = asyncio.create_task(supervisor.run())
    await supervisor.start(command(PATHS, CONTROL))
    await clock.advance(0)
    await supervisor.start(command(PATHS, AGENT))
    await clock.advance(0)
    looks.clear()
    await clock.advance(600)
    assert looks.count("parts.alive") == 2 * 600 / LOOK_SECONDS
    parts.die(adopted)
    await clock.advance(0)
    assert [one for one in supervisor.standing() if not one.running] == [Standing(CONTROL, False, 0)]
    await clock.advance(0.5)
    assert supervisor.standing() == [Standing(CONTROL, True, 1), Standing(AGENT, True, 0)]
    (again,) = await parts.find(command(PATHS, CONTROL).marker)
    assert again != adopted
    running.cancel()


async def test_a_supervision_that_fails_ends_what_stands_on_it(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would start a part again: whoever starts a factory, or holds it, is told."""
    factory = Factory(Paths(tmp_path), Settings(), steps=Steps(Console(quiet=True)))

    async def fails() -> None:
        raise OSError("too many open files")

    monkeypatch.setattr(factory, "_start", asyncio.Event().wait)
    monkeypatch.setattr(factory.supervisor, "check", fails)
    for work in (factory.start, factory.hold):
        with pytest.raises(OSError, match="too many open files"):
            await work()
    await factory.close()


async def test_stops_the_last_first_and_forgets_them(parts: Parts, supervisor: Supervisor) -> None:
    for name in ORDER:
        await supervisor.start(command(PATHS, name))
    await supervisor.stop()
    assert parts.stopped == [command(PATHS, name).name for name in reversed(ORDER)]
    assert list(await supervisor.check()) == []
    assert supervisor.failures(AGENT) == 0


async def test_a_control_plane_that_nobody_came_to_adopt_is_stopped(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is started before all else is read and made, and any of that may fail."""
    paths = Paths(tmp_path)
    paths.ca.mkdir()
    paths.ca_certificate.write_text("half an authority")
    monkeypatch.setattr(up, "HostParts", lambda: parts)
    monkeypatch.setattr(up, "listen_for_the_end", lambda stop: None)
    with pytest.raises(Invalid, match="half an authority"):
        await up._foreground(paths, Settings(api_port=0, portal_port=0, gateway_port=0))
    assert parts.stopped == [CONTROL]
    assert not parts.commands


def test_a_part_reads_the_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that was chosen where the shell says 0 would be chosen anew by each part."""
    monkeypatch.setenv("BESSEMER_API_PORT", "0")
    monkeypatch.setenv("BESSEMER_TEST_OTHER", "kept")
    env = command(Paths(tmp_path), CONTROL).env
    assert env is not None
    assert "BESSEMER_API_PORT" not in env
    assert env["BESSEMER_TEST_OTHER"] == "kept"


@pytest.mark.parametrize("words", [[], ["--state"], ["server", "--parts", "api", "--state", "/x"], ["agent", "/x"]])
def test_only_parts_of_up_are_started_as_parts(words: list[str]) -> None:
    with pytest.raises(SystemExit, match="use `bessemer server`"):
        part(words)
