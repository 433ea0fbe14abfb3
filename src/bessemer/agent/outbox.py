"""What an agent has still to tell the api: the newest status of each Claim, until it was acknowledged.

A newer status of the same Claim takes the place of the older one, so that an agent that was cut off for a day says one
thing per Claim. Nothing here survives the process: the intent files hold each last status, and after a start every one
of them is said once more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any


class Outbox:
    """Bodies to send, by Claim uid."""

    def __init__(self) -> None:
        self._bodies: dict[str, Mapping[str, Any]] = {}
        self._filled = asyncio.Event()

    def put(self, uid: str, body: Mapping[str, Any]) -> None:
        """Say this of the Claim, in place of what was not yet said. ``body`` is the Claim with its status."""
        self._bodies[uid] = body
        self._filled.set()

    def due(self) -> list[tuple[str, Mapping[str, Any]]]:
        """All that is unsaid, oldest Claim first."""
        return list(self._bodies.items())

    def said(self, uid: str, body: Mapping[str, Any]) -> None:
        """The api has this body; a newer one stays due."""
        if self._bodies.get(uid) is body:
            self.drop(uid)

    def waits(self, uid: str) -> bool:
        """Whether something of the Claim is unsaid."""
        return uid in self._bodies

    def drop(self, uid: str) -> None:
        """Nobody waits for a word on this Claim any more."""
        self._bodies.pop(uid, None)
        if not self._bodies:
            self._filled.clear()

    async def wait(self) -> None:
        """Return once something is unsaid."""
        await self._filled.wait()

    def __len__(self) -> int:
        return len(self._bodies)
