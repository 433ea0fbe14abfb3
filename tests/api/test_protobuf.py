"""Protobuf bodies: what kubectl sent is read as what it meant, what an encoder of the test's own writes comes back, and
no bytes do anything worse than be refused, in time linear to them."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.api.errors import UnknownFormat
from bessemer.api.protobuf import FIELDS_MAX, KINDS, MAGIC, MEDIA, Field, Message, decode, parse
from bessemer.core.errors import Malformed, TooLarge
from tests.api.world import BASE, World, instance

LAB = f"{BASE}/namespaces/acme--lab/instances"
EMPTY_META = b'\n\x10\n\x00\x12\x00\x1a\x00"\x00*\x002\x008\x00B\x00'
EMPTY_STATUS = b'\x1a\x08\x08\x00\x12\x00\x1a\x00 \x00\x1a\x00"\x00'
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
AUTHORIZATION, AUTHENTICATION = "authorization.k8s.io/v1", "authentication.k8s.io/v1"


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def sized(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def enveloped(version: str, kind: str, raw: bytes, rest: bytes = b"") -> bytes:
    meta = sized(1, version.encode()) + sized(2, kind.encode())
    return MAGIC + sized(1, meta) + sized(2, raw) + rest


def encoded(value: Mapping[str, Any], table: Message) -> bytes:
    """The wire's form of an object, by the same table read the other way."""
    numbers = {field.name: (number, field) for number, field in table.items()}
    out = b""
    for name, item in value.items():
        number, field = numbers[name]
        one = Field(name, field.type)
        if field.many == "map":
            for key, held in item.items():
                entry = {1: Field("key"), 2: Field("value", field.type)}
                out += sized(number, encoded({"key": key, "value": held}, entry))
        else:
            for each in item if field.many == "list" else [item]:
                out += wire(number, one, each)
    return out


def wire(number: int, field: Field, value: Any) -> bytes:
    if not isinstance(field.type, str):
        return sized(number, encoded(value, field.type))
    if field.type in ("bool", "int"):
        return varint(number << 3) + varint(int(value))
    if field.type == "time":
        since = datetime.fromisoformat(value) - EPOCH
        at = {
            "seconds": since // timedelta(seconds=1),
            "nanos": since % timedelta(seconds=1) // timedelta(microseconds=1) * 1000,
        }
        return sized(number, encoded(at, {1: Field("seconds", "int"), 2: Field("nanos", "int")}))
    return sized(number, base64.b64decode(value) if field.type == "bytes" else value.encode())


# --- what clients send ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "kind", "spec"),
    [
        (
            b"k8s\0\n2\n\x17authorization.k8s.io/v1\x12\x17SelfSubjectAccessReview\x12O"
            + EMPTY_META
            + b'\x121\n/\n\tacme--lab\x12\x03get\x1a\x0cbessemer.dev"\x00*\tinstances2\x00:\x00'
            + EMPTY_STATUS,
            (AUTHORIZATION, "SelfSubjectAccessReview"),
            {
                "resourceAttributes": {
                    "namespace": "acme--lab",
                    "verb": "get",
                    "group": "bessemer.dev",
                    "resource": "instances",
                }
            },
        ),
        (
            b"k8s\0\n2\n\x17authorization.k8s.io/v1\x12\x17SelfSubjectAccessReview\x12/"
            + EMPTY_META
            + b"\x12\x11\x12\x0f\n\x08/metrics\x12\x03get"
            + EMPTY_STATUS,
            (AUTHORIZATION, "SelfSubjectAccessReview"),
            {"nonResourceAttributes": {"path": "/metrics", "verb": "get"}},
        ),
        (
            b"k8s\0\n1\n\x17authorization.k8s.io/v1\x12\x16SelfSubjectRulesReview\x12%"
            + EMPTY_META
            + b'\x12\x0b\n\tacme--lab\x1a\x04\x18\x00"\x00\x1a\x00"\x00',
            (AUTHORIZATION, "SelfSubjectRulesReview"),
            {"namespace": "acme--lab"},
        ),
        (
            b"k8s\0\n-\n\x18authentication.k8s.io/v1\x12\x11SelfSubjectReview\x12\x1a"
            + EMPTY_META
            + b'\x12\x06\n\x04\n\x00\x12\x00\x1a\x00"\x00',
            (AUTHENTICATION, "SelfSubjectReview"),
            None,
        ),
    ],
)
def test_what_kubectl_sends(raw: bytes, kind: tuple[str, str], spec: Any) -> None:
    """Taken from kubectl 1.37's can-i, can-i --list and whoami."""
    said = parse(raw)
    assert (said["apiVersion"], said["kind"]) == kind
    assert said["metadata"] == {}
    assert said.get("spec") == spec


