"""The chain of the audit trail, and who checks it: rows whose digests hang together, and signed heads.

A row's digest is SHA-256 over the digest before it and the row (`digest`). A `Head` says, signed, which row had which
digest; as ``base`` it also says that the rows up to it were archived and dropped. Who changes rows can compute digests
anew and cannot sign, so a `Verifier` that knows the key finds what was changed, and where. A file of the trail is JSON
lines: ``{"trail": 1, "key": …, "after": N, "digest": …}`` first, then rows in order with ``{"head": …}`` lines among
them, each after its row; a head of a row that is not there stands last.

Pure: it reads no store and no file. What it checks it takes to be hostile.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from bessemer.core.errors import Malformed
from bessemer.core.ports import AuditRow
from bessemer.core.resource import Key, tenant_of

FORMAT = 1
_PREFIX = b"bessemer audit head 1\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """That row ``id`` had this digest at ``at``. ``key`` is the public key that signed it; key and signature are
    hexadecimal."""

    id: int
    digest: str
    at: float
    kind: Literal["head", "base"] = "head"
    key: str = ""
    signature: str = ""

    def message(self) -> bytes:
        """What is signed."""
        return _PREFIX + orjson.dumps([self.kind, self.id, self.digest, self.at])

    def good(self) -> bool:
        """Whether the signature is of its key. Whose key that is, is another question."""
        try:
            public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.key))
            public.verify(bytes.fromhex(self.signature), self.message())
        except (ValueError, InvalidSignature):
            return False
        return True


@dataclass(frozen=True, slots=True)
class Fault:
    """Where a trail stops being what it was. ``row`` is the first that does not fit; rows up to ``sound`` are those
    that the last good head vouches for."""

    row: int
    words: str
    sound: int = 0


class Signer:
    """Signs heads with an Ed25519 key of 32 bytes. Raises ValueError for another length."""

    def __init__(self, key: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(key)
        self.public = self._key.public_key().public_bytes_raw().hex()

    def sign(self, head: Head) -> Head:
        """The head with key and signature."""
        return replace(head, key=self.public, signature=self._key.sign(head.message()).hex())


def digest(before: str, row: AuditRow) -> str:
    """Of a row after the one that has the digest ``before`` ("" for the first)."""
    said = [row.id, row.at, row.writer, row.verb, row.key, row.uid, row.allowed, row.reason, row.request_id, row.source]
    return digest_of(before, said, change=row.change)


def digest_of(before: str, said: Sequence[Any], *, change: str) -> str:
    """The same of a row's first ten fields, in order. Rows of older releases say nothing of what was changed."""
    whole = [before, *said, change] if change else [before, *said]
    return hashlib.sha256(orjson.dumps(whole)).hexdigest()


def read_key(text: str) -> Key:
    """The key that a row names."""
    kind, _, place = text.partition(" ")
    namespace, slash, name = place.partition("/")
    return Key(kind, namespace, name) if slash else Key(kind, "", place)


def tenant_of_key(text: str) -> str:
    """Whose the object is that a row names, or ""."""
    kind, _, place = text.partition(" ")
    namespace, slash, _ = place.partition("/")
    if slash:
        return tenant_of(namespace)
    return place if kind == "Tenant" else tenant_of(place) if kind == "Project" else ""


class Verifier:
    """Is fed rows and heads in order, and then asked for its end; answers the first `Fault` each time.

    ``trusted`` are the public keys whose heads count; one that another key signed is a fault. ``after`` and ``digest``
    are of the row before the first that it is fed.
    """

    def __init__(self, trusted: Iterable[str], *, after: int = 0, digest: str = "") -> None:
        self._trusted = frozenset(trusted)
        self._begun = after
        self._last, self._digest = after, digest
        self.sound = 0
        """Up to which row a good head vouches."""
        self._beyond: Head | None = None
        self.heads = 0
        """How many good heads of rows that are here were seen."""
        self.rows = 0

    @property
    def last(self) -> int:
        """The last row that fits."""
        return self._last

    def row(self, row: AuditRow) -> Fault | None:
        """The next row."""
        if row.id > self._last + 1:
            missing = f"row {self._last + 1}" if row.id == self._last + 2 else f"rows {self._last + 1} to {row.id - 1}"
            return self._fault(row.id, f"{missing} before row {row.id} was taken out")
        if row.id <= self._begun:
            words = f"row {row.id} stands before the first: inserted, or left where a trim stopped"
            return self._fault(row.id, words)
        if row.id <= self._last:
            return self._fault(row.id, f"row {row.id} stands where row {self._last + 1} should")
        if row.digest != digest(self._digest, row):
            return self._fault(row.id, f"row {row.id} does not fit the row before it: one of them was changed")
        if row.tenant != tenant_of_key(row.key) and (row.tenant or row.change):
            return self._fault(row.id, f"row {row.id} is said to be of another tenant than its object")
        self._last, self._digest = row.id, row.digest
        self.rows += 1
        return None

    def head(self, head: Head) -> Fault | None:
        """A head: of the last row that was fed, or of one that does not come."""
        if not (head.good() and head.key in self._trusted):
            return self._fault(head.id, f"the head of row {head.id} is signed by nobody who is trusted")
        if head.id > self._last:
            self._beyond = self._beyond or head
        elif head.id == self._last and self._digest and head.digest != self._digest:
            words = f"rows {self.sound + 1} to {head.id} fit one another, and not the head that was signed of them"
            return self._fault(self.sound + 1, f"{words}: they were computed anew")
        elif head.id == self._last:
            self.sound = head.id
            self.heads += 1
        elif head.id > self._begun:
            return self._fault(head.id, f"the head of row {head.id} stands after row {self._last}")
        return None

    def end(self) -> Fault | None:
        """Nothing more comes."""
        if self._beyond is None:
            return None
        there = f"row {self._beyond.id} was signed, and the trail ends with row {self._last}"
        return self._fault(self._last + 1, f"{there}: its end was cut off")

    def _fault(self, row: int, words: str) -> Fault:
        return Fault(row, words, self.sound)


