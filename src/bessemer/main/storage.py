"""The store of a state directory: opened in one way by whoever of ours needs it."""

from __future__ import annotations

from bessemer.core.clock import Clock
from bessemer.drivers.kms.local import LocalKeys
from bessemer.kinds import KINDS
from bessemer.main import identities
from bessemer.main.settings import Paths, given_keys, heads_of
from bessemer.store import Guard, Store, open_store, store_kinds
from bessemer.store.compaction import History
from bessemer.store.heads import Signing


def open_state(paths: Paths, clock: Clock, *, history: History | None = None) -> Store:
    """The installation's store, with its own keys. Raises what `open_store` does, and OSError where a key is gone."""
    keys = keys_of(paths)
    signing = Signing(identities.key_of(paths, identities.AUDIT_KEY), heads_of(paths))
    guard = Guard(keys, lambda: keys.ring, signing)
    return open_store(paths.store, clock=clock, kinds=store_kinds(KINDS), guard=guard, history=history)


def keys_of(paths: Paths) -> LocalKeys:
    """Who wraps: the installation's key files, and before them what the environment gives."""
    return LocalKeys(paths.keys, given=given_keys())