def texts() -> st.SearchStrategy[str]:
    return st.text(min_size=1, max_size=12)


def moments() -> st.SearchStrategy[str]:
    """RFC 3339, with microseconds where there are any; what is written as nothing apart."""
    some = st.integers(1, 7 * 10**15).map(lambda at: EPOCH + timedelta(microseconds=at))
    return some.map(lambda at: f"{at:%Y-%m-%dT%H:%M:%S}" + (f".{at.microsecond:06}Z" if at.microsecond else "Z"))


def values(table: Message) -> st.SearchStrategy[dict[str, Any]]:
    """Any object of a table, with what JSON shows: no empty text, but in lists and maps."""

    def one(field: Field) -> st.SearchStrategy[Any]:
        if not isinstance(field.type, str):
            inner = values(field.type)
        elif field.type == "bool":
            return st.booleans()
        elif field.type == "int":
            return st.integers(-(2**63), 2**63 - 1)
        elif field.type == "time":
            inner = moments()
        else:
            inner = texts() if field.type == "text" else st.binary().map(lambda raw: base64.b64encode(raw).decode())
        if field.many == "list":
            return st.lists(inner, min_size=1, max_size=3)
        return st.dictionaries(st.text(max_size=5), inner, min_size=1, max_size=3) if field.many else inner

    return st.fixed_dictionaries({}, optional={field.name: one(field) for field in table.values()})


@pytest.mark.parametrize("kind", KINDS, ids="/".join)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_what_is_written_is_read(kind: tuple[str, str], data: st.DataObject) -> None:
    table = KINDS[kind]
    value = data.draw(values(table))
    raw = encoded(value, table)
    assert decode(raw, table) == value
    strange = sized(999, b"x") + varint(998 << 3) + b"\x07" + varint(997 << 3 | 1) + bytes(8) + varint(996 << 3 | 5)
    assert decode(strange + bytes(4) + raw, table) == value
    version = kind[0] or "bessemer.dev/v1alpha1"
    assert parse(enveloped(version, kind[1], raw)) == {"apiVersion": version, "kind": kind[1], **value}


def test_what_comes_twice() -> None:
    """The last of a scalar counts, parts of a message are joined, lists go on, as proto2 has it."""
    table: Message = {1: Field("a"), 2: Field("m", {1: Field("x"), 2: Field("y")}), 3: Field("l", many="list")}
    twice = encoded({"a": "1", "m": {"x": "1"}, "l": ["p", ""]}, table) + encoded(
        {"a": "2", "m": {"y": "2"}, "l": ["q"]}, table
    )
    assert decode(twice, table) == {"a": "2", "m": {"x": "1", "y": "2"}, "l": ["p", "", "q"]}
    assert decode(twice + sized(1, b""), table) == {"m": {"x": "1", "y": "2"}, "l": ["p", "", "q"]}
    maps: Message = {1: Field("m", many="map"), 2: Field("b", "bytes", "map"), 3: Field("o", {1: Field("x")}, "map")}
    raw = sized(1, b"") + sized(2, sized(1, b"k")) + sized(3, sized(1, b"k"))
    assert decode(raw, maps) == {"m": {"": ""}, "b": {"k": ""}, "o": {"k": {}}}


# --- what nobody means well -------------------------------------------------------------------------------------------

