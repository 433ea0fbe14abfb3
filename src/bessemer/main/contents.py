"""The control plane's content that nobody names any more is removed: names are read, then the folder is swept.

Each process with a controller does it over the folder that all of them share; what one of them has removed, the others
do not find. Where the names cannot be read to their end, nothing is touched.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from bessemer.core.clock import Clock
from bessemer.core.errors import BessemerError
from bessemer.drivers.fetch.protocol import Held, Swept
from bessemer.drivers.fetch.real import HostContent
from bessemer.kinds.contents import Lists, named

LOOK_SECONDS = 600.0
"""Between two sweeps; less where what is idle stays for less."""

log = structlog.get_logger(__name__)


class Contents:
    """Of one control plane. A collector for ``CollectorRegistry.register``. ``grace_seconds`` is how long content stays
    that nobody names."""

    def __init__(self, content: HostContent, objects: Lists, *, clock: Clock, grace_seconds: float) -> None:
        self._content = content
        self._objects = objects
        self._clock = clock
        self._grace = grace_seconds
        self._held = Held()
        self.removed = 0
        self.freed_bytes = 0

    async def run(self) -> None:
        """Sweep now and then, for ever."""
        while True:
            await self._clock.sleep(min(LOOK_SECONDS, self._grace / 4))
            try:
                await self.sweep()
            except (BessemerError, OSError) as error:
                log.warning("content is not looked through now", why=str(error))

    async def sweep(self) -> Swept:
        """Once. Raises BessemerError where the names cannot be read, OSError where the folder cannot."""
        began = time.time()  # as the files' own times are
        names = await named(self._objects)
        swept = await asyncio.to_thread(self._content.sweep, names, began=began, grace=self._grace)
        self._held = await asyncio.to_thread(self._content.held)
        if swept.digests or swept.parts:
            self.removed += len(swept.digests) + swept.parts
            self.freed_bytes += swept.freed_bytes
            log.info(
                "content that nobody named is removed",
                digests=list(swept.digests),
                parts=swept.parts,
                freed_bytes=swept.freed_bytes,
            )
        return swept

    def collect(self) -> Iterator[Metric]:
        """Every figure, as Prometheus wants it."""
        held = GaugeMetricFamily(
            "bessemer_content_bytes", "What the control plane's content holds, as of the last sweep.", labels=["of"]
        )
        held.add_metric(["used"], self._held.used_bytes)
        held.add_metric(["idle"], self._held.idle_bytes)
        held.add_metric(["coming"], self._held.coming_bytes)
        yield held
        yield CounterMetricFamily(
            "bessemer_content_removed", "Contents that nobody named any more, and abandoned parts.", value=self.removed
        )
        yield CounterMetricFamily("bessemer_content_freed_bytes", "What they had.", value=self.freed_bytes)
