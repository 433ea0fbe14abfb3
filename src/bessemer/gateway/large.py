"""Large bodies, by whose they are: no tenant has room for more than its share of them, so that nobody's few shut out
another's. Those whose sender nobody knows yet are one tenant's."""

from __future__ import annotations

from collections import Counter

from bessemer.gateway.people import Person
from bessemer.gateway.reply import Call
from bessemer.gateway.tables import KeyEntry

SHARE_BYTES_MAX = 128 << 20
"""Of one tenant's large bodies at once; a person's who may ask in several are their own."""


class Large:
    """Those of one process that are being read or answered."""

    __slots__ = ("_calls", "_tenants")

    def __init__(self) -> None:
        self._calls: dict[Call, tuple[str, int]] = {}
        self._tenants: Counter[str] = Counter()

    def grown(self, call: Call) -> bool:
        """A body has become larger, and is a large one; whether there is room for it."""
        tenant, had = self._calls.get(call) or (_whose(call), 0)
        self._calls[call] = tenant, call.size
        self._tenants[tenant] += call.size - had
        return self._tenants[tenant] <= SHARE_BYTES_MAX

    def ended(self, call: Call) -> None:
        """It is held no more, if it was a large one."""
        found = self._calls.pop(call, None)
        if found is not None:
            tenant, size = found
            self._tenants[tenant] -= size
            if not self._tenants[tenant]:
                del self._tenants[tenant]

    def __len__(self) -> int:
        return len(self._calls)


def _whose(call: Call) -> str:
    if isinstance(call.key, KeyEntry):
        return call.key.project.partition("--")[0]
    return f"user/{call.key.user}" if isinstance(call.key, Person) else ""
