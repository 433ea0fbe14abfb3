"""The store of an installation: opened in one way by whoever of ours needs it, and known again by each replica.

It is the state directory's file, or the database that the setting ``store`` names. The address bears no password, so
that none is shown by `ps`, logs or errors: it comes from ``keys/store.password``, or from where libpq looks.

A database is many replicas', each with a state directory of its own. What they must have in common (authority, keys,
content) is marked in the database, by digests that tell nothing; a replica that has others is refused.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from bessemer.core.clock import Clock
from bessemer.core.errors import Invalid
from bessemer.core.ports import Lease
from bessemer.drivers.kms.local import LocalKeys
from bessemer.kinds import KINDS
from bessemer.main import identities
from bessemer.main.settings import STORE_PASSWORD, Paths, Settings, given_keys, heads_of, require_address
from bessemer.store import Guard, Store, open_store, store_kinds
from bessemer.store.compaction import History
from bessemer.store.heads import Signing

INSTALLATION = "installation"
CONTENT_ID = "installation.id"
"""In the content's folder: whose it is."""

_FOR_GOOD_SECONDS = 100 * 365 * 86_400.0
_ABOUT = b"bessemer installation v1"
SEAL = "seal key"
_KEYS: Mapping[str, str] = {
    "gateway key": identities.GATEWAY_KEY,
    "audit key": identities.AUDIT_KEY,
}
_REMEDIES: Mapping[str, str] = {
    "authority": "copy `ca/` of the first replica here, and remove `certs/`",
    SEAL: "copy `keys/seal.key`, and what lies beside it as `keys/seal-*.key`, of the first replica here",
    "gateway key": "copy `keys/gateway.key` of the first replica here",
    "audit key": "copy `keys/audit.key` of the first replica here",
}


def open_state(paths: Paths, settings: Settings, *, clock: Clock, history: History | None = None) -> Store:
    """The installation's store, with its own key. Raises what `open_store` does, Invalid for an address that cannot be
    used, and OSError where the key is gone."""
    where, kinds = located(paths, settings), store_kinds(KINDS)
    return open_store(where, clock=clock, kinds=kinds, guard=guard_of(paths), history=history)


def guard_of(paths: Paths) -> Guard:
    """The installation's keys, as the store asks for them. Raises OSError where the trail's is gone."""
    keys = keys_of(paths)
    return Guard(keys, lambda: keys.ring, Signing(identities.key_of(paths, identities.AUDIT_KEY), heads_of(paths)))


def keys_of(paths: Paths) -> LocalKeys:
    """Who wraps: the installation's key files, and before them what the environment gives."""
    given, coming = given_keys()
    return LocalKeys(paths.keys, given=given, coming=coming)


def located(paths: Paths, settings: Settings) -> str | Path:
    """The file, or the database's address with its password: not to be shown. Raises Invalid, before anything is tried,
    for an address that cannot be used."""
    if not settings.store:
        return paths.store
    require_address(settings.store)
    if paths.store.exists():
        raise Invalid(f"{paths.store} holds an installation, and the setting `store` names a database: move one away")
    return with_password(paths, settings.store)


def with_password(paths: Paths, address: str) -> str:
    """The address of a database with the password that is kept for it: not to be shown."""
    file = paths.keys / STORE_PASSWORD
    if not file.exists():
        return address
    mark = "&" if "?" in address else "?"
    return f"{address}{mark}password={quote(file.read_text().strip(), safe='')}"


async def agree(store: Store, paths: Paths) -> None:
    """Mark a new database as this installation's, or see that it is. Raises Invalid, with what to do, where it is
    another's."""
    mine, mark = await _mark(store, paths), await _lease(store)
    if mark is None:
        words = json.dumps(mine, sort_keys=True)
        holder = hashlib.sha256(words.encode()).hexdigest()
        if await store.leases.acquire(INSTALLATION, holder, _FOR_GOOD_SECONDS, note=words):
            return
        mark = await _lease(store)
    kept: dict[str, str] = json.loads(mark.note) if mark is not None else {}
    for name, digest in kept.items():
        if mine.get(name) != digest and not (name == SEAL and await _opens(store, paths, since=digest)):
            remedy = _remedy(name, paths, digest=digest)
            raise Invalid(f"this replica's {name} is not that of the installation in the database: {remedy}")
    if mark is not None and kept.get(SEAL) not in {mine[SEAL], *await keys_of(paths).ahead()}:
        # The mark follows the key, so that the old one may go. Whoever renews it has what was marked, all of it.
        fresh = json.dumps({**kept, SEAL: mine[SEAL]}, sort_keys=True)
        await store.leases.acquire(INSTALLATION, mark.holder, _FOR_GOOD_SECONDS, note=fresh)


async def _opens(store: Store, paths: Paths, *, since: str) -> bool:
    """Whether this replica has the keys that everything is under now, whatever the first one was."""
    needed = frozenset((await store.sealed.keys()).data_keys) or {since}
    return needed <= keys_of(paths).ring.ids


async def _mark(store: Store, paths: Paths) -> dict[str, str]:
    """What this replica has, as the database may know it."""
    marks = {"authority": hashlib.sha256(paths.ca_certificate.read_bytes()).hexdigest()[:32]}
    marks[SEAL] = await keys_of(paths).current()
    for name, key in _KEYS.items():
        marks[name] = hmac.new(identities.key_of(paths, key), _ABOUT, "sha256").hexdigest()[:32]
    content = paths.content / CONTENT_ID
    if not content.exists() and not await _kept(store):
        paths.content.mkdir(parents=True, exist_ok=True, mode=0o700)
        with suppress(FileExistsError), content.open("x") as file:  # another replica is first
            file.write(secrets.token_hex(16))
    return {**marks, "content": content.read_text().strip() if content.exists() else ""}


async def _kept(store: Store) -> dict[str, str]:
    mark = await _lease(store)
    kept: dict[str, str] = json.loads(mark.note) if mark is not None else {}
    return kept


async def _lease(store: Store) -> Lease | None:
    held = await store.leases.held(INSTALLATION)
    return next((lease for lease in held if lease.name == INSTALLATION), None)


def _remedy(name: str, paths: Paths, *, digest: str) -> str:
    if name != "content":
        return _REMEDIES[name]
    file = paths.content / CONTENT_ID
    return (
        f"{paths.content} is to be the folder that all replicas share (mounted there, or a link); where that is lost "
        f"for good, `echo {digest} > {file}` begins an empty one"
    )
