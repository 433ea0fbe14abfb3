"""Kubernetes' protobuf: the envelope that Go clients send typed objects in, read into the JSON that it stands for.

A message is a table from field number to `Field`; one more kind is one more line of `KINDS`. Nesting follows the
tables, none of which holds itself, and never the input; each byte is looked at once per level of its table; a body has
at most `FIELDS_MAX` fields. Fields that no table names are passed over, of one that comes twice the last counts (parts
of a message are joined), and empty text is left out, all as Go reads it. This reads only: what goes out is JSON.

Numbers are those of Kubernetes' ``generated.proto`` files: ``k8s.io/apimachinery`` (``pkg/runtime``,
``pkg/apis/meta/v1``) and ``k8s.io/api`` (``authentication/v1``, ``authorization/v1``, ``coordination/v1``, ``core/v1``,
``events/v1``).
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from bessemer.api.errors import UnknownFormat
from bessemer.api.names import plain
from bessemer.core.errors import Malformed, TooLarge

MEDIA = "application/vnd.kubernetes.protobuf"
MAGIC = b"k8s\0"
FIELDS_MAX = 20_000
"""Of one body, at all levels together: a few milliseconds' work. A large Secret has a few dozen."""

Scalar = Literal["text", "bool", "int", "bytes", "part", "time"]
"""``bytes`` become base64, as in JSON; a ``part`` stays as it is, to be read by another table; a ``time`` is RFC 3339,
with microseconds where it has any."""

Message: TypeAlias = "Mapping[int, Field]"
_VARINT, _LENGTH = 0, 2
_FIXED: Mapping[int, int] = MappingProxyType({1: 8, 5: 4})
_VARINT_BYTES_MAX = 10


@dataclass(frozen=True, slots=True)
class Field:
    """A field by its name in JSON. ``many``: a list of the type, or a map from text to it."""

    name: str
    type: Scalar | Message = "text"
    many: Literal["", "list", "map"] = ""


# --- tables -----------------------------------------------------------------------------------------------------------


def _message(fields: Mapping[int, Field]) -> Message:
    return MappingProxyType(dict(fields))


OWNER = _message(
    {
        1: Field("kind"),
        3: Field("name"),
        4: Field("uid"),
        5: Field("apiVersion"),
        6: Field("controller", "bool"),
        7: Field("blockOwnerDeletion", "bool"),
    }
)
OBJECT_META = _message(
    {
        1: Field("name"),
        2: Field("generateName"),
        3: Field("namespace"),
        5: Field("uid"),
        6: Field("resourceVersion"),
        11: Field("labels", many="map"),
        12: Field("annotations", many="map"),
        13: Field("ownerReferences", OWNER, "list"),
        14: Field("finalizers", many="list"),
    }
)
"""What a client may say of it; the rest is the server's to say."""

_RESOURCE = _message(
    {
        1: Field("namespace"),
        2: Field("verb"),
        3: Field("group"),
        4: Field("version"),
        5: Field("resource"),
        6: Field("subresource"),
        7: Field("name"),
    }
)
_SELF_ACCESS = _message(
    {
        1: Field("resourceAttributes", _RESOURCE),
        2: Field("nonResourceAttributes", _message({1: Field("path"), 2: Field("verb")})),
    }
)
_ACCESS = _message({**_SELF_ACCESS, 3: Field("user"), 4: Field("groups", many="list"), 6: Field("uid")})
_DELETE_OPTIONS = _message(
    {
        1: Field("gracePeriodSeconds", "int"),
        2: Field("preconditions", _message({1: Field("uid"), 2: Field("resourceVersion")})),
        3: Field("orphanDependents", "bool"),
        4: Field("propagationPolicy"),
        5: Field("dryRun", many="list"),
        6: Field("ignoreStoreReadErrorWithClusterBreakingPotential", "bool"),
    }
)
_META = Field("metadata", OBJECT_META)
_TIME = _message({1: Field("seconds", "int"), 2: Field("nanos", "int")})
_LEASE = _message(
    {
        1: Field("holderIdentity"),
        2: Field("leaseDurationSeconds", "int"),
        3: Field("acquireTime", "time"),
        4: Field("renewTime", "time"),
        5: Field("leaseTransitions", "int"),
        6: Field("strategy"),
        7: Field("preferredHolder"),
    }
)
_REFERENCE = _message(
    {
        1: Field("kind"),
        2: Field("namespace"),
        3: Field("name"),
        4: Field("uid"),
        5: Field("apiVersion"),
        6: Field("resourceVersion"),
        7: Field("fieldPath"),
    }
)
_SOURCE = _message({1: Field("component"), 2: Field("host")})
_SERIES = _message({1: Field("count", "int"), 2: Field("lastObservedTime", "time")})
_EVENT = _message(
    {
        1: _META,
        2: Field("involvedObject", _REFERENCE),
        3: Field("reason"),
        4: Field("message"),
        5: Field("source", _SOURCE),
        6: Field("firstTimestamp", "time"),
        7: Field("lastTimestamp", "time"),
        8: Field("count", "int"),
        9: Field("type"),
        10: Field("eventTime", "time"),
        11: Field("series", _SERIES),
        12: Field("action"),
        13: Field("related", _REFERENCE),
        14: Field("reportingComponent"),
        15: Field("reportingInstance"),
    }
)
_NEW_EVENT = _message(
    {
        1: _META,
        2: Field("eventTime", "time"),
        3: Field("series", _SERIES),
        4: Field("reportingController"),
        5: Field("reportingInstance"),
        6: Field("action"),
        7: Field("reason"),
        8: Field("regarding", _REFERENCE),
        9: Field("related", _REFERENCE),
        10: Field("note"),
        11: Field("type"),
        12: Field("deprecatedSource", _SOURCE),
        13: Field("deprecatedFirstTimestamp", "time"),
        14: Field("deprecatedLastTimestamp", "time"),
        15: Field("deprecatedCount", "int"),
    }
)
_AUTHENTICATION, _AUTHORIZATION = "authentication.k8s.io/v1", "authorization.k8s.io/v1"