TABLE = KINDS["", "DeleteOptions"]
WHOLE = encoded(
    {
        "gracePeriodSeconds": -1,
        "preconditions": {"uid": "u", "resourceVersion": "5"},
        "propagationPolicy": "Background",
        "dryRun": ["All"],
    },
    TABLE,
)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"\x0a", "does not end"),
        (b"\x22\x05ab", "ends within a field"),
        (b"\x22" + varint(2**64 - 1), "ends within a field"),
        (b"\x22" + b"\xff" * 9 + b"\x01", "ends within a field"),
        (b"\x22" + b"\xff" * 10, "does not end, or is too large"),
        (b"\x08" + b"\xff" * 9 + b"\x7f", "does not end, or is too large"),
        (b"\x08" + b"\x80" * 500_000, "does not end, or is too large"),
        (b"\x00\x00", "field without a number"),
        (varint(1 << 32) + b"\x00", "field without a number"),
        (b"\x0b\x0c", "wire type 3"),
        (b"\x0c", "wire type 4"),
        (b"\x0e", "wire type 6"),
        (b"\x09\x00", "ends within a field"),
        (b"\x0a\x00", "wire type 2 at gracePeriodSeconds"),
        (b"\x20\x01", "wire type 0 at propagationPolicy"),
        (b"\x25\x00\x00\x00\x00", "wire type 5 at propagationPolicy"),
        (b"\x10\x01", "wire type 0 at preconditions"),
        (b"\x22\x01\xff", "no UTF-8 at propagationPolicy"),
        (b"\x22\x03\xed\xa0\x80", "no UTF-8 at propagationPolicy"),
        (b"\x2a\x02\xc0\x80", "no UTF-8 at dryRun"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_no_protobuf(raw: bytes, words: str) -> None:
    with pytest.raises(Malformed, match=words):
        decode(raw, TABLE)


def test_every_beginning_of_a_body_is_read_or_malformed() -> None:
    raw = enveloped("v1", "DeleteOptions", WHOLE)
    assert parse(raw)["gracePeriodSeconds"] == -1
    for end in range(len(raw)):
        with suppress(Malformed, UnknownFormat):
            parse(raw[:end])


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes(raw: bytes) -> None:
    for table in KINDS.values():
        with suppress(Malformed):
            assert orjson.dumps(decode(raw, table))
    for body in (raw, MAGIC + raw, enveloped("v1", "DeleteOptions", raw)):
        with suppress(Malformed, UnknownFormat):
            assert parse(body)["kind"]


@given(st.data())
def test_any_byte_may_be_another(data: st.DataObject) -> None:
    raw = bytearray(enveloped("v1", "DeleteOptions", WHOLE))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(4, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with suppress(Malformed, UnknownFormat):
        assert orjson.dumps(parse(bytes(raw)))


def nested(levels: int) -> bytes:
    """A message in a message in a message, of a field that no table has, outermost first."""
    lengths, size = [], 0
    for _ in range(levels):
        lengths.append(varint(15 << 3 | 2) + varint(size))
        size += len(lengths[-1])
    return b"".join(reversed(lengths))


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"\x08\x00" * 500_000, TooLarge),
        (b"\x2a\x00" * 500_000, TooLarge),
        (b"\x12\x00" * 500_000, TooLarge),
        (sized(2, sized(1, b"u") * 300_000), TooLarge),
        (b"".join(sized(2, sized(1, b"u" * 9_000)) for _ in range(100)), None),
        (nested(150_000), None),
        (sized(4, b"x" * 1_000_000), None),
        (sized(77, b"x" * 1_000_000), None),
        (varint(77 << 3 | 1) + b"12345678", None),
    ],
    ids=["numbers", "texts", "messages", "inner", "joined", "nested", "long", "unknown", "fixed"],
)
def test_time_is_bounded(raw: bytes, error: type[Exception] | None) -> None:
    began = time.process_time()
    if error is None:
        decode(raw, TABLE)
    else:
        with pytest.raises(error, match=f"at most {FIELDS_MAX} fields"):
            decode(raw, TABLE)
    assert time.process_time() - began < 1.0


