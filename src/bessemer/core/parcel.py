"""Named parts in a strongbox, each with what it came to, and a list of all of them at the end.

A record is one letter and what it is about: ``B`` and facts in JSON, first; for each part ``P`` and its name, its
content as ``D`` (as it is) or ``Z`` (zlib), ``E`` and its `Sum`; last of all ``S`` with facts and every `Sum`. A reader
holds what it reads against each of them. A part's content is bytes to this, and entries that somebody counts.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from bessemer.core import strongbox
from bessemer.core.errors import Invalid

_CONTENT_BYTES_MAX = strongbox.RECORD_BYTES_MAX
Facts = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """What a part came to: ``entries`` (rows of a table, 0 of a file), bytes, and their SHA-256."""

    name: str
    entries: int
    bytes: int
    sha256: str


class Packing:
    """Writes a parcel: parts in any order, then its end."""

    def __init__(self, box: strongbox.Writer, facts: Facts) -> None:
        self._box = box
        self.sums: list[Sum] = []
        box.add(b"B" + orjson.dumps(facts))

    def part(self, name: str, content: Iterable[tuple[bytes, int]], *, packed: bool = True) -> Sum:
        """Another part; ``content`` is bytes and how many entries they are, and made smaller where that is
        ``packed``. Raises OSError."""
        self._box.add(b"P" + name.encode())
        entries, size, digest = 0, 0, hashlib.sha256()
        for some, count in content:
            entries, size = entries + count, size + len(some)
            digest.update(some)
            self._box.add(_smaller(some) if packed else b"D" + some)
        found = Sum(name=name, entries=entries, bytes=size, sha256=digest.hexdigest())
        self._box.add(b"E" + orjson.dumps(asdict(found)))
        self.sums.append(found)
        return found

    def end(self, facts: Facts) -> None:
        """Nothing more comes."""
        self._box.end(b"S" + orjson.dumps({**facts, "parts": [asdict(one) for one in self.sums]}))


def _smaller(some: bytes) -> bytes:
    packed = zlib.compress(some, 1)
    return b"Z" + packed if len(packed) < len(some) else b"D" + some


class Unpacking:
    """Reads a parcel once. ``name`` is what errors call it. Raises Invalid where it is not as it was written."""

    def __init__(self, records: Iterator[tuple[bytes, bool]], *, name: str) -> None:
        self._records = records
        self._name = name
        self.sums: list[Sum] = []
        self.summary: dict[str, Any] = {}
        """What `Packing.end` was told; there once `parts` has ended."""
        letter, self.facts = self._next()
        self._require(letter == "B")

    def parts(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        """The name of each, and its content, which is read to its end before the next."""
        while True:
            letter, said = self._next()
            if letter == "S":
                self.summary = said
                self._require(said["parts"] == [asdict(one) for one in self.sums])
                return
            self._require(letter == "P")
            content = self._content(said)
            yield said, content
            for _ in content:
                continue

    def _content(self, name: str) -> Iterator[bytes]:
        size, digest = 0, hashlib.sha256()
        while True:
            letter, said = self._next()
            if letter != "D":
                break
            size += len(said)
            digest.update(said)
            yield said
        self._require(
            letter == "E" and (said["name"], said["bytes"], said["sha256"]) == (name, size, digest.hexdigest())
        )
        self.sums.append(Sum(**said))

    def _next(self) -> tuple[str, Any]:
        """The next record, by its letter. The strongbox has said that it is as somebody with the key wrote it."""
        record, last = next(self._records, (b"?", False))
        letter, rest = record[:1].decode(errors="replace"), record[1:]
        self._require(last == (letter == "S"))
        if letter in "BES":
            return letter, orjson.loads(rest)
        if letter == "Z":
            return "D", self._larger(rest)
        return letter, rest.decode() if letter == "P" else rest

    def _larger(self, packed: bytes) -> bytes:
        unpacking = zlib.decompressobj()
        some = unpacking.decompress(packed, _CONTENT_BYTES_MAX)
        self._require(unpacking.eof)
        return some

    def _require(self, good: bool) -> None:
        if not good:
            raise Invalid(f"{self._name} does not hold together: it was not written as backups are")
