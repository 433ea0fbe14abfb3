"""A field that stands twice in a body: refused, told, or passed over, as the client says; in JSON and in YAML."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.api.body import parse_yaml
from bessemer.api.names import CAUSES_MAX
from bessemer.api.twice import in_json, told
from tests.api.world import BASE, World, instance

LAB = f"{BASE}/namespaces/acme--lab/instances"
APPLY, MERGE, JSON = "application/apply-patch+yaml", "application/merge-patch+json", "application/json-patch+json"
TWICE = b'{"metadata":{"name":"vm"},"spec":{"flavor":"small","image":"micro","running":true,"running" : false}}'
YAML = b"metadata: {name: vm}\nspec:\n  flavor: small\n  image: micro\n  running: true\n  running: false\n"
WORDS = 'duplicate field "spec.running"'
LINE = 'line 6: key "running" already set in map'


@pytest.mark.parametrize(
    ("raw", "media", "words"), [(TWICE, "application/json", WORDS), (YAML, "application/yaml", LINE)]
)
async def test_a_create_says_so(w: World, raw: bytes, media: str, words: str) -> None:
    for query in ("", "?fieldValidation=Strict"):
        refused = await w.call("POST", f"{LAB}{query}", raw, media=media)
        assert (refused.code, refused.json["message"]) == (400, f"strict decoding error: {words}")
    both = raw.replace(b"micro", b'micro","typo":"x' if media.endswith("json") else b"micro\n  typo: x")
    both = both.replace(b"running: false", b"running: false")
    quoted = words.replace('"', '\\"').replace("line 6", "line 7")
    warned = await w.call("POST", f"{LAB}?fieldValidation=Warn", both, media=media)
    assert (warned.code, warned.json["spec"]["running"]) == (201, False)
    assert warned.headers["warning"] == f'299 - "{quoted}", 299 - "unknown field \\"spec.typo\\""'
    ignored = await w.call("POST", f"{LAB}?fieldValidation=Ignore", raw.replace(b"vm", b"v2"), media=media)
    assert (ignored.code, "warning" in ignored.headers) == (201, False)


async def test_so_does_every_other_write(w: World) -> None:
    await w.create(LAB, instance("vm"))
    agent = await w.host("h1")
    await w.claim("vm", "h1", "acme--lab")
    at = (await w.call("GET", f"{LAB}/vm")).json["metadata"]["resourceVersion"].encode()
    claims = f"{BASE}/namespaces/acme--lab/claims/instance-vm-0"
    head = b'"apiVersion":"bessemer.dev/v1alpha1","kind":"Instance",'
    put = b"{" + head + TWICE[1:].replace(b'"vm"', b'"vm","resourceVersion":"%s"' % at)
    phase = b'{"status":{"phase":"Stopped","phase":"Stopped"}}'
    status = 'duplicate field "status.phase"'
    operation = b'[{"op":"remove","op":"add","path":"/metadata/labels","value":{}}]'
    for method, path, raw, media, peer, words in (
        ("PUT", f"{LAB}/vm?", put, "application/json", None, WORDS),
        ("PATCH", f"{LAB}/vm?", b'{"spec":{"running":true,"running":false}}', MERGE, None, WORDS),
        ("PATCH", f"{LAB}/vm?", operation, JSON, None, 'duplicate field "[0].op"'),
        ("PATCH", f"{LAB}/vm?fieldManager=m&", b"{" + head + TWICE[1:], APPLY, None, WORDS),
        ("PATCH", f"{claims}/status?", phase, MERGE, agent, status),
    ):
        more = {} if peer is None else {"peer": peer}
        refused = await w.call(method, path, raw, media=media, **more)
        assert (refused.code, refused.json["message"]) == (400, f"strict decoding error: {words}"), raw
        warned = await w.call(
            method,
            f"{path}force=true&fieldValidation=Warn" if media == APPLY else f"{path}fieldValidation=Warn",
            raw,
            media=media,
            **more,
        )
        assert warned.code == 200, warned.body
        assert warned.headers["warning"] == '299 - "' + words.replace('"', '\\"') + '"'


def test_what_yaml_calls_a_merge_is_a_field_like_others() -> None:
    """Nothing is merged, so nothing stands twice by it."""
    found: list[str] = []
    read = parse_yaml(b"<<: {a: 1}\na: 2\nb: {<<: {a: 1, c: 3}, a: 2}\n", 8, twice=found.extend)
    assert (read, found) == ({"<<": {"a": 1}, "a": 2, "b": {"<<": {"a": 1, "c": 3}, "a": 2}}, [])


PLACES = [
    (b'{"a":1}', []),
    (b'{"a:b":"c:d","e":[":",{"f":":"}]}', []),
    (b'{"a":"\\u003a\\u003A","b":{}}', []),
    (b'{"a":"\\u003a","b":1,"b":1}', ["b"]),
    (b'{"a":1,"\\u0061":2}', ["a"]),
    (b'{"a" :1,"a":2}', ["a"]),
    (b'{"a":{"b":1,"b":1,"b":1},"c":[{"d":1},{"d":1,"d":[]}]}', ["a.b", "c[1].d"]),
    (b'[{"op":1,"op":2}]', ["[0].op"]),
    (b'{"a":{"x":1},"a":{"y":1}}', ["a"]),
    (b'{"":1,"":2}', [""]),
    (b'{"a":' + b"9" * 300 + b',"a":1}', ["a"]),
    (b'{"k":["' + b"x" * (64 << 10) + b'","::{:"],"a":1,"a":2}', ["a"]),
    (b'{"k":["' + b"x" * (64 << 10) + b'","::{:\\\\"],"a":1,"b":2}', []),
]


@pytest.mark.parametrize(("raw", "paths"), PLACES, ids=lambda value: str(value)[:24])
def test_where_it_stands_is_told(raw: bytes, paths: list[str]) -> None:
    assert sorted(in_json(raw, orjson.loads(raw))) == [f'duplicate field "{path}"' for path in paths]


def test_of_many_some_are_told() -> None:
    raw = b'{"a":[' + b",".join([b'{"b":1,"b":1}'] * 2000) + b"]}"
    assert len(in_json(raw, orjson.loads(raw))) == CAUSES_MAX


async def test_of_a_large_body_one_is_told_and_the_loop_goes_on_meanwhile() -> None:
    """Its cost is at Python's speed."""
    raw = b'{"a":[' + b",".join([b"{}"] * 50_000) + b'],"b":{"c":1,"c":2},"d":1,"d":2}'
    found: list[str] = []
    telling = asyncio.ensure_future(told(raw, orjson.loads(raw), twice=found.extend))
    await asyncio.sleep(0)
    assert not telling.done()
    assert found == []
    await telling
    assert found == ['duplicate field "c"']


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_what_stands_once_is_never_called_twice(value: Any, escaped: bool, indent: int | None) -> None:
    try:
        raw = json.dumps(value, ensure_ascii=escaped, indent=indent).encode()
        read = orjson.loads(raw)
    except (UnicodeEncodeError, orjson.JSONDecodeError):
        return
    assert in_json(raw, read) == []


@given(st.dictionaries(st.text(max_size=4), VALUES, min_size=1, max_size=4), st.integers(0, 3), st.booleans())
def test_what_stands_twice_always_is(value: dict[str, Any], which: int, escaped: bool) -> None:
    """Whatever the values hold; the counts of colons alone could be even."""
    name = sorted(value)[which % len(value)]
    try:
        pairs = [*value.items(), (name, {"again": ":::"})]
        said = ",".join(
            f"{json.dumps(k, ensure_ascii=escaped)}:{json.dumps(v, ensure_ascii=escaped)}" for k, v in pairs
        )
        raw = f"{{{said}}}".encode()
        read = orjson.loads(raw)
    except (UnicodeEncodeError, orjson.JSONDecodeError):
        return
    assert len(in_json(raw, read)) == 1
