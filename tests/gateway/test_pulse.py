"""Whom the gateway takes for cut off, and what it gives up then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from bessemer.client.transport import CONNECT_SECONDS_MAX
from bessemer.core.clock import FakeClock, settle
from bessemer.core.errors import Unavailable
from bessemer.gateway import Pulse, pulse


class Api:
    """What is asked; ``silent`` answers never, and ``slow`` goes on with what is under way."""

    def __init__(self) -> None:
        self.silent = self.slow = False
        self.trouble = False
        self.asked = self.given_up = 0

    async def ask(self) -> None:
        self.asked += 1
        if self.silent:
            await asyncio.Event().wait()
        if self.trouble:
            raise Unavailable("it starts")

    async def hang_up(self) -> None:
        self.given_up += 1

    def listen(self) -> Callable[[], bool]:
        return lambda: self.slow


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    monkeypatch.setattr(pulse, "ANSWER_SECONDS", 0.01)
    return Api()


async def test_who_is_heard_keeps_the_connections(api: Api) -> None:
    """An error is an answer, too."""
    asked = pulse_of(api, FakeClock())
    await asked.beat()
    api.trouble = True
    await asked.beat()
    assert (api.asked, api.given_up) == (2, 0)


async def test_who_is_silent_loses_them_again_and_again(api: Api) -> None:
    """But less and less often: each time all is listed anew, which helps no slow api. Once it is heard that ends."""
    clock = FakeClock()
    asked = pulse_of(api, clock)
    api.silent = True
    for after, times in (
        (0.0, 1),
        (pulse.AGAIN_SECONDS / 2 - 1, 1),
        (pulse.AGAIN_SECONDS, 2),
        (pulse.AGAIN_SECONDS - 1, 2),
    ):
        await clock.advance(after)
        await asked.beat()
        assert api.given_up == times
    api.silent = False
    await asked.beat()
    api.silent = True
    await asked.beat()
    assert (api.asked, api.given_up) == (6, 3)


async def test_who_goes_on_with_what_is_under_way_is_slow_and_keeps_them(api: Api) -> None:
    api.silent = api.slow = True
    asked = pulse_of(api, FakeClock())
    await asked.beat()
    assert (api.asked, api.given_up) == (1, 0)


async def test_it_asks_every_few_seconds(api: Api) -> None:
    clock = FakeClock()
    running = asyncio.ensure_future(pulse_of(api, clock).run())
    for times in (1, 2):
        await clock.advance(pulse.EVERY_SECONDS)
        await settle()
        assert api.asked == times
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def test_it_waits_for_longer_than_a_beat_and_less_than_a_dial() -> None:
    """Else a slow api is taken for one that is cut off, or a dial into a cut wire for an answer."""
    assert pulse.EVERY_SECONDS < pulse.ANSWER_SECONDS < CONNECT_SECONDS_MAX


def pulse_of(api: Api, clock: FakeClock) -> Pulse:
    return Pulse(api.ask, api.hang_up, listen=api.listen, clock=clock)
