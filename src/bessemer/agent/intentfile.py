"""How an agent keeps its intent: one file per Claim, named by the Claim's uid.

A file is one line ``bessemer-intent VERSION SHA256`` and the JSON that the digest covers. It is written beside itself,
flushed, renamed, and its directory is flushed, so that after a crash at any point the old or the new file is there,
whole. What cannot be read is set aside, never deleted: the api has the Claim, and a person may want to look. Readers of
older versions stay here for as long as there are hosts; a version is never reused.

It is not a database: nothing is searched here, and who may say what is decided in `intent`.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import orjson
import structlog

from bessemer.core import durable
from bessemer.core.errors import DriverError, Malformed
from bessemer.core.resource import Key

VERSION = 1
_MAGIC = b"bessemer-intent"
_SUFFIX = ".intent"
_ASIDE = ".unreadable"
_UID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What is known of one Claim. ``claim`` is the api's body without status, ``status`` what this agent last said.

    ``released``: the api has it no longer (its host was fenced, or it was released while we were away), so what is left
    of it here is taken away and nobody is told.
    """

    uid: str
    claim: Mapping[str, Any]
    status: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    released: bool = False

    @property
    def deleting(self) -> bool:
        return self.released or bool(self.claim["metadata"].get("deletionTimestamp"))

    @property
    def phase(self) -> str:
        return str(self.status.get("phase", "Pending"))

    @property
    def key(self) -> Key:
        metadata = self.claim["metadata"]
        return Key("Claim", metadata.get("namespace", ""), metadata["name"])

    @property
    def wanted(self) -> tuple[Any, ...]:
        """What of a Claim matters on its host; the rest (labels, our own status coming back) is no change."""
        metadata = self.claim["metadata"]
        return metadata.get("generation"), metadata.get("deletionTimestamp"), self.claim["spec"]

    def ended(self, now: str) -> Intent:
        """The same, released, so that what is left of it here goes away. ``now`` is RFC 3339."""
        metadata = {"deletionTimestamp": now, **self.claim["metadata"]}
        return replace(self, claim={**self.claim, "metadata": metadata}, released=True)

    def body(self) -> Mapping[str, Any]:
        """What the api gets: the Claim as it gave it, with our status; no revision, since nobody else writes that."""
        metadata = {name: value for name, value in self.claim["metadata"].items() if name != "resourceVersion"}
        return {**self.claim, "metadata": metadata, "status": dict(self.status)}


class IntentFiles(Protocol):
    """Where intent survives. Each method may raise DriverError ``DiskFull`` or ``DiskFailed``."""

    async def load(self) -> list[Intent]:
        """All that can be read, oldest first."""
        ...

    async def write(self, intent: Intent) -> None:
        """Returns when it would survive the end of the machine's power."""
        ...

    async def remove(self, uid: str) -> None:
        """What is not there is fine."""
        ...


class IntentMemory:
    """Intent of a fake host: nothing survives, as nothing that it runs does."""

    async def load(self) -> list[Intent]:
        return []

    async def write(self, intent: Intent) -> None:
        """There is nothing to do."""

    async def remove(self, uid: str) -> None:
        """There is nothing to do."""


class IntentDirectory:
    """Intent files of one agent in one directory, 0700."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def load(self) -> list[Intent]:
        return await asyncio.to_thread(self._load)

    async def write(self, intent: Intent) -> None:
        await asyncio.to_thread(self._write, intent.uid, encode(intent))

    async def remove(self, uid: str) -> None:
        await asyncio.to_thread(self._remove, uid)

    def _load(self) -> list[Intent]:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for half in self._directory.glob("*.new"):
            half.unlink(missing_ok=True)
        found: list[Intent] = []
        for path in sorted(self._directory.glob(f"*{_SUFFIX}"), key=lambda p: (p.stat().st_mtime_ns, p.name)):
            try:
                intent = decode(path.read_bytes())
                if intent.uid != path.stem:
                    raise Malformed(f"the file of {path.stem} speaks of {intent.uid}")
            except Malformed as error:
                log.error("intent file set aside", object_uid=path.stem, path=str(path), reason=str(error))
                path.rename(path.with_suffix(_ASIDE))
                continue
            found.append(intent)
        return found

    def _write(self, uid: str, data: bytes) -> None:
        path = self._path(uid)
        try:
            durable.put(path, data)
        except OSError as error:
            raise _refused(error, path) from error

    def _remove(self, uid: str) -> None:
        path = self._path(uid)
        try:
            path.unlink(missing_ok=True)
            path.with_suffix(_ASIDE).unlink(missing_ok=True)
            durable.settle(self._directory)
        except OSError as error:
            raise _refused(error, path) from error

    def _path(self, uid: str) -> Path:
        """The uid comes from another machine and becomes a file name."""
        if _UID.fullmatch(uid) is None:
            raise Malformed(f"not a uid: {uid[:64]!r}")
        return self._directory / f"{uid}{_SUFFIX}"


def encode(intent: Intent) -> bytes:
    """The file of an intent, in the newest version."""
    body = orjson.dumps(
        {"uid": intent.uid, "claim": intent.claim, "status": dict(intent.status), "released": intent.released},
        option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2,
    )
    return b"%b %d %b\n%b\n" % (_MAGIC, VERSION, hashlib.sha256(body).hexdigest().encode(), body)


def decode(data: bytes) -> Intent:
    """Read a file of any version there ever was. Raises Malformed with what is wrong."""
    head, _, rest = data.partition(b"\n")
    words = head.split(b" ")
    if len(words) != 3 or words[0] != _MAGIC or not words[1].isdigit():
        raise Malformed("no intent file")
    body = rest.removesuffix(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != words[2]:
        raise Malformed("the checksum does not fit")
    reader = _READERS.get(int(words[1]))
    if reader is None:
        raise Malformed(f"version {int(words[1])} is newer than this agent")
    try:
        return reader(orjson.loads(body))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Malformed(f"not the fields of version {int(words[1])}", internal=repr(error)) from error


def _read_1(fields: Mapping[str, Any]) -> Intent:
    claim = fields["claim"]
    if claim["metadata"]["uid"] != fields["uid"]:
        raise ValueError("two uids")
    return Intent(uid=fields["uid"], claim=claim, status=fields["status"], released=fields["released"])


_READERS: Mapping[int, Callable[[Mapping[str, Any]], Intent]] = MappingProxyType({1: _read_1})


def _refused(error: OSError, path: Path) -> DriverError:
    if error.errno in _FULL:
        return DriverError("DiskFull", "no space is left on the host to keep the intent", internal=f"{path}: {error}")
    return DriverError("DiskFailed", "the host cannot keep the intent", internal=f"{path}: {error}")
