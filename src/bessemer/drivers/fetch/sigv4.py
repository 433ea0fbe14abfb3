"""Signature Version 4 of a GET, as Amazon's documentation of S3 has it. Pure: the time is handed in."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

EMPTY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """As whom it is asked. ``token`` comes with keys that end."""

    access: str
    secret: str
    region: str
    token: str = ""


def query_of(pairs: Sequence[tuple[str, str]]) -> str:
    """A query in the order and the encoding that are signed."""
    return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(pairs))


def signed(
    keys: Keys, *, host: str, path: str, query: str, headers: Mapping[str, str], now: float
) -> Mapping[str, str]:
    """The headers that a GET bears beside ``headers``, which are signed too. ``path`` is encoded already, ``query`` by
    `query_of`; ``now`` is epoch seconds."""
    time = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    own = {"x-amz-content-sha256": EMPTY, "x-amz-date": time}
    if keys.token:
        own["x-amz-security-token"] = keys.token
    every = {name.lower(): value.strip() for name, value in {**headers, **own, "host": host}.items()}
    names = ";".join(sorted(every))
    heads = "".join(f"{name}:{every[name]}\n" for name in sorted(every))
    request = "\n".join(("GET", path, query, heads, names, EMPTY))
    scope = f"{time[:8]}/{keys.region}/s3/aws4_request"
    text = "\n".join(("AWS4-HMAC-SHA256", time, scope, hashlib.sha256(request.encode()).hexdigest()))
    key = ("AWS4" + keys.secret).encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    words = f"Credential={keys.access}/{scope},SignedHeaders={names},Signature={signature}"
    return {**own, "Authorization": f"AWS4-HMAC-SHA256 {words}"}
