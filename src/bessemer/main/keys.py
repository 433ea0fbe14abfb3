"""``bessemer store keys`` and ``rotate-key``: over the key files of a state directory, and its api where that runs.

The file is changed first, and everything else follows it: a command that was interrupted is repeated with ``--follow``,
and without it the control plane follows within a minute by itself. Nothing here shows a key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from bessemer.cli import render
from bessemer.cli.verbs import KeyOptions
from bessemer.core.clock import SystemClock
from bessemer.core.errors import Conflict
from bessemer.core.ports import SealedKeys
from bessemer.drivers.kms.local import LocalKeys
from bessemer.main import identities
from bessemer.main.settings import Paths, load, state_directory
from bessemer.main.storage import keys_of, open_state

_OLD_RELEASE, _LOST = "(older release)", "lost"


@dataclass(frozen=True, slots=True)
class Under:
    """How much is under which key, wherever that was heard."""

    current: str
    data_keys: Mapping[str, int]
    values: Mapping[str, int]
    left: int


def keys(options: KeyOptions) -> int:
    """Do what is asked and show the keys; 1 where something is still under an old one. Raises Conflict, Unavailable,
    OSError."""
    paths = Paths(state_directory(options.state))
    ring, console = keys_of(paths), Console()
    if options.act == "stage":
        _say(console, f"{ring.stage()} is staged: copy {paths.keys} to every replica, then rotate on each")
        return 0
    if options.act == "rotate":
        _say(console, f"{ring.rotate()} seals from now on")
    under = asyncio.run(_ask(paths, options))
    console.print(_table(ring, under), highlight=False, markup=False, soft_wrap=True)
    if options.remove:
        gone = _removed(ring, under)
        _say(console, f"removed: {', '.join(gone) or 'nothing'}")
    return int(under.left > 0)


async def _ask(paths: Paths, options: KeyOptions) -> Under:
    """Of the api; where none runs, of the store itself."""
    from bessemer.client import Unreachable, connect

    url = identities.urls(load(paths))["api"]
    client = connect(url, ca=paths.ca_certificate, cert=paths.certificate(identities.ADMIN))
    try:
        if options.act == "show":
            return _told(await client.sealed.keys())
        return _told(await client.sealed.rotate(values=options.values))
    except Unreachable:
        return await _here(paths, options)
    finally:
        await client.close()


async def _here(paths: Paths, options: KeyOptions) -> Under:
    with closing(open_state(paths, load(paths), clock=SystemClock())) as store:
        if options.act == "show":
            return _counted(await store.sealed.keys())
        return _counted(await store.sealed.rotate(values=options.values))


def _told(said: Mapping[str, Any]) -> Under:
    return Under(said["current"], said["dataKeys"], said["values"], said["left"])


def _counted(keys: SealedKeys) -> Under:
    return Under(keys.current, keys.data_keys, keys.values, keys.left)


def _table(ring: LocalKeys, under: Under) -> str:
    names = sorted({*ring.ring.ids, *under.data_keys, *under.values})
    rows = []
    for name in names:
        state = "current" if name == under.current else "here" if name in ring.ring.ids else "missing"
        state = {"": "sealed directly", _LOST: "data key lost"}.get(name, state)
        counts = (str(under.data_keys.get(name, 0)), str(under.values.get(name, 0)))
        rows.append([name or _OLD_RELEASE, state, *counts])
    return render.columns(["KEY", "STATE", "DATA KEYS", "VALUES"], rows)


def _removed(ring: LocalKeys, under: Under) -> list[str]:
    """Raises Conflict while something is still under an old key, or nothing under the new: then replicas of a database
    know one another by the key that they began with."""
    if under.left:
        raise Conflict("something is still under an old key: nothing is removed")
    if not under.data_keys:
        raise Conflict("nothing is sealed yet: nothing is removed")
    return ring.remove(frozenset([*under.data_keys, under.current]))


def _say(console: Console, words: str) -> None:
    console.print(words, highlight=False, markup=False, soft_wrap=True)
