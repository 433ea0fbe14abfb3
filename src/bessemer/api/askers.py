"""Who asked last with what is shown, so that whose turn it is costs no look into the store: beside a storm, nearly all
that is asked waits or is refused, and to find out who asks is the dearest part of that.

It says by whose turn a request waits, and nothing else: who asks is found out anew once its turn has come, and only
that decides. What was withdrawn meanwhile keeps a place in its former flow for `REMEMBERED_SECONDS`, and gets nothing
there. Tokens are kept as digests, and only those that were good.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict

from bessemer.api.context import Credentials, Identity
from bessemer.api.limit import network
from bessemer.core.clock import Clock

ASKERS_MAX = 10_000
REMEMBERED_SECONDS = 60.0


class Askers:
    """The least lately learned are forgotten first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[float, Identity]] = OrderedDict()

    def find(self, shown: Credentials) -> Identity | None:
        """Who it was, where that is not long ago."""
        key = _key(shown)
        found = self._known.get(key) if key else None
        if found is None or self._clock.monotonic() >= found[0]:
            return None
        return found[1]

    def learn(self, shown: Credentials, who: Identity | None) -> None:
        """It was found out; None is that what is shown is worth nothing."""
        key = _key(shown)
        if not key:
            return
        if who is None:
            self._known.pop(key, None)
            return
        self._known[key] = self._clock.monotonic() + REMEMBERED_SECONDS, who
        self._known.move_to_end(key)
        if len(self._known) > ASKERS_MAX:
            self._known.popitem(last=False)


def _key(shown: Credentials) -> bytes:
    """b"" where nothing is shown. A bearer counts before a certificate, and is another where it comes from another
    network: one that is worth nothing there takes nobody's turns."""
    if shown.authorization:
        return hashlib.sha256(f"{network(shown.source)} {shown.authorization}".encode()).digest()
    return f"{shown.peer.name} {shown.peer.fingerprint}".encode() if shown.peer is not None else b""
