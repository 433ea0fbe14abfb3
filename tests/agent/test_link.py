"""A certificate is renewed long before it ends, by the key that is registered, and nobody has to do anything."""

from __future__ import annotations

import asyncio
import base64
import time
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from bessemer.agent.identity import Identity
from bessemer.agent.link import Link
from bessemer.agent.metrics import AgentMetrics
from bessemer.api.ca import create_ca, fingerprint, requested_key, signed_by
from bessemer.client import Joined
from bessemer.core.clock import FakeClock, settle
from bessemer.core.errors import Unauthenticated, Unavailable

DAY = 86_400.0
LIFE_DAYS = 30


class Authority:
    """What the api does for a host that joins and renews; it does nothing while ``away``. It is its own client."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.ca = create_ca("test")
        self.registered = ""
        self.given: list[tuple[float, str]] = []
        self.away = False
        self._began = clock.now()

    @property
    def agents(self) -> Authority:
        return self

    async def join(self, host: str, csr: str, *, token: str = "", signature: str = "") -> Joined:
        if self.away:
            raise Unavailable("away")
        key = requested_key(csr)
        if token and self.registered:
            raise Unauthenticated("the token has been used")
        if signature:
            good = signed_by(key, csr.encode(), signature=base64.b64decode(signature))
            if not good or fingerprint(key) != self.registered:
                raise Unauthenticated("the signature is not the registered key's")
        self.registered = fingerprint(key)
        days = (self.clock.now() - self._began) / DAY
        self.given.append((days, "token" if token else "signature"))
        # A certificate begins by the machine's clock, which stands still here, and ends 30 days after the clock's day.
        seconds = (days + LIFE_DAYS) * DAY
        pem = self.ca.sign(key, f"system:agent:{host}", seconds=seconds)
        return Joined(pem.decode(), self.ca.certificate.decode())

    async def close(self) -> None: ...


def link(directory: Path, authority: Authority, clock: FakeClock) -> tuple[Identity, Link]:
    identity = Identity(directory / "identity", "h1")

    def connect(identity: Identity, *, anonymous: bool = False) -> Any:
        return authority

    metrics = AgentMetrics(CollectorRegistry())
    return identity, Link(identity, connect, token="bsj_once", clock=clock, metrics=metrics)


async def days(clock: FakeClock, count: float) -> None:
    for _ in range(int(count * 24)):
        await clock.advance(3600)
        await settle(3)


async def test_a_certificate_is_renewed_long_before_it_ends_again_and_again(tmp_path: Path) -> None:
    clock = FakeClock(time.time())
    authority = Authority(clock)
    identity, joining = link(tmp_path, authority, clock)
    running = asyncio.ensure_future(joining.run())
    await joining.joined()
    assert authority.given == [(0.0, "token")]
    key = fingerprint(identity.key().public_key())
    await days(clock, 19)
    assert len(authority.given) == 1, "nothing is asked before two thirds of its life"
    await days(clock, 21)
    assert {by for _, by in authority.given[1:]} == {"signature"}
    first, second = (day for day, _ in authority.given[1:])
    assert 19.9 < first < 20.1
    assert second < first + LIFE_DAYS - 5, "and so it goes on"
    life = identity.life()
    assert life is not None
    assert life[1] - clock.now() > 5 * DAY, "it never comes near its end"
    assert fingerprint(identity.key().public_key()) == key == authority.registered, "the key never leaves and stays"
    running.cancel()


async def test_an_api_that_is_away_for_hours_costs_no_certificate(tmp_path: Path) -> None:
    clock = FakeClock(time.time())
    authority = Authority(clock)
    _, joining = link(tmp_path, authority, clock)
    running = asyncio.ensure_future(joining.run())
    await joining.joined()
    authority.away = True
    await days(clock, 20.25)
    assert len(authority.given) == 1
    assert not running.done()
    authority.away = False
    await days(clock, 0.1)
    assert [by for _, by in authority.given] == ["token", "signature"]
    running.cancel()
