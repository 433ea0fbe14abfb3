"""What seals and opens values: under data keys, which whoever is handed in wraps (`ports.Wrapping`).

A sealed value is `MAGIC`, the id of its data key, a nonce and the ciphertext; object, field and data key are bound into
it, so it opens nowhere else. A data key seals up to `VALUES_EACH` values, for `SEALS_SECONDS` at most, and only while
the key that wrapped it is current. Unwrapped ones stay in memory for `KEPT_SECONDS`: so long one may read and write on
while whoever wraps is away.

`Vault.seal` waits for nothing, so that it can run within a transaction; whoever is about to write awaits `Vault.ready`
before. It knows no table: see `sealed`. Values without `MAGIC` are of a release that sealed under the key itself.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

from cryptography.exceptions import InvalidTag

from bessemer.core.clock import Clock
from bessemer.core.errors import Unavailable
from bessemer.core.ports import Wrapping
from bessemer.core.sealing import KeyRing, decrypt, encrypt

MAGIC = b"bsv2"
ID_BYTES = 16
VALUES_EACH = 4096
SEALS_SECONDS = 3600.0
KEPT_SECONDS = 3600.0
KEPT_MAX = 1024
LOOK_SECONDS = 10.0
"""So often it is asked which key is current, where values are written."""


class DataKey(NamedTuple):
    """As it is kept. ``name`` is its id, hexadecimal; ``kek`` is the id of the key that wrapped it."""

    name: str
    kek: str
    wrapped: bytes


Find = Callable[[str], Awaitable[DataKey | None]]
"""A data key by its id, where it is kept."""


@dataclass(slots=True)
class _Sealing:
    """The data key that seals now."""

    kept: DataKey
    key: bytes
    until: float
    values: int = 0


class Vault:
    """``wrapping`` holds the key-encryption keys. ``direct`` are keys under which an older release sealed values."""

    def __init__(self, wrapping: Wrapping, *, clock: Clock, direct: Callable[[], KeyRing]) -> None:
        self.wrapping = wrapping
        self._clock = clock
        self._direct = direct
        self._sealing: _Sealing | None = None
        self._looked = -LOOK_SECONDS
        self._opened: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self._one = asyncio.Lock()

    async def ready(self) -> None:
        """Have a data key at hand. Raises Unavailable where there is none and none can be made."""
        if self._good() and self._clock.monotonic() < self._looked + LOOK_SECONDS:
            return
        async with self._one:
            try:
                await self._renew()
            except Unavailable:
                if not self._good():
                    raise

    def forget(self) -> None:
        """Look anew which key is current before the next value is sealed."""
        self._looked = -LOOK_SECONDS

    async def turn(self) -> None:
        """Seal under another data key from now on, which takes the place of the one at hand. Raises Unavailable."""
        async with self._one:
            await self._make()

    def seal(self, secret: bytes, *, uid: str, field: str) -> tuple[bytes, DataKey]:
        """The sealed value, and the data key that must be kept with it. Raises Unavailable before `ready`."""
        sealing = self._sealing
        if sealing is None:
            raise Unavailable("there is no data key at hand; try again")
        sealing.values += 1
        head = MAGIC + bytes.fromhex(sealing.kept.name)
        return head + encrypt(sealing.key, secret, context=_bound(uid, field, head=head)), sealing.kept

    async def open(self, sealed: bytes, find: Find, *, uid: str, field: str) -> bytes:
        """The value. Raises Unavailable, with the reason."""
        name = data_key_of(sealed)
        if not name:
            return self._direct().open_direct(sealed, _bound(uid, field))
        head, rest = sealed[: len(MAGIC) + ID_BYTES], sealed[len(MAGIC) + ID_BYTES :]
        key = await self._unwrapped(name, find)
        try:
            return decrypt(key, rest, context=_bound(uid, field, head=head))
        except (InvalidTag, ValueError) as error:
            raise Unavailable("a sealed value cannot be opened", internal=f"{field} of {uid}") from error

    async def rewrapped(self, kept: DataKey) -> DataKey:
        """The same data key under the current key. Raises Unavailable."""
        key = await self.wrapping.unwrap(kept.wrapped, name=kept.kek, context=_context(kept.name))
        kek, wrapped = await self.wrapping.wrap(key, context=_context(kept.name))
        return DataKey(kept.name, kek, wrapped)

    def _good(self) -> bool:
        """Whether the data key that seals may go on."""
        sealing = self._sealing
        return sealing is not None and sealing.values < VALUES_EACH and self._clock.monotonic() < sealing.until

    async def _renew(self) -> None:
        """Make a data key unless the one at hand is good, and under the current key."""
        now = self._clock.monotonic()
        if self._good() and now < self._looked + LOOK_SECONDS:
            return  # another has just looked
        current = await self.wrapping.current()
        if not (self._good() and self._sealing is not None and self._sealing.kept.kek == current):
            await self._make()
        self._looked = now

    async def _make(self) -> None:
        key, name = secrets.token_bytes(32), secrets.token_hex(ID_BYTES)
        kek, wrapped = await self.wrapping.wrap(key, context=_context(name))
        self._sealing = _Sealing(DataKey(name, kek, wrapped), key, self._clock.monotonic() + SEALS_SECONDS)

    async def _unwrapped(self, name: str, find: Find) -> bytes:
        if self._sealing is not None and self._sealing.kept.name == name:
            return self._sealing.key
        if (key := self._held(name)) is not None:
            return key
        async with self._one:
            if (key := self._held(name)) is not None:
                return key
            kept = await find(name)
            if kept is None:
                raise Unavailable("a sealed value cannot be opened: its data key is gone", internal=name)
            key = await self.wrapping.unwrap(kept.wrapped, name=kept.kek, context=_context(name))
            self._opened[name] = (key, self._clock.monotonic() + KEPT_SECONDS)
            while len(self._opened) > KEPT_MAX:
                self._opened.popitem(last=False)
            return key

    def _held(self, name: str) -> bytes | None:
        key, until = self._opened.get(name, (b"", 0.0))
        return key if key and self._clock.monotonic() < until else None


def data_key_of(sealed: bytes) -> str:
    """The id of the data key that a value is under, or "" for one of an older release."""
    if sealed[: len(MAGIC)] != MAGIC or len(sealed) < len(MAGIC) + ID_BYTES:
        return ""
    return sealed[len(MAGIC) : len(MAGIC) + ID_BYTES].hex()


def _bound(uid: str, field: str, *, head: bytes = b"") -> bytes:
    return f"{uid}\0{field}".encode() + (b"\0" + head if head else b"")


def _context(name: str) -> bytes:
    return b"bessemer data key " + name.encode()
