"""Hostile input gets a 4xx that names what is wrong, in bounded time and memory, and leaves the api as it was."""

from __future__ import annotations

import signal
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bessemer.api import body as bodies
from bessemer.api import jsonpatch
from bessemer.api.names import (
    PATH_MAX,
    field_path,
    is_label_key,
    is_label_value,
    is_subdomain,
    metadata_causes,
    opaque_text,
)
from bessemer.api.selectors import parse_fields, parse_labels
from bessemer.core.errors import Invalid, Malformed, TooLarge
from tests.api.world import BASE, World, instance

LAB = f"{BASE}/namespaces/acme--lab/instances"
MERGE, JSON = "application/merge-patch+json", "application/json-patch+json"
LAUGHS = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (98 + i, 98 + i, b",".join([b"*%c" % (97 + i)] * 9)) for i in range(9)
)


STRING_WITHOUT_END = b"[" * 65 + b'"' + b'\\"' * 490_000


def in_spec(fields: bytes) -> bytes:
    return b'{"metadata":{"name":"x"},"spec":{"flavor":"small","image":"micro",' + fields + b"}}"


@contextmanager
def bounded() -> Iterator[None]:
    """What takes longer than 20 s is broken off, also where it never comes back to the loop."""

    def late(*_: object) -> None:
        raise AssertionError("it takes more than 20 s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def with_name(name: Any) -> dict[str, Any]:
    return {**instance("x"), "metadata": {"name": name}}


@pytest.mark.parametrize(
    "name",
    [
        "",
        "A",
        "a_b",
        "a b",
        "a/b",
        "../x",
        "a\n",
        "a\x00",
        "\u0430bc",  # Cyrillic a
        "a\u200b",
        "\u202ea",
        "ａ",
        "a" * 254,
        "-a",
        "a-",
        ".a",
        "a..b",
        "%2e%2e",
        "a" * 1_000_000,
        ["a"],
        {"a": 1},
        5,
        True,
    ],
)
async def test_hostile_names(w: World, name: Any) -> None:
    reply = await w.call("POST", LAB, with_name(name))
    assert reply.code in (413, 422), reply.body[:200]
    if reply.code == 422:
        assert reply.json["details"]["causes"][0]["field"] == "metadata.name"
        assert len(reply.body) < 4096
        assert reply.body.isascii()


@pytest.mark.parametrize(
    "path", ["/%00", "/..", "/a%2f..%2fb", "/\u202e", "/" + "a" * 5000, "/%ff", "//", "/a/b/c/d/e"]
)
async def test_hostile_paths(w: World, path: str) -> None:
    for base in (LAB, f"{BASE}/tenants", "/content", "/apis"):
        reply = await w.call("GET", base + path)
        assert reply.code in (200, 404), (base + path, reply.code)
        assert len(reply.body) < 20_000 or reply.code == 200


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({"labels": {"a": "b" * 64}}, "metadata.labels"),
        ({"labels": {"a" * 64: "b"}}, "metadata.labels"),
        ({"labels": {"a b": "c"}}, "metadata.labels"),
        ({"labels": {"a": "\u202eb"}}, "metadata.labels"),
        ({"labels": {"a": 5}}, "metadata.labels"),
        ({"labels": {"a": None, "b": {"c": "d"}}}, "metadata.labels"),
        ({"labels": ["a"]}, "metadata.labels"),
        ({"labels": {f"k{i}": "v" for i in range(129)}}, "metadata.labels"),
        ({"annotations": {"a": "x" * 300_000}}, "metadata.annotations"),
        ({"annotations": {"a": 1}}, "metadata.annotations"),
        ({"annotations": {"not a key": "x"}}, "metadata.annotations"),
        ({"finalizers": ["a b"]}, "metadata.finalizers"),
        ({"finalizers": ["a"] * 1000}, "metadata.finalizers"),
        ({"finalizers": "a"}, "metadata.finalizers"),
        ({"ownerReferences": {"a": 1}}, "metadata.ownerReferences"),
        ({"ownerReferences": [{"kind": "X"}]}, "metadata.ownerReferences[0].name"),
    ],
)
async def test_hostile_metadata_is_named_by_field(w: World, metadata: dict[str, Any], field: str) -> None:
    reply = await w.call("POST", LAB, {**instance("x"), "metadata": {"name": "x", **metadata}})
    assert reply.code == 422, reply.body[:300]
    assert field in [cause["field"] for cause in reply.json["details"]["causes"]]
    assert len(reply.body) < 60_000


@pytest.mark.parametrize("text", ["a\u202eb", "a\u2066b", "a\x00b", "a\x1b[31mb", "a\ufeff", "a\u2028b", "\x7f"])
async def test_text_that_is_not_what_it_shows(w: World, text: str) -> None:
    body = {"metadata": {"name": "t"}, "spec": {"displayName": text}}
    reply = await w.call("POST", f"{BASE}/tenants", body)
    assert (reply.code, reply.json["details"]["causes"][0]["field"]) == (422, "spec.displayName")


