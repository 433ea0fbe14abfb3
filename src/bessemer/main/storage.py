"""The store of a state directory: opened in one way by whoever of ours needs it."""

from __future__ import annotations

from bessemer.core.clock import Clock
from bessemer.kinds import KINDS
from bessemer.main import identities
from bessemer.main.settings import Paths
from bessemer.store import Store, open_store, store_kinds
from bessemer.store.compaction import History
from bessemer.store.heads import Signing


def open_state(paths: Paths, clock: Clock, *, history: History | None = None) -> Store:
    """The installation's store, with its own key. Raises what `open_store` does, and OSError where the key is gone."""
    seal_key = identities.key_of(paths, identities.SEAL_KEY)
    signing = Signing(identities.key_of(paths, identities.AUDIT_KEY), paths.heads)
    kinds = store_kinds(KINDS)
    return open_store(paths.store, clock=clock, kinds=kinds, seal_key=seal_key, signing=signing, history=history)
