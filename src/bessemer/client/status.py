"""A server's ``Status`` read back into the error that the server raised: the inverse of the api's table of errors.

The two are written apart, since ``core`` knows no HTTP and the api needs no client; a test sends every error there and
back. Here stands also what other servers and proxies say.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import orjson

from bessemer.core.errors import (
    AlreadyExists,
    BessemerError,
    Cause,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    Malformed,
    NotFound,
    QuotaExceeded,
    Taken,
    TooLarge,
    TooMany,
    Unauthenticated,
    Unavailable,
)

_BY_CAUSE: Mapping[str, type[BessemerError]] = MappingProxyType({"QuotaExceeded": QuotaExceeded, "Taken": Taken})
_BY_REASON: Mapping[str, type[BessemerError]] = MappingProxyType(
    {
        "BadRequest": Malformed,
        "Unauthorized": Unauthenticated,
        "Forbidden": Forbidden,
        "NotFound": NotFound,
        "AlreadyExists": AlreadyExists,
        "Conflict": Conflict,
        "Expired": Expired,
        "Gone": Expired,
        "RequestEntityTooLarge": TooLarge,
    }
)
_BY_CODE: Mapping[int, type[BessemerError]] = MappingProxyType(
    {401: Unauthenticated, 403: Forbidden, 404: NotFound, 409: Conflict, 410: Expired, 413: TooLarge}
)


def error_of(code: int, body: bytes, *, headers: Mapping[str, str] = MappingProxyType({})) -> BessemerError:
    """The error of an answer. A body that is no Status counts by its code alone."""
    try:
        status = orjson.loads(body)
    except orjson.JSONDecodeError:
        status = {}
    if not isinstance(status, dict) or status.get("kind") != "Status":
        status = {}
    return error_of_status(code, status, retry_after=headers.get("Retry-After", ""))


def error_of_status(code: int, status: Mapping[str, Any], *, retry_after: str = "") -> BessemerError:
    """The error of a Status object, as an answer or as a watch's ERROR event."""
    message = str(status.get("message") or f"the server answered {code}")
    reason = str(status.get("reason", ""))
    details = status.get("details") or {}
    causes = [
        Cause(str(c.get("field", "")), str(c.get("message", "")), str(c.get("reason", "")))
        for c in details.get("causes") or ()
    ]
    seconds = details.get("retryAfterSeconds") or (int(retry_after) if retry_after.isdigit() else 1)
    for cause in causes:
        if cause.reason in _BY_CAUSE:
            return _BY_CAUSE[cause.reason](message)
    if reason == "Invalid" or code == 422:
        return Invalid(message, causes)
    if code == 429:
        return TooMany(message, retry_after_seconds=seconds)
    known = _BY_REASON.get(reason) or _BY_CODE.get(code)
    if known is Expired:
        return Expired(message, proceed=str((status.get("metadata") or {}).get("continue") or ""))
    if known is not None:
        return known(message)
    return Unavailable(message, retry_after_seconds=seconds) if code >= 500 else Malformed(message)