KINDS: Mapping[tuple[str, str], Message] = MappingProxyType(
    {
        ("", "DeleteOptions"): _DELETE_OPTIONS,
        (_AUTHENTICATION, "SelfSubjectReview"): _message({1: _META}),
        (_AUTHENTICATION, "TokenReview"): _message(
            {1: _META, 2: Field("spec", _message({1: Field("token"), 2: Field("audiences", many="list")}))}
        ),
        (_AUTHORIZATION, "SelfSubjectAccessReview"): _message({1: _META, 2: Field("spec", _SELF_ACCESS)}),
        (_AUTHORIZATION, "SelfSubjectRulesReview"): _message(
            {1: _META, 2: Field("spec", _message({1: Field("namespace")}))}
        ),
        (_AUTHORIZATION, "SubjectAccessReview"): _message({1: _META, 2: Field("spec", _ACCESS)}),
        (_AUTHORIZATION, "LocalSubjectAccessReview"): _message({1: _META, 2: Field("spec", _ACCESS)}),
        ("v1", "Namespace"): _message({1: _META, 2: Field("spec", _message({1: Field("finalizers", many="list")}))}),
        ("v1", "ConfigMap"): _message(
            {
                1: _META,
                2: Field("data", many="map"),
                3: Field("binaryData", "bytes", "map"),
                4: Field("immutable", "bool"),
            }
        ),
        ("v1", "Secret"): _message(
            {
                1: _META,
                2: Field("data", "bytes", "map"),
                3: Field("type"),
                4: Field("stringData", many="map"),
                5: Field("immutable", "bool"),
            }
        ),
        ("v1", "Event"): _EVENT,
        ("events.k8s.io/v1", "Event"): _NEW_EVENT,
        ("coordination.k8s.io/v1", "Lease"): _message({1: _META, 2: Field("spec", _LEASE)}),
    }
)
"""By apiVersion and kind; "" is any, as each group has its DeleteOptions. What clients are answered is not read back,
so that no table has a status."""

_ENVELOPE = _message(
    {
        1: Field("typeMeta", _message({1: Field("apiVersion"), 2: Field("kind")})),
        2: Field("raw", "part"),
        3: Field("contentEncoding"),
        4: Field("contentType"),
    }
)


# --- reading ----------------------------------------------------------------------------------------------------------


