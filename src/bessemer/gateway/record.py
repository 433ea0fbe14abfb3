"""A `UsageRecord` as a request's path makes it: the same fields, checked when it is read, not when it is written; and
what of it stays here: which replica answered, and how that ended where not as it should.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from bessemer.core.values import UsageRecord

Ended = Literal["cancelled", "cut", "killed"]
"""How an answer ended that is not whole: its client left; its replica was lost; its gateway was."""


class Spooled(UsageRecord):
    """As it is read from the spool. ``replica`` is the uid of its claim; records of an older release do not say it. A
    batch says of it what a `UsageRecord` has, and no more: an older api refuses what it does not know."""

    replica: str = ""
    ended: Ended | None = None


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
    replica: str = ""
    ended: Ended | None = None

    def line(self) -> bytes:
        """As it stands in the spool."""
        return _ENCODER.encode(self)


AnyRecord = UsageRecord | Record
_ENCODER = msgspec.json.Encoder()
