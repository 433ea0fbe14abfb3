"""What gateways hold of bounds that are spent, and the word that one's spool is lost for good.

A gateway's hold stands until it says otherwise: what its spool has and nobody settled yet is money that was earned. One
that never comes back holds for ever what it held, so that somebody has to say that its spool is lost: then what it held
counts as used until its period is over, and is billed to nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from bessemer.core.ports import Writer

ALIVE_SECONDS = 90
"""A gateway says what it holds every half minute: of one that was heard of since, no spool is lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """``amount`` of one bound: of a ``scope`` (``key/acme--lab/app``) and a meter (``tokens/day``), in tokens, requests
    or micro-units of money."""

    scope: str
    meter: str
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolHold:
    """What a gateway, ``holder``, holds for requests of a project, by its last word, which came at ``heard_at`` (epoch
    seconds)."""

    holder: str
    project: str
    heard_at: int
    parts: Sequence[Part] = ()


class Spools(Protocol):
    """The port."""

    async def standing(self) -> Sequence[SpoolHold]:
        """What is held, by gateway and project."""
        ...

    async def forget(self, holder: str, writer: Writer) -> Sequence[SpoolHold]:
        """Its spool is lost for good; what it held. Raises NotFound where it holds nothing, Conflict where it was heard
        of a moment ago."""
        ...