def parse(raw: bytes) -> dict[str, Any]:
    """The object in an envelope, with its apiVersion and kind. Raises Malformed, TooLarge, and UnknownFormat for a kind
    that is read in other formats alone."""
    if not raw.startswith(MAGIC):
        raise Malformed(f"the body is no protobuf of Kubernetes: it does not begin with {MAGIC!r}")
    reader = _Reader()
    envelope = reader.message(memoryview(raw)[len(MAGIC) :], _ENVELOPE, into={})
    said = envelope.get("typeMeta", {})
    version, kind = said.get("apiVersion", ""), said.get("kind", "")
    table = KINDS.get((version, kind)) or KINDS.get(("", kind))
    packed = "contentEncoding" in envelope or envelope.get("contentType", MEDIA) != MEDIA
    if table is None or packed:
        raise UnknownFormat(
            f'kind "{plain(kind, 80)}" of version "{plain(version, 80)}" is not read as protobuf - accepted media '
            "types include: application/json, application/yaml"
        )
    return {"apiVersion": version, "kind": kind, **reader.message(envelope.get("raw", memoryview(b"")), table, into={})}


def decode(raw: bytes, table: Message) -> dict[str, Any]:
    """A message without an envelope, as JSON. Raises Malformed, TooLarge."""
    return _Reader().message(memoryview(raw), table, into={})


class _Reader:
    """Counts the fields of one body."""

    def __init__(self) -> None:
        self._left = FIELDS_MAX

    def message(self, raw: memoryview, table: Message, *, into: dict[str, Any]) -> dict[str, Any]:
        """Read a message into an object, which is given back."""
        for number, wire, value in self._fields(raw):
            field = table.get(number)
            if field is None:
                continue
            if wire != (_VARINT if field.type in ("bool", "int") else _LENGTH):
                raise Malformed(f"the protobuf body has wire type {wire} at {field.name}")
            if field.many == "list":
                into.setdefault(field.name, []).append(self._value(field, value))
            elif field.many == "map":
                entry = self._entry(field, value)
                into.setdefault(field.name, {})[entry[0]] = entry[1]
            else:
                into[field.name] = self._value(field, value, before=into.get(field.name))
                if into[field.name] == "":
                    del into[field.name]
        return into

    def _entry(self, field: Field, raw: Any) -> tuple[str, Any]:
        empty = "" if isinstance(field.type, str) else {}
        read = self.message(raw, {1: Field("key"), 2: Field("value", field.type)}, into={})
        return read.get("key", ""), read.get("value", empty)

    def _value(self, field: Field, value: Any, *, before: Any = None) -> Any:
        if not isinstance(field.type, str):
            return self.message(value, field.type, into=before or {})
        match field.type:
            case "bool":
                return value != 0
            case "int":
                return value - (1 << 64) if value >> 63 else value
            case "bytes":
                return base64.b64encode(value).decode()
            case "part":
                return value
            case "time":
                return _moment(self.message(value, _TIME, into={}))
        try:
            return str(value, "utf-8")
        except UnicodeDecodeError as error:
            raise Malformed(f"the protobuf body has no UTF-8 at {field.name}") from error

    def _fields(self, raw: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
        """Number, wire type and value of each field: a number, or the bytes of anything else."""
        at, end = 0, len(raw)
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise TooLarge(f"a protobuf body has at most {FIELDS_MAX} fields")
            tag, at = _varint(raw, at)
            number, wire = tag >> 3, tag & 7
            if not 0 < number < 1 << 29:
                raise Malformed("the protobuf body has a field without a number")
            if wire == _VARINT:
                value, at = _varint(raw, at)
                yield number, wire, value
                continue
            size = _FIXED.get(wire, 0)
            if wire == _LENGTH:
                size, at = _varint(raw, at)
            elif not size:
                raise Malformed(f"the protobuf body has wire type {wire}, which nothing uses")
            if size > end - at:
                raise Malformed("the protobuf body ends within a field")
            yield number, wire, raw[at : at + size]
            at += size


def _moment(time: Mapping[str, int]) -> str:
    """RFC 3339 of seconds and nanoseconds; "" for Go's time that is none. Raises Malformed."""
    seconds, nanos = time.get("seconds", 0), time.get("nanos", 0)
    if not seconds and not nanos:
        return ""
    try:
        moment = datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=nanos // 1000)
    except (ValueError, OverflowError, OSError) as error:
        raise Malformed("the protobuf body has a time that is none") from error
    text = moment.isoformat(timespec="microseconds" if nanos else "seconds")
    return f"{text.removesuffix('+00:00')}Z"


def _varint(raw: memoryview, at: int) -> tuple[int, int]:
    """The number at ``at``, and where what follows it begins."""
    value = shift = 0
    for byte in raw[at : at + _VARINT_BYTES_MAX]:
        value |= (byte & 0x7F) << shift
        shift += 7
        at += 1
        if byte < 0x80:
            if value >> 64:
                break
            return value, at
    raise Malformed("the protobuf body has a number that does not end, or is too large")