async def test_honest_text_in_any_script_is_kept(w: World) -> None:
    for name, text in (("t1", "Köln 東京 🏭"), ("t2", "مصنع الذكاء"), ("t3", "a\tb")):
        made = await w.create(f"{BASE}/tenants", {"metadata": {"name": name}, "spec": {"displayName": text}})
        assert made["spec"]["displayName"] == text


@pytest.mark.parametrize(
    ("raw", "media", "codes"),
    [
        (b"[" * 10_000 + b"]" * 10_000, "application/json", (400,)),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "application/json", (400,)),
        (b'{"a":' * 10_000, "application/json", (400,)),
        (b"", "application/json", (400,)),
        (b"{", "application/json", (400,)),
        (b"\xff\xfe", "application/json", (400,)),
        (b'"\\ud800"', "application/json", (400,)),
        (b"NaN", "application/json", (400,)),
        (b"null", "application/json", (400,)),
        (b"[1]", "application/json", (400,)),
        (b'{"metadata": {"name": "x"}, "spec": {"flavor": ' + b"9" * 100_000 + b"}}", "application/json", (400, 422)),
        (STRING_WITHOUT_END, "application/json", (400,)),
        (b"[" * 65 + b'"' + b"\\\n" * 490_000, "application/json", (400,)),
        (b'"a\\' + b"[" * 65 + b'"a\\' * 300_000, "application/json", (400,)),
        (in_spec(b'"' + b"k" * 200_000 + b'":[' + b"0," * 2_000 + b"0]"), "application/json", (422,)),
        (in_spec(b'"' + b"k" * 300 + b'":[' + b"0," * 490_000 + b"0]"), "application/json", (400,)),
        (in_spec(b'"' + b"k" * 300 + b'":[' + b'"\\u0001",' * 100_000 + b"0]"), "application/json", (422,)),
        (in_spec(b",".join(b'"%d":0' % i for i in range(90_000))), "application/json", (422,)),
        (in_spec(b'"k":[' + b'{"a":0,"a":0},' * 40_000 + b"0]"), "application/json", (400,)),
        (in_spec(b",".join([b'"k":""'] * 120_000)), "application/json", (400,)),
        (b"x" * (5 << 20), "application/json", (413,)),
        (b'{"a":"' + b"x" * (5 << 20) + b'"}', "application/json", (413,)),
        (LAUGHS, "application/yaml", (400,)),
        (b"a: &a [*a]", "application/yaml", (400,)),
        (b"[" * 10_000, "application/yaml", (400,)),
        (b"- " * 10_000 + b"x", "application/yaml", (400,)),
        (b"a: !!python/object/apply:os.system [id]", "application/yaml", (400,)),
        (b"x: " + b"y" * (300 << 10), "application/yaml", (413,)),
        (b"a: " + b"1" * 5000, "application/yaml", (400, 422)),
        (b"%TAG ! tag:x,2000:\n---\n!a b", "application/yaml", (400,)),
        (b"a: !!bool x", "application/yaml", (400,)),
        (b"a: !!int ''", "application/yaml", (400,)),
        (b"a: !!timestamp x", "application/yaml", (400,)),
        (b"a: 1" + b":0" * 100_000, "application/yaml", (400, 422)),
        (b"a: 1" + b":0" * 100_000 + b".0", "application/yaml", (400, 422)),
    ],
    ids=lambda value: repr(value)[:30],
)
async def test_bombs(w: World, raw: bytes, media: str, codes: tuple[int, ...]) -> None:
    tracemalloc.start()
    try:
        with bounded():
            reply = await w.call("POST", LAB, raw, media=media)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert reply.code in codes, reply.body[:300]
    assert len(reply.body) < 64 << 10
    assert peak < 24 << 20
    assert (await w.call("GET", "/readyz")).code == 200


async def test_a_strangers_bomb_holds_up_nobody(w: World) -> None:
    with bounded():
        reply = await w.call("POST", "/login", STRING_WITHOUT_END, peer=None)
    assert reply.code == 400


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("2026-01-31", "2026-01-31"),
        ("12:30:45", "12:30:45"),
        ("1:30.5", "1:30.5"),
        (".inf", ".inf"),
        ("<<", "<<"),
        ("'17'", "17"),
        ("17", 17),
        ("-0x1F", -31),
        ("0b11", 3),
        ("010", 8),
        ("0", 0),
        ("1_000", 1000),
        ("1.5e+3", 1500.0),
        ("-.5", -0.5),
        ("yes", True),
        ("~", None),
    ],
)
def test_plain_words_of_yaml(said: str, read: Any) -> None:
    assert bodies.parse_yaml(f"a: {said}".encode(), 64) == {"a": read}


