"""A `UsageRecord` as a request's path makes it: the same fields, checked when it is read, not when it is written."""

from __future__ import annotations

import msgspec

from bessemer.core.values import UsageRecord


class Record(msgspec.Struct, rename="camel", omit_defaults=True, gc=False):
    """What one answered request amounted to: see `UsageRecord`."""

    at: int
    request_id: str
    project: str
    endpoint: str
    endpoint_uid: str
    api_key: str
    model: str
    status: int
    input_tokens: int
    cached_input_tokens: int = 0
    output_tokens: int = 0
    latency_ms: int = 0
    first_token_ms: int = 0
    held_micro: int | None = None
    owner: str | None = None
    held_bounds: list[str] | None = None

    def line(self) -> bytes:
        """As it stands in the spool."""
        return _ENCODER.encode(self)


AnyRecord = UsageRecord | Record
_ENCODER = msgspec.json.Encoder()
