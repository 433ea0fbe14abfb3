"""A Claim's secrets: fetched when they are first needed, kept in memory alone, forgotten with the Claim."""

from __future__ import annotations

from collections.abc import Mapping

from bessemer.agent.intent import Intents
from bessemer.agent.link import TROUBLE, Link
from bessemer.core.errors import NotFound, Unavailable

AWAY_SECONDS = 15
"""How long to wait before asking again an api that is away."""


class AgentSecrets:
    """Implements `kinds.context.Secrets` for the Claims of one host."""

    def __init__(self, link: Link, intents: Intents) -> None:
        self._link = link
        self._intents = intents
        self._kept: dict[str, Mapping[str, str]] = {}

    async def get(self, claim_uid: str) -> Mapping[str, str]:
        """Raises NotFound for a Claim that is not on this host, Unavailable while the api is away."""
        for gone in self._kept.keys() - self._intents.known():
            del self._kept[gone]
        if claim_uid not in self._kept:
            intent = self._intents.by_uid.get(claim_uid)
            if intent is None:
                raise NotFound("the claim is not on this host")
            try:
                self._kept[claim_uid] = await self._link.client.agents.secrets(intent.key)
            except Unavailable as error:
                raise Unavailable(
                    "the claim's secrets cannot be fetched now", retry_after_seconds=AWAY_SECONDS, internal=str(error)
                ) from error
            except TROUBLE as error:
                self._link.failed(error)
                raise
        return self._kept[claim_uid]
