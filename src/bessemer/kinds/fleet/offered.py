"""`Offered`: what flavors offer, followed like the fleet, for who has seen few claims yet."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from bessemer.core.asking import Request
from bessemer.core.resource import Change
from bessemer.kinds import workload
from bessemer.kinds.fleet.flavor import Flavor
from bessemer.kinds.fleet.following import Following

Tell = Callable[[str, Request | None], None]
"""By a flavor's name what one replica asks of a host; None: it is offered no more."""

log = structlog.get_logger(__name__)


class Offered:
    """No decision waits until they have been read: they say what may come, and hold nothing."""

    def __init__(self, following: Following, tell: Tell) -> None:
        self._following = following
        self._tell = tell
        self._known: set[str] = set()

    async def run(self) -> None:
        """Follow them, for ever."""
        await self._following.run(Flavor.KIND, take=self._take, listed=self._listed)

    async def _take(self, change: Change) -> str:
        """One change; a flavor that cannot be read offers nothing."""
        name, gone = change.key.name, change.type == "DELETED"
        (self._known.discard if gone else self._known.add)(name)
        self._tell(name, None if gone else _asked(change))
        return name

    def _listed(self, listed: set[str]) -> None:
        for gone in self._known - listed:
            self._tell(gone, None)
        self._known &= listed


def _asked(flavor: Change) -> Request | None:
    try:
        spec = Flavor.load(flavor.body).spec
        return workload.request_of(workload.Terms(tenant=""), spec, tolerations=()) if spec.offered else None
    except ValueError as error:
        log.warning("left out of what is offered", name=flavor.key.name, error=str(error)[:500])
        return None
