"""A repository on a hub that speaks Hugging Face's HTTP protocol, as its documentation describes it.

``GET /api/models/REPO/revision/REV`` says which commit a revision is, ``…/tree/COMMIT`` lists files with their sizes
and, of large ones, SHA-256; ``GET /REPO/resolve/COMMIT/PATH`` gives one, mostly by a redirect to storage. Everything is
asked at the commit, so that a branch that moves meanwhile changes nothing. All that a hub says is hostile.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urljoin

import orjson

from bessemer.core.errors import DriverError
from bessemer.drivers.fetch.protocol import HubPlace, Listed, Listing, Source
from bessemer.drivers.fetch.web import ANY, Asking, Said, Web, failed

PAGES_MAX, ENTRIES_MAX = 20, 10_000
SIZE_MAX = 1 << 50

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NEXT = re.compile(r'<([^<>\s]{1,4000})>; rel="next"')
_WORDS: Mapping[str, tuple[str, str]] = {
    "GatedRepo": ("SourceGated", "it is given to who accepted its terms there and asks with a token"),
    "RepoNotFound": ("SourceNotFound", "the hub has no such repository, or not for who asks"),
    "RevisionNotFound": ("SourceNotFound", "the repository has no such revision"),
    "EntryNotFound": ("SourceNotFound", "the repository has no such file"),
}


class HubOrigin:
    """Implements `protocol.Origin`. ``revision`` is a commit that stands in the place of the place's; ``token`` is told
    to the hub alone."""

    def __init__(self, web: Web, place: HubPlace, *, endpoint: str, revision: str = "", token: str = "") -> None:
        self._web = web
        self._place = place
        self._endpoint = endpoint.rstrip("/")
        self._revision = revision or place.revision
        self._secret = {"Authorization": f"Bearer {token}"} if token else {}

    async def listing(self) -> Listing:
        commit, gated = await self._commit()
        files: list[Listed] = []
        url = f"{self._endpoint}/api/models/{self._place.repository}/tree/{commit}?recursive=true&expand=false"
        for _ in range(PAGES_MAX):
            said = await self._ask(url)
            entries = _parsed(said)
            if not isinstance(entries, list) or len(entries) + len(files) > ENTRIES_MAX:
                raise DriverError("ImportFailed", f"the hub lists no files, or more than {ENTRIES_MAX}")
            files += [self._listed(one, commit) for one in entries if _is_file(one)]
            onward = _NEXT.search(said.headers.get("Link", "")[:5000])
            if onward is None:
                return Listing(commit, tuple(files), gated)
            url = urljoin(url, onward[1])
            if not url.startswith(self._endpoint + "/"):
                raise DriverError("AddressRefused", "the hub goes on with its list at another place")
        raise DriverError("ImportFailed", f"the hub lists more than {PAGES_MAX} pages of files")

    def source(self, file: Listed) -> Source:
        version = ANY if file.digest else file.version
        return lambda at: self._web.stream(Asking(url=file.where, secret=self._secret, offset=at), version=version)

    async def _commit(self) -> tuple[str, bool]:
        """The commit of the revision, and whether the repository is gated (by hand, by itself, or not at all)."""
        revision = quote(self._revision, safe="")
        found = _parsed(await self._ask(f"{self._endpoint}/api/models/{self._place.repository}/revision/{revision}"))
        said = found if isinstance(found, dict) else {}
        commit = said.get("sha")
        if not isinstance(commit, str) or _COMMIT.fullmatch(commit) is None:
            raise DriverError("ImportFailed", "the hub does not say which commit the revision is")
        return commit, said.get("gated", False) not in (False, None)

    async def _ask(self, url: str) -> Said:
        said = await self._web.whole(Asking(url=url, headers={"Accept": "application/json"}, secret=self._secret))
        if said.code == 200:
            return said
        reason, words = _WORDS.get(said.headers.get("X-Error-Code", ""), ("", ""))
        if reason:
            raise DriverError(reason, f"{self._place.repository}: {words}")
        raise failed(said.code, self._place.repository)

    def _listed(self, entry: Mapping[str, Any], commit: str) -> Listed:
        path, size, blob, large = entry["path"], entry.get("size"), entry.get("oid"), entry.get("lfs")
        if type(size) is not int or not 0 <= size <= SIZE_MAX or not isinstance(blob, str):
            raise DriverError("ImportFailed", f"the hub does not say what {path[:80]!r} is")
        digest = _lfs_digest(path, large) if large is not None else ""
        where = f"{self._endpoint}/{self._place.repository}/resolve/{commit}/{quote(path)}"
        known = blob if not digest and _COMMIT.fullmatch(blob) else ""
        return Listed(path=path, size_bytes=size, digest=digest, blob=known, version=f'"{blob}"', where=where)


def _is_file(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
        raise DriverError("ImportFailed", "the hub's list of files cannot be read")
    return entry.get("type") == "file"


def _lfs_digest(path: str, said: Any) -> str:
    oid = said.get("oid") if isinstance(said, dict) else None
    if not isinstance(oid, str) or _SHA256.fullmatch(oid) is None:
        raise DriverError("ImportFailed", f"the hub does not say which digest {path[:80]!r} has")
    return f"sha256:{oid}"


def _parsed(said: Said) -> Any:
    try:
        return orjson.loads(said.body)
    except ValueError:
        raise DriverError("ImportFailed", "the hub answers with something else than JSON") from None
