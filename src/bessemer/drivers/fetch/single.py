"""One file at a URL."""

from __future__ import annotations

import re
from urllib.parse import unquote

from bessemer.drivers.fetch.protocol import HttpPlace, Listed, Listing, Source
from bessemer.drivers.fetch.reach import Reach
from bessemer.drivers.fetch.web import Asking, Web

_STRANGE = re.compile(r"[^A-Za-z0-9._+=-]")


class HttpOrigin:
    """Implements `protocol.Origin`: its size and version are those of an answer that is read no further. ``token`` is
    told to the URL's own host, and not whither that redirects."""

    def __init__(self, web: Web, place: HttpPlace, *, reach: Reach, token: str = "") -> None:
        self._web = web
        self._place = place
        self._reach = reach
        self._secret = {"Authorization": f"Bearer {token}"} if token else {}

    async def listing(self) -> Listing:
        url = self._reach.check_url(self._place.url)
        size, version = await self._web.likeness(Asking(url=self._place.url, secret=self._secret))
        name = _STRANGE.sub("_", unquote(url.path).rpartition("/")[2]).lstrip(".-+=") or "model"
        file = Listed(path=name, size_bytes=size, version=version, where=self._place.url)
        return Listing("", (file,))

    def source(self, file: Listed) -> Source:
        return lambda at: self._web.stream(Asking(url=file.where, secret=self._secret, offset=at), version=file.version)