@pytest.mark.parametrize("said", ["!!bool x", "!!int ''", "!!timestamp x", "!!str x", "! x", "!a [x]", "!!map {}"])
def test_no_tag_of_yaml_is_taken(said: str) -> None:
    with pytest.raises(Malformed, match="tags are not accepted"):
        bodies.parse_yaml(f"a: {said}".encode(), 64)


@pytest.mark.parametrize("said", ["1" * 400 + ".0", "0b_", "0x" + "f" * 40, "9" * 5000])
def test_numbers_of_yaml_that_json_cannot_say(said: str) -> None:
    with pytest.raises(Malformed, match="what JSON cannot say"):
        bodies.parse_yaml(f"a: {said}".encode(), 64)


@pytest.mark.parametrize("media", ["application/json", "application/yaml"])
@pytest.mark.parametrize("levels", [65, 1_000, 10_000])
async def test_what_nests_too_deep_hears_how_deep_it_may(w: World, levels: int, media: str) -> None:
    """Well-formed, so that nothing else is wrong with it."""
    reply = await w.call("POST", LAB, b'{"a":' * levels + b"1" + b"}" * levels, media=media)
    assert reply.code == 400
    assert "nested deeper than 64 levels" in reply.json["message"]


async def test_a_body_that_says_it_is_huge_is_not_read(w: World) -> None:
    reply = await w.call("POST", LAB, b"{}", headers={"content-length": str(10**12)})
    assert (reply.code, reply.json["reason"]) == (413, "RequestEntityTooLarge")


async def test_patches_that_grow(w: World) -> None:
    await w.create(LAB, instance("a"))
    add = [{"op": "add", "path": "/metadata/annotations", "value": {"a": "x" * 1000}}]
    double = [{"op": "copy", "from": "/metadata", "path": f"/metadata/c{i}"} for i in range(60)]
    assert (await w.call("PATCH", f"{LAB}/a", add + double, media=JSON)).code == 413
    many = [{"op": "add", "path": "/spec/x", "value": 1}] * 1001
    assert (await w.call("PATCH", f"{LAB}/a", many, media=JSON)).code == 413
    deep: Any = 1
    for _ in range(63):
        deep = {"a": deep}
    path = "/spec/image"
    nested = []
    for _ in range(6):
        nested.append({"op": "add", "path": path, "value": deep})
        path += "/a" * 63
    assert (await w.call("PATCH", f"{LAB}/a", nested, media=JSON)).code == 400
    assert (await w.call("PATCH", f"{LAB}/a", {"spec": deep}, media=MERGE)).code in (400, 422)


async def test_labels_pile_up_to_their_bound_and_no_further(w: World) -> None:
    await w.create(LAB, instance("a"))
    codes = []
    for start in range(0, 256, 64):
        labels = {f"k{i}": "v" for i in range(start, start + 64)}
        codes.append((await w.call("PATCH", f"{LAB}/a", {"metadata": {"labels": labels}}, media=MERGE)).code)
    assert codes == [200, 200, 422, 422]


@pytest.mark.parametrize(
    "query",
    [
        "labelSelector=a%20b",
        "labelSelector=a%20in%20(b",
        "labelSelector=" + "a," * 5000,
        "labelSelector=!",
        "labelSelector=a=b=c",
        "labelSelector=%E2%80%AE=x",
        "fieldSelector=spec.size=1",
        "fieldSelector=metadata.name",
        "limit=x",
        "limit=-1",
        "limit=99999999999999999999",
        "continue=zzz",
        "continue=%00",
        "resourceVersion=abc",
        "resourceVersion=-1",
        "watch=maybe",
        "timeoutSeconds=x&watch=1",
    ],
)
async def test_hostile_queries(w: World, query: str) -> None:
    reply = await w.call("GET", f"{LAB}?{query}")
    assert (reply.code, reply.json["reason"]) == (400, "BadRequest")


