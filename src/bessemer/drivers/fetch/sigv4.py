"""Signature Version 4 of a request, as Amazon's documentation of S3 has it. Pure: the time is handed in."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is signed. ``path`` is encoded already, ``query`` by `query_of`; ``headers`` are signed too; ``payload`` is
    the SHA-256 of the body."""

    host: str
    path: str
    method: str = "GET"
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    payload: str = EMPTY


def signed(keys: Keys, question: Question, *, now: float) -> Mapping[str, str]:
    """The headers that it bears beside its own; ``now`` is epoch seconds."""
    time = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    own = {"x-amz-content-sha256": question.payload, "x-amz-date": time}
    if keys.token:
        own["x-amz-security-token"] = keys.token
    said = {**question.headers, **own, "host": question.host}
    every = {name.lower(): value.strip() for name, value in said.items()}
    names = ";".join(sorted(every))
    heads = "".join(f"{name}:{every[name]}\n" for name in sorted(every))
    request = "\n".join((question.method, question.path, question.query, heads, names, question.payload))
    scope = f"{time[:8]}/{keys.region}/s3/aws4_request"
    text = "\n".join(("AWS4-HMAC-SHA256", time, scope, hashlib.sha256(request.encode()).hexdigest()))
    key = ("AWS4" + keys.secret).encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    words = f"Credential={keys.access}/{scope},SignedHeaders={names},Signature={signature}"
    return {**own, "Authorization": f"AWS4-HMAC-SHA256 {words}"}
