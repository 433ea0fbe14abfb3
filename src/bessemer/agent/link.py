"""The way to the api that all tasks of an agent share: joining, and the certificate's renewal.

Invariants: an agent with a good certificate asks for no other before two thirds of its life, unless the api says that
it is nobody. It asks with its registered key's signature, on a connection without certificate, so that one which has
run out does not matter; and it asks for ever. With a new certificate everything that hangs on the old connections
begins anew: see `renewed`.
"""

from __future__ import annotations

import asyncio
import random
from typing import Protocol

import structlog

from bessemer.agent.identity import Identity
from bessemer.agent.metrics import AgentMetrics
from bessemer.client import Client, Joined
from bessemer.core.clock import Clock
from bessemer.core.errors import BessemerError, Forbidden, NotFound, TooMany, Unauthenticated
from bessemer.core.resource import Key
from bessemer.loop.queue import Backoff

LOOK_SECONDS = 3600.0
"""How often the certificate's age is looked at: a wall clock may jump."""

TROUBLE = (BessemerError, OSError)
"""What may come of asking the api for something."""

log = structlog.get_logger(__name__)


class Connect(Protocol):
    """Makes a client with the certificate that the identity holds now, or with none where ``anonymous``. It connects
    nowhere yet, so it never fails for an api that is away."""

    def __call__(self, identity: Identity, *, anonymous: bool = False) -> Client: ...


class Link:
    """One agent's way to the api. ``token`` is the one-time join token, "" for a host that has joined before."""

    def __init__(
        self, identity: Identity, connect: Connect, *, token: str, clock: Clock, metrics: AgentMetrics
    ) -> None:
        self.identity = identity
        self._connect = connect
        self._token = token
        self._clock = clock
        self._metrics = metrics
        self._client: Client | None = None
        self._doubt = asyncio.Event()
        self._renewed = asyncio.Event()
        self._joined = asyncio.Event()

    @property
    def client(self) -> Client:
        """A client with the newest certificate."""
        if self._client is None:
            self._client = self._connect(self.identity)
        return self._client

    async def joined(self) -> None:
        """Return once there is a certificate."""
        await self._joined.wait()

    async def renewed(self) -> None:
        """Return once there is a newer certificate than there is now."""
        await self._renewed.wait()

    def failed(self, error: BaseException) -> None:
        """An answer was this error: where it says that we are nobody, a new certificate is asked for."""
        if isinstance(error, Unauthenticated):
            self._doubt.set()

    async def run(self) -> None:
        """Join, then keep the certificate young, for ever."""
        key, backoff = Key("Agent", "", self.identity.host), Backoff(0.5, 30.0, random.random)
        while True:
            if self.identity.life() is not None:
                self._joined.set()
            due = self.identity.renew_in(self._clock.now())
            if due > 0 and not await self._doubted(due):
                continue
            try:
                await self._renew()
            except TROUBLE as error:
                wait = max(backoff.next(key), error.retry_after_seconds if isinstance(error, TooMany) else 0)
                log.warning(
                    "no certificate yet", host=self.identity.host, error=str(error), again_seconds=round(wait, 1)
                )
                await self._clock.sleep(wait)
            else:
                backoff.reset(key)

    async def close(self) -> None:
        """End the connections."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()

    async def _doubted(self, due: float) -> bool:
        """Wait until the certificate may be due, or somebody doubts it: True then."""
        sleep = asyncio.ensure_future(self._clock.sleep(min(due, LOOK_SECONDS)))
        doubt = asyncio.ensure_future(self._doubt.wait())
        try:
            await asyncio.wait({sleep, doubt}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()
            doubt.cancel()
        return self._doubt.is_set()

    async def _renew(self) -> None:
        anonymous = self._connect(self.identity, anonymous=True)
        try:
            answer = await self._ask(anonymous)
        finally:
            await anonymous.close()
        self.identity.accept(answer.certificate, answer.ca)
        self._metrics.certificates.inc()
        log.info("certificate received", host=self.identity.host)
        self._doubt.clear()
        await self.close()
        renewed, self._renewed = self._renewed, asyncio.Event()
        renewed.set()

    async def _ask(self, client: Client) -> Joined:
        """By signature where we joined before, else by token; and the other way round where that is refused: the answer
        to a join may have been lost, and a revoked host may have been given a new token."""
        host, csr = self.identity.host, self.identity.request()
        ways: list[dict[str, str]] = [{"signature": self.identity.sign(csr)}]
        if self._token:
            ways.insert(0 if self.identity.life() is None else 1, {"token": self._token})
        for way in ways[:-1]:
            try:
                return await client.agents.join(host, csr, **way)
            except (Unauthenticated, Forbidden, NotFound) as error:
                log.info("join refused", host=host, by=next(iter(way)), error=str(error))
        return await client.agents.join(host, csr, **ways[-1])
