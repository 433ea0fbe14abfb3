"""A `UsageRecord` as a request's path makes it: the same fields, checked when it is read, not when it is written."""

from __future__ import annotations

import msgspec

from bessemer.core.values import AnswerEnd, UsageRecord

Ended = AnswerEnd

NEWER = ("replica", "ended", "asked")
"""Fields that an api of an older release refuses; records of an older gateway do not say them."""


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
    asked: str = ""

    def line(self) -> bytes:
        """As it stands in the spool."""
        return _ENCODER.encode(self)


def older(record: UsageRecord) -> UsageRecord:
    """The same without what an api of an older release does not know. One that paid nothing is a request of no tokens
    there."""
    if not any(getattr(record, name) for name in NEWER):
        return record
    return record.model_copy(update={name: UsageRecord.model_fields[name].default for name in NEWER})


AnyRecord = UsageRecord | Record
_ENCODER = msgspec.json.Encoder()
