"""What does not change: style, scripts, fonts, icons. Read once, named by content, kept by browsers for a year."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

STATIC = Path(__file__).parent / "static"
TYPES: Mapping[str, str] = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
_FOREVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Asset:
    """One file. ``packed`` is its gzip, or empty where that would not help."""

    body: bytes
    packed: bytes
    type: str
    etag: str


class Assets:
    """Every file below `STATIC` with a known type. One digest names them all, so that they refer to each other."""

    def __init__(self, folder: Path = STATIC) -> None:
        self._files = {
            path.relative_to(folder).as_posix(): _read(path)
            for path in sorted(folder.rglob("*"))
            if path.suffix in TYPES
        }
        together = hashlib.sha256("".join(f"{n}{a.etag}" for n, a in self._files.items()).encode())
        self.digest = together.hexdigest()[:12]

    def url(self, name: str) -> str:
        """Where a file is. Raises KeyError for one that is not there."""
        if name not in self._files:
            raise KeyError(name)
        return f"/static/{self.digest}/{name}"

    async def serve(self, request: Request) -> Response:
        """A file; under an older digest it is served but not kept."""
        asset = self._files.get(request.path_params["name"])
        if asset is None:
            return Response(status_code=404)
        current = request.path_params["digest"] == self.digest
        headers = {"ETag": asset.etag, "Cache-Control": _FOREVER if current else "no-cache", "Vary": "Accept-Encoding"}
        if request.headers.get("if-none-match") == asset.etag:
            return Response(status_code=304, headers=headers)
        if asset.packed and "gzip" in request.headers.get("accept-encoding", ""):
            return Response(asset.packed, media_type=asset.type, headers={**headers, "Content-Encoding": "gzip"})
        return Response(asset.body, media_type=asset.type, headers=headers)


def _read(path: Path) -> Asset:
    body = path.read_bytes()
    packed = b"" if path.suffix == ".woff2" else gzip.compress(body, 9, mtime=0)
    etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    return Asset(body, packed if len(packed) < len(body) else b"", TYPES[path.suffix], etag)
