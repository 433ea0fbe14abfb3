"""Names of hosts that tenants have said, looked up: in threads of their own, and so many of one tenant's at a time.

The system's resolver holds a thread until the name's servers have answered, or half a minute where they do not, whoever
waits for it. Whose servers those are, whoever said the name decides: so nobody's names may take all threads, and none
takes one by which the gateway settles usage. A name is looked up once for all who want it at a time; what came is not
kept.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from aiohttp.abc import AbstractResolver, ResolveResult

THREADS_MAX, OF_ONE_MAX = 64, 4
"""Names at a time, and those of one tenant."""

Resolve = Callable[[str, int], Sequence[str]]


def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a host, as the machine finds them. Raises OSError."""
    return list(dict.fromkeys(str(one[4][0]) for one in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))


class Lookups:
    """Those of one gateway."""

    def __init__(self, resolve: Resolve = resolve) -> None:
        self._resolve = resolve
        self._threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="lookups")
        self._asked: dict[tuple[str, int], asyncio.Future[Sequence[str]]] = {}
        self._of: Counter[str] = Counter()

    async def find(self, host: str, port: int, *, project: str) -> Sequence[str]:
        """The addresses of a host that a project has named. Raises OSError, also where its tenant waits for too many
        names already."""
        name, tenant = (host, port), project.partition("--")[0]
        asked = self._asked.get(name)
        if asked is None:
            if self._of[tenant] >= OF_ONE_MAX:
                raise OSError("too many names of its tenant's are being looked up")
            asked = asyncio.get_running_loop().run_in_executor(self._threads, self._resolve, host, port)
            self._asked[name] = asked
            self._of[tenant] += 1
            asked.add_done_callback(partial(self._found, name=name, tenant=tenant))
        return await asyncio.shield(asked)

    def _found(self, asked: asyncio.Future[Sequence[str]], *, name: tuple[str, int], tenant: str) -> None:
        del self._asked[name]
        self._of[tenant] -= 1
        if not self._of[tenant]:
            del self._of[tenant]
        if not asked.cancelled():
            asked.exception()  # whoever asked may have gone


class Resolver(AbstractResolver):
    """Gives addresses which may be dialled, and no others: what was judged is what is dialled. ``allows`` judges one of
    a host, as it is written."""

    def __init__(self, lookups: Lookups, allows: Callable[[str, str], bool], *, project: str) -> None:
        self._lookups = lookups
        self._allows = allows
        self._project = project

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._lookups.find(host, port, project=self._project)
        allowed = [one for one in found if self._allows(host, one)]
        if not allowed:
            raise OSError(f"{host} stands at an inner address")
        return [_result(host, one, port=port) for one in allowed]

    async def close(self) -> None:
        """Nothing is held."""


def _result(host: str, address: str, *, port: int) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=flags)
