"""The store of a state directory: opened in one way by whoever of ours needs it."""

from __future__ import annotations

from bessemer.core.clock import Clock
from bessemer.kinds import KINDS
from bessemer.main import identities
from bessemer.main.settings import Paths
from bessemer.store import Store, open_store, store_kinds
from bessemer.store.compaction import History


def open_state(paths: Paths, clock: Clock, *, history: History | None = None) -> Store:
    """The installation's store, with its own key. Raises what `open_store` does, and OSError where the key is gone."""
    seal_key = identities.key_of(paths, identities.SEAL_KEY)
    return open_store(paths.store, clock=clock, kinds=store_kinds(KINDS), seal_key=seal_key, history=history)