class FileVerifier:
    """Checks a file of the trail line by line. Without ``trusted`` it takes the key that the file names: then the
    file is whole as far as whoever made it is honest, which `key` lets others judge."""

    def __init__(self, trusted: Iterable[str] = (), *, heads: Iterable[Head] = (), joint: int = 0) -> None:
        self._given = frozenset(trusted)
        self._known = sorted(heads, key=lambda head: head.id)
        self._checks: Verifier | None = None
        self._joint = joint
        self.joined = ""
        """The digest of row ``joint``, where the next file begins; "" until it was seen."""
        self.begins: tuple[int, str] = (0, "")
        """The row before the file's first, and its digest."""
        self.key = ""

    @property
    def checks(self) -> Verifier:
        """Raises Malformed where the file has not begun."""
        if self._checks is None:
            raise Malformed("this is no file of the trail: its first line does not say so")
        return self._checks

    def line(self, line: bytes | str) -> Fault | None:
        """The next line. Raises Malformed for what is none of a trail's."""
        try:
            said = orjson.loads(line)
            if self._checks is None:
                return self._begin(said)
            return self._next(said)
        except (KeyError, TypeError, ValueError) as error:
            raise Malformed("this is no line of a trail", internal=str(error)) from error

    def end(self) -> Fault | None:
        """The file is over."""
        return self._vouch(None) or self.checks.end()

    def _begin(self, said: Mapping[str, Any]) -> Fault | None:
        if said["trail"] != FORMAT:
            raise Malformed(f"this is no trail of format {FORMAT}")
        self.key = str(said["key"])
        after, digest = int(said["after"]), str(said["digest"])
        self.begins = (after, digest)
        self._join(after, digest)
        self._checks = Verifier(self._given or {self.key}, after=after, digest=digest)
        self._known = [head for head in self._known if head.id > after]
        return None

    def _next(self, said: Mapping[str, Any]) -> Fault | None:
        if "head" in said:
            return self.checks.head(head_of(said["head"]))
        row = row_of(said)
        self._join(row.id, row.digest)
        return self._vouch(row.id) or self.checks.row(row)

    def _join(self, number: int, digest: str) -> None:
        if number == self._joint:
            self.joined = digest

    def _vouch(self, before: int | None) -> Fault | None:
        """Heads that the caller knows, of rows before this one."""
        while self._known and (before is None or self._known[0].id < before):
            if fault := self.checks.head(self._known.pop(0)):
                return fault
        return None


def row_of(said: Mapping[str, Any]) -> AuditRow:
    """From its line. Raises KeyError, TypeError, ValueError."""
    values = {field.name: said[field.name] for field in fields(AuditRow)}
    if not isinstance(values["id"], int) or any(not isinstance(values[n], str) for n in ("key", "digest", "change")):
        raise TypeError("a row has a number, and texts")
    return AuditRow(**values)


def head_of(said: Mapping[str, Any]) -> Head:
    """From its line. Raises KeyError, TypeError, ValueError."""
    values = {field.name: said[field.name] for field in fields(Head)}
    if not isinstance(values["id"], int) or any(not isinstance(values[n], str) for n in ("digest", "key", "signature")):
        raise TypeError("a head has a number, and texts")
    return Head(**values)


def line(said: AuditRow | Head | Mapping[str, Any]) -> bytes:
    """One line of a file of the trail, with its end."""
    value = {"head": asdict(said)} if isinstance(said, Head) else asdict(said) if isinstance(said, AuditRow) else said
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)


def opening(key: str, *, after: int, digest: str) -> bytes:
    """The first line of a file."""
    return line({"trail": FORMAT, "key": key, "after": after, "digest": digest})
