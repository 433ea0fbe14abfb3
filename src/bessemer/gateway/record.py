"""A `UsageRecord` as a gateway makes it, keeps it and sends it: the same fields. The api judges what they hold; here it
is seen that they are these, and of their types, when they are read from the spool.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec.structs import replace

from bessemer.core.values import AnswerEnd, UsageRecord

Ended = AnswerEnd

NEWER = ("replica", "ended", "asked")
"""Fields that an api of an older release refuses; records of an older gateway do not say them."""


class Record(msgspec.Struct, rename="camel", omit_defaults=True, forbid_unknown_fields=True, gc=False):
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
    asked: str = ""

    def line(self) -> bytes:
        """As it stands in the spool."""
        return _ENCODER.encode(self)


class Batch(msgspec.Struct, rename="camel"):
    """See `UsageBatch`."""

    gateway_uid: str
    spool_uid: str
    first_sequence: int
    records: list[Record]

    def dump(self) -> dict[str, Any]:
        """As the api reads it."""
        said: dict[str, Any] = msgspec.to_builtins(self)
        return said


def older(record: Record) -> Record:
    """The same without what an api of an older release does not know. One that paid nothing is a request of no tokens
    there."""
    if not any(getattr(record, name) for name in NEWER):
        return record
    return replace(record, replica="", ended=None, asked="")


AnyRecord = UsageRecord | Record
_ENCODER = msgspec.json.Encoder()
read: Callable[[bytes], Record] = msgspec.json.Decoder(Record).decode
"""What `Record.line` wrote, this release's or an older one's. Raises msgspec.MsgspecError for anything else."""
