"""What is kept beside objects: the audit trail, and secrets that are sealed. Callers find it in `core.ports`.

Invariants: rows of the trail are never changed; a sealed value is never part of a body, and its keys are never in the
database. It says how ``store`` is reached, and keeps nothing itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from bessemer.core.resource import Key

if TYPE_CHECKING:
    from bessemer.core.ports import Writer
    from bessemer.core.trail import Fault  # it reads the library of signatures, which few need


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """One act, chained to the one before it: ``digest`` is SHA-256 over the row and the previous digest (`core.trail`).
    ``change`` is JSON that says what it changed, "" in rows of older releases; ``tenant`` is whose the object is."""

    id: int
    at: float
    writer: str
    verb: str
    key: str
    uid: str
    allowed: bool
    reason: str
    request_id: str
    source: str
    digest: str
    tenant: str = ""
    change: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which rows; "" and None are any. ``who`` is a name or ``user:NAME``. Times are seconds, ``until`` is outside."""

    who: str = ""
    verb: str = ""
    kind: str = ""
    namespace: str = ""
    name: str = ""
    tenant: str = ""
    allowed: bool | None = None
    since: float = 0.0
    until: float | None = None


class Audit(Protocol):
    """Who did what. Rows of allowed writes stand in the write's own transaction."""

    async def deny(self, writer: Writer, verb: str, key: Key, reason: str) -> None: ...

    async def note(self, writer: Writer, verb: str, *, key: Key, uid: str = "") -> None:
        """An act that writes no object of its own: a secret that is made or read, somebody who signs in."""
        ...

    async def rows(self, *, after: int = 0, limit: int = 1000) -> Sequence[AuditRow]: ...

    async def find(self, wanted: AuditFilter, *, before: int = 0, limit: int = 100) -> tuple[Sequence[AuditRow], int]:
        """The newest rows first, of those with a smaller id than ``before`` (0: of all); and what to give as
        ``before`` for the next, 0 at the end. Looks at a bounded number of rows, so it may find none and go on."""
        ...

    async def verify(self) -> Fault | None:
        """The first place where the trail is not what it was, or None."""
        ...

    async def sign(self) -> None:
        """Sign the last row now, where it is not signed yet, and tell it outside the database."""
        ...

    def export(self, *, after: int = 0) -> AsyncIterator[bytes]:
        """The trail as the lines of a file (`core.trail`), some at a time, up to the last row that is signed."""
        ...

    async def trim(self, through: int, *, digest: str, writer: Writer) -> int:
        """Drop the rows up to ``through``, which somebody has archived; its digest must be this. Answers how many went.
        Raises Conflict where it is another, or the trail up to there does not fit."""
        ...

    async def tidy(self) -> None:
        """Go on with a trim that was stopped."""
        ...


class Wrapping(Protocol):
    """Whoever holds the key-encryption keys: see `drivers.kms.protocol`."""

    async def current(self) -> str: ...

    async def ahead(self) -> frozenset[str]: ...

    async def wrap(self, key: bytes, *, context: bytes) -> tuple[str, bytes]: ...

    async def unwrap(self, wrapped: bytes, *, name: str, context: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True)
class SealedKeys:
    """How many data keys, and how many values, are under which key-encryption key. Values under "" are of a release
    before data keys; those under "lost" have no data key any more."""

    current: str
    data_keys: Mapping[str, int]
    values: Mapping[str, int]

    @property
    def left(self) -> int:
        """How much is not under the current key yet: data keys, and values without one."""
        return sum(count for key, count in self.data_keys.items() if key != self.current) + self.values.get("", 0)


class Sealed(Protocol):
    """Secrets by object uid and field, encrypted at rest, never part of a body; removed with their object."""

    async def put(self, uid: str, field: str, secret: bytes) -> None: ...

    async def get(self, uid: str, field: str) -> bytes | None: ...

    async def keys(self) -> SealedKeys:
        """Raises Unavailable."""
        ...

    async def rotate(self, *, values: bool = False) -> SealedKeys:
        """Bring all data keys under the current key now, and with ``values`` all values under new data keys. Raises
        Unavailable where some of it cannot be done now."""
        ...

    async def tidy(self) -> None:
        """The same, without being asked, and without an error."""
        ...
