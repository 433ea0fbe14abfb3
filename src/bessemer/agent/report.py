"""What an agent tells the api: the statuses of its Claims, what its machine is, and that it lives.

A word is said until it is heard, with growing waits while the api is away. What the machine is goes out only where it
differs from what the api has, so that an idle host says nothing but that it lives.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import orjson
import structlog

from bessemer import __version__
from bessemer.agent.link import TROUBLE, Link
from bessemer.agent.metrics import AgentMetrics
from bessemer.agent.outbox import Outbox
from bessemer.core.clock import Clock
from bessemer.core.errors import Conflict, DriverError, Invalid, NotFound
from bessemer.core.hosts import UNSAID_ENGINES, Device, Inventory
from bessemer.core.ports import Stored, Writer
from bessemer.core.resource import API_VERSION, Change, Key
from bessemer.drivers.inspect.protocol import Inspect
from bessemer.loop.queue import Backoff

REPORT_SECONDS_MIN = 5.0
"""Between two reports, so that an api which keeps something else than it was told is not told without end."""

ENGINES, NO_ENGINE = UNSAID_ENGINES, "none"
"""What a host has whose report does not say, and what one says that has none."""

HEARD_LOOK_SECONDS = 0.1

UNFIT_MAX = 256
"""Characters of why a device is unfit, as long as a word may be."""

log = structlog.get_logger(__name__)


class Reporter:
    """Sends what is in the outbox. A newer status of the same Claim takes the place of one that was not yet heard."""

    def __init__(self, link: Link, outbox: Outbox, *, clock: Clock, metrics: AgentMetrics) -> None:
        self._link = link
        self._outbox = outbox
        self._clock = clock
        self._metrics = metrics
        self._writer = Writer("agent", link.identity.host)

    async def run(self) -> None:
        """For ever. One Claim's trouble does not keep another's word back."""
        key, backoff = Key("Agent", "", ""), Backoff(0.5, 15.0, random.random)
        while True:
            await self._outbox.wait()
            heard = [await self._say(uid, body) for uid, body in self._outbox.due()]
            if all(heard):
                backoff.reset(key)
            else:
                await self._clock.sleep(backoff.next(key))

    async def _say(self, uid: str, body: Mapping[str, Any]) -> bool:
        result = "heard"
        try:
            await self._link.client.replace(body, self._writer, part="status")
        except (NotFound, Conflict) as error:
            # It is gone, or its name belongs to another by now: the watch will say so as well.
            log.info("status not wanted", object_uid=uid, error=str(error))
            result = "unwanted"
        except Invalid as error:
            causes = [f"{cause.field}: {cause.message}" for cause in error.causes]
            log.error("status refused", object_uid=uid, error=str(error), causes=causes)
            result = "refused"
        except TROUBLE as error:
            self._link.failed(error)
            log.info("status not heard", object_uid=uid, error=str(error))
            self._metrics.statuses.labels("unheard").inc()
            return False
        self._outbox.said(uid, body)
        self._metrics.statuses.labels(result).inc()
        return True


class Machine:
    """What this host is: inspected at the start and at intervals, reported where the api has something else. ``unfit``
    says by id and by PCI address what of it nobody may have now, and why; ``engines`` which sorts it has."""

    def __init__(
        self,
        link: Link,
        inspect: Inspect,
        *,
        clock: Clock,
        metrics: AgentMetrics,
        unfit: Callable[[], Awaitable[Mapping[str, str]]] | None = None,
        engines: Callable[[], Sequence[str]] = lambda: ENGINES,
    ) -> None:
        self._engines = engines
        self._link = link
        self._inspect = inspect
        self._unfit = unfit
        self._clock = clock
        self._metrics = metrics
        self._host = link.identity.host
        self._found: Inventory | None = None
        self._had: Mapping[str, Any] | None = None
        self._known = False
        self._news = asyncio.Event()

    async def look(self) -> Inventory:
        """Inspect the machine now. Raises DriverError."""
        found = await self._inspect.inventory()
        # Asked for after what there is: what is given back meanwhile is not taken to be clean.
        unfit = await self._unfit() if self._unfit is not None else {}
        devices = [_fit(device, unfit) for device in found.devices]
        update = {"devices": devices, "agent_version": __version__, "engines": _engines(self._engines())}
        self._found = found.model_copy(update=update)
        self._news.set()
        return self._found

    async def listed(self, hosts: Sequence[Stored]) -> None:
        """The api has this Host, or none of our name."""
        self._known = bool(hosts)
        for host in hosts:
            self._heard(host.body)

    async def changed(self, change: Change) -> None:
        """The api's Host changed."""
        self._known = change.type != "DELETED"
        if self._known:
            self._heard(change.body)

    async def watch_over(self, seconds: float) -> None:
        """Look again every ``seconds``, for ever."""
        while True:
            await self._clock.sleep(seconds)
            try:
                await self.look()
            except DriverError as error:
                log.warning("inspection failed", host=self._host, reason=error.reason, error=str(error))

    async def run(self) -> None:
        """Report, for ever, whenever what was found is not what the api has."""
        key, backoff = Key("Host", "", self._host), Backoff(0.5, 15.0, random.random)
        while True:
            await self._news.wait()
            report = None if self._found is None else self._found.dump()
            if report is None or not self._known or report == self._had:
                self._news.clear()
                continue
            try:
                await self._tell(report)
            except TROUBLE as error:
                self._link.failed(error)
                self._metrics.reports.labels("unheard").inc()
                log.info("report not heard", host=self._host, error=str(error))
                await self._clock.sleep(backoff.next(key))
            else:
                self._metrics.reports.labels("heard").inc()
                backoff.reset(key)
                await self._clock.sleep(REPORT_SECONDS_MIN)

    async def heard(self, *, seconds: float) -> None:
        """Return once the api has what was found, or after so long."""
        end = self._clock.monotonic() + seconds
        while self._found is not None and self._found.dump() != self._had and self._clock.monotonic() < end:
            await self._clock.sleep(HEARD_LOOK_SECONDS)

    async def _tell(self, report: Mapping[str, Any]) -> None:
        body = {
            "apiVersion": API_VERSION,
            "kind": "Host",
            "metadata": {"name": self._host},
            "spec": {},
            "status": {"report": report},
        }
        stored = await self._link.client.replace(body, Writer("agent", self._host), part="report")
        self._heard(stored.body)

    def _heard(self, body: bytes) -> None:
        self._had = (orjson.loads(body).get("status") or {}).get("report")
        self._news.set()