async def test_what_lists_forbid_together(w: World) -> None:
    for query in (
        "resourceVersionMatch=Exact",
        "resourceVersionMatch=Exact&resourceVersion=0",
        "resourceVersionMatch=Maybe&resourceVersion=1",
        "resourceVersionMatch=NotOlderThan&resourceVersion=1&continue=x",
        "sendInitialEvents=false",
        "watch=1&sendInitialEvents=true",
        "watch=1&sendInitialEvents=true&resourceVersionMatch=Exact",
        "watch=1&resourceVersionMatch=NotOlderThan",
    ):
        reply = await w.call("GET", f"{LAB}?{query}")
        assert (reply.code, reply.json["reason"]) == (422, "Invalid")
        assert reply.json["details"].items() >= {"group": "meta.k8s.io", "kind": "ListOptions"}.items()
    assert (await w.call("GET", f"{LAB}?resourceVersion=1&continue=x")).code == 400
    assert (await w.call("GET", f"{LAB}?includeObject=All")).code == 400
    reply = await w.call("GET", f"{LAB}?resourceVersion=999999999")
    assert (reply.code, reply.json["details"]["causes"][0]["reason"]) == (504, "ResourceVersionTooLarge")
    assert reply.headers["retry-after"] == "1"


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(JSON_VALUES, st.sampled_from(["spec", "metadata", "status", "kind", "apiVersion", "other"]))
async def test_any_json_gets_an_answer_that_is_ours(w: World, value: Any, field: str) -> None:
    reply = await w.call("POST", f"{LAB}?dryRun=All", {**instance("x"), field: value})
    assert reply.code in (201, 400, 422), (reply.code, reply.body)
    assert reply.json["kind"] in ("Status", "Instance")


POINTERS = st.sampled_from(
    ["", "/", "/spec", "/spec/-", "/spec/0", "/a/b", "spec", "/spec/~2", "/metadata/labels/x", "/~"]
)


@given(
    JSON_VALUES,
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test", "x"]) | JSON_VALUES,
                "path": POINTERS | JSON_VALUES,
                "from": POINTERS | JSON_VALUES,
                "value": JSON_VALUES,
            },
        ),
        max_size=5,
    ),
)
def test_any_json_patch_applies_or_is_refused(document: Any, operations: list[dict[str, Any]]) -> None:
    body = {"spec": document}
    before = orjson.dumps(body)
    with suppress(Invalid, Malformed, TooLarge):
        jsonpatch.apply(body, operations)
    assert orjson.dumps(body) == before


@given(st.binary(max_size=200))
def test_any_bytes_are_json_or_yaml_or_malformed(raw: bytes) -> None:
    for parse in (bodies.parse_json, bodies.parse_yaml):
        with suppress(Malformed):
            assert orjson.dumps(parse(raw, 64))


@given(st.text("0123456789abefxinyT!&*<=~.:_+-'\"[]{}, \n", max_size=40))
def test_any_text_is_yaml_or_malformed(text: str) -> None:
    with suppress(Malformed):
        assert orjson.dumps(bodies.parse_yaml(text.encode(), 64))


@given(st.text(max_size=60))
def test_any_text_is_a_selector_or_refused(text: str) -> None:
    with suppress(Malformed):
        assert parse_labels(text).matches({}) in (True, False)
    with suppress(Malformed):
        assert all(term.path == "metadata.name" for term in parse_fields(text, ["metadata.name"]))


@given(st.text(max_size=300))
def test_names_are_ascii(text: str) -> None:
    for check in (is_subdomain, is_label_key, is_label_value):
        assert text.isascii() or not check(text)
    assert all(cause.field for cause in opaque_text({"a": [text]}, "spec"))


def test_a_place_is_told_short_and_in_ascii() -> None:
    assert field_path(["spec", "ports", 0, "name"]) == "spec.ports[0].name"
    assert field_path(["spec", "gr\u00fcn\n"]) == "spec.gr\\xfcn\\n"
    assert len(field_path(["k" * 1000] * 1000)) == PATH_MAX
    (cause,) = opaque_text({"a": [{"b": ["x", {"c": "\x01"}]}, {"d": []}]}, "spec")
    assert (cause.field, cause.message) == ("spec.a[0].b[1].c", "Invalid value: U+0001 is not allowed in text")
    causes = opaque_text({"e": {"k" * 318: 1}, "f": {"\u202e": {"k" * 317: 1}}}, "spec")
    assert [(c.field, c.message.rpartition(": ")[2]) for c in causes] == [
        ("spec.e", "a field's name has more than 317 characters"),
        ("spec.f", "a field's name holds what is not text"),
    ]


@given(JSON_VALUES)
def test_any_metadata_is_judged(metadata: Any) -> None:
    assert isinstance(metadata_causes(metadata, namespaced=True), list)


@pytest.mark.parametrize(
    ("selector", "labels", "holds"),
    [
        ("", {}, True),
        ("a=b", {"a": "b"}, True),
        ("a==b", {"a": "c"}, False),
        ("a!=b", {}, True),
        ("a in (b,c)", {"a": "c"}, True),
        ("a notin (b, c)", {"a": "c"}, False),
        ("a notin (b)", {}, True),
        ("a", {"a": ""}, True),
        ("!a", {"a": ""}, False),
        ("a=b,!c , d in (e)", {"a": "b", "d": "e"}, True),
        ("x.dev/a=b", {"x.dev/a": "b"}, True),
        ("a=", {"a": ""}, True),
    ],
)
def test_label_selectors(selector: str, labels: dict[str, str], holds: bool) -> None:
    assert parse_labels(selector).matches(labels) is holds
