"""A resolver that gives addresses which may be dialled, and no others: what was judged is what is dialled."""

from __future__ import annotations

import socket
from collections.abc import Callable

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult


class Judged(AbstractResolver):
    """``allows`` judges an address of a host, as the resolver writes it; ``refusal`` is what a host raises that stands
    at none which is allowed. ``resolver`` looks it up; else one of the loop's own threads does."""

    def __init__(
        self,
        allows: Callable[[str, str], bool],
        refusal: Callable[[str], Exception],
        *,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._allows = allows
        self._refusal = refusal
        self._resolver = resolver or aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        allowed = [one for one in found if self._allows(host, one["host"])]
        if not allowed:
            raise self._refusal(host)
        return allowed

    async def close(self) -> None:
        await self._resolver.close()
