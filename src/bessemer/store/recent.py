"""What was read of late of objects that belong to no project, for they are few and asked for all the time: a flavor, an
image, a tenant and a project with every workload that is made.

Invariant: what is answered is what the database would have answered. What a write changes is read of the database from
before its commit until it has been told. It is for a file, which no other process writes to.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable

from bessemer.core.ports import Stored
from bessemer.core.resource import Key
from bessemer.store.feed import Entry

MOST = 512
BYTES_MAX = 16 << 10
"""Of the body of each: larger ones are read as before."""


class Recent:
    """``kinds`` are those that it keeps."""

    def __init__(self, kinds: Collection[str]) -> None:
        self._kinds = kinds
        self._kept: OrderedDict[Key, Stored] = OrderedDict()
        self._moving: set[Key] | None = set()
        """What is being changed at this moment; None for whatever it is."""
        self._closed = False

    def get(self, key: Key) -> Stored | None:
        """The object, or None where it has to be read."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def keep(self, stored: Stored) -> None:
        """It was just read."""
        key, moving = stored.key, self._moving
        if moving is None or key in moving or key.kind not in self._kinds or len(stored.body) > BYTES_MAX:
            return
        self._kept[key] = stored
        if len(self._kept) > MOST:
            self._kept.popitem(last=False)

    def move(self, entries: Iterable[Entry] | None) -> None:
        """A transaction that changes these (None: whatever) is about to be committed, or has just been."""
        if entries is None:
            self._moving = None
            self._kept.clear()
            return
        self._moving = {entry.change.key for entry in entries}
        for key in self._moving:
            self._kept.pop(key, None)
