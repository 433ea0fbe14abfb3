"""What was written of late, which somebody will look at in a moment; and what was read of late of objects that belong
to no project, for they are few and asked for all the time: a flavor, an image, a tenant and a project with every
workload that is made. After a commit a connection that reads has none of its pages any more, so that a read by key
costs more than what is done with it.

Invariant: what is answered is what the database would have answered. What a write changes is read of the database from
before its commit until it has been told. It is for a file, which no other process writes to.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable

from bessemer.core.ports import Stored
from bessemer.core.resource import Key
from bessemer.store.feed import Entry
from bessemer.store.kinds import EVENT

Publish = Callable[[list[Entry], int], None]

MOST = 512
BYTES_MAX = 16 << 10
"""Of the body of each: larger ones are read as before."""


class Recent:
    """``kinds`` are those of which it keeps what was read."""

    def __init__(self, kinds: Collection[str]) -> None:
        self._kinds = kinds
        self._kept: OrderedDict[Key, Stored] = OrderedDict()
        self._moving: set[Key] | None = set()
        """What is being changed at this moment; None for whatever it is."""

    def get(self, key: Key) -> Stored | None:
        """The object, or None where it has to be read."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def keep(self, stored: Stored) -> None:
        """It was just read."""
        if self._moving is not None and stored.key not in self._moving and stored.key.kind in self._kinds:
            self._keep(stored)

    def written(self, entries: Iterable[Entry]) -> None:
        """It was committed, and told by `move`, and nothing else is about to be."""
        for entry in entries:
            change = entry.change
            if change.type != "DELETED" and change.key.kind != EVENT:
                kept = Stored(change.key, change.uid, change.revision, entry.generation, change.host, change.body)
                self._keep(kept)
            else:
                self._kept.pop(change.key, None)

    def before(self, publish: Publish) -> Publish:
        """`written` of what is published, first."""

        def told(entries: list[Entry], revision: int) -> None:
            self.written(entries)
            publish(entries, revision)

        return told

    def _keep(self, stored: Stored) -> None:
        if len(stored.body) > BYTES_MAX:
            self._kept.pop(stored.key, None)
            return
        self._kept[stored.key] = stored
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