def _fit(device: Device, unfit: Mapping[str, str]) -> Device:
    """The device, as one that nobody may have where somebody says so: its id may be a tenant's word."""
    why = unfit.get(device.id) or (unfit.get(device.address) if device.address else None)
    return device.model_copy(update={"healthy": False, "unfit": why[:UNFIT_MAX]}) if why else device


async def heartbeat(
    beat: Callable[[], Awaitable[None]], link: Link, *, every: float, clock: Clock, metrics: AgentMetrics
) -> None:
    """Renew the host's lease by ``beat``, for ever, about ``every`` seconds: spread a little, so that hosts which
    started together do not speak together. A beat that was missed is made up for sooner."""
    while True:
        wait = every * random.uniform(0.9, 1.1)
        try:
            await beat()
        except TROUBLE as error:
            link.failed(error)
            metrics.heartbeats.labels("missed").inc()
            log.info("heartbeat missed", host=link.identity.host, error=str(error))
            wait /= 3
        else:
            metrics.heartbeats.labels("heard").inc()
        await clock.sleep(wait)


def _engines(installed: Sequence[str]) -> list[str]:
    """What the report says of them: nothing, where an api of yesterday knows as much."""
    return [] if tuple(installed) == ENGINES else [*installed] or [NO_ENGINE]