def test_no_table_holds_itself() -> None:
    """So that nothing recursive is deeper than they are, whatever the input."""

    def depth(table: Message, above: tuple[int, ...]) -> int:
        assert id(table) not in above
        inner = [field.type for field in table.values() if not isinstance(field.type, str)]
        return 1 + max((depth(each, (*above, id(table))) for each in inner), default=0)

    assert max(depth(table, ()) for table in KINDS.values()) < 5


# --- envelopes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [b"", b"k8s", b"K8S\0", b'{"kind":"DeleteOptions"}', b"\0k8s\0"])
def test_what_has_no_magic(raw: bytes) -> None:
    with pytest.raises(Malformed, match="does not begin with"):
        parse(raw)


@pytest.mark.parametrize(
    "raw",
    [
        MAGIC,
        enveloped("v1", "Nothing", b""),
        enveloped("bessemer.dev/v1alpha1", "Instance", b""),
        enveloped("authorization.k8s.io/v2", "SelfSubjectAccessReview", b""),
        enveloped("v1", "\u202e" * 500, b""),
        enveloped("v1", "DeleteOptions", WHOLE, sized(3, b"gzip")),
        enveloped("v1", "DeleteOptions", b"{}", sized(4, b"application/json")),
    ],
)
def test_what_is_read_in_other_formats_alone(raw: bytes) -> None:
    with pytest.raises(UnknownFormat, match="media types include: application/json, application/yaml") as caught:
        parse(raw)
    assert caught.value.message.isascii()
    assert len(caught.value.message) < 1200


def test_the_inner_format_may_be_named() -> None:
    raw = enveloped("v1", "DeleteOptions", b"", sized(3, b"") + sized(4, MEDIA.encode()))
    assert parse(raw) == {"apiVersion": "v1", "kind": "DeleteOptions"}


# --- over HTTP --------------------------------------------------------------------------------------------------------


async def test_deletions_take_their_options_in_protobuf(w: World) -> None:
    made = await w.create(LAB, instance("a"))

    async def delete(**options: Any) -> Any:
        raw = enveloped("bessemer.dev/v1alpha1", "DeleteOptions", encoded(options, TABLE))
        reply = await w.call("DELETE", f"{LAB}/a", raw, media=MEDIA)
        return reply.code, reply.json

    code, said = await delete(preconditions={"uid": "zzz"})
    assert (code, said["reason"]) == (409, "Conflict")
    assert (await delete(preconditions={"resourceVersion": "1"}))[0] == 409
    assert (await delete(dryRun=["Some"]))[0] in (400, 422)
    assert (await delete(dryRun=["All"], preconditions={"uid": made["metadata"]["uid"]}))[0] == 200
    assert "deletionTimestamp" not in (await w.call("GET", f"{LAB}/a")).json["metadata"]
    code, said = await delete(propagationPolicy="Background", preconditions={"uid": made["metadata"]["uid"]})
    assert code == 200
    assert said["metadata"]["deletionTimestamp"]


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"k8s\0", 415),
        (b"{}", 400),
        (enveloped("v1", "DeleteOptions", b"\x0a"), 400),
        (enveloped(AUTHENTICATION, "SelfSubjectReview", b""), 400),
        (enveloped("v1", "DeleteOptions", b"\x08\x00" * 500_000), 413),
    ],
)
async def test_a_deletion_that_cannot_be_read_deletes_nothing(w: World, raw: bytes, code: int) -> None:
    await w.create(LAB, instance("a"))
    reply = await w.call("DELETE", f"{LAB}/a", raw, media=MEDIA)
    assert (reply.code, reply.json["kind"]) == (code, "Status")
    assert "deletionTimestamp" not in (await w.call("GET", f"{LAB}/a")).json["metadata"]


async def test_our_kinds_come_in_json_or_yaml(w: World) -> None:
    raw = enveloped("bessemer.dev/v1alpha1", "Instance", b"")
    reply = await w.call("POST", LAB, raw, media=MEDIA)
    assert (reply.code, reply.json["reason"]) == (415, "UnsupportedMediaType")
    reply = await w.call("POST", LAB, enveloped(AUTHENTICATION, "SelfSubjectReview", b""), media=MEDIA)
    assert reply.code == 400
