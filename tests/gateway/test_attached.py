"""What is an address in a request's body, however it is spelled, and what is none."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.gateway import attached
from bessemer.gateway.errors import Refused
from bessemer.gateway.request import ROUTES, read

INNER = "http://169.254.169.254/latest/meta-data"
ANYWHERE = [
    INNER,
    "https://a.example/x.png",
    "HTTPS://A.example/x",
    "file:///etc/passwd",
    "ftp://a/x",
    "gopher://a:70/_",
]
DATA = "data:image/png;base64,iVBORw0KGgo="


def body(content: Any, **words: Any) -> bytes:
    return orjson.dumps({"model": "m", "messages": [{"role": "user", "content": content}], **words})


def looked(raw: bytes, path: str = "/v1/chat/completions") -> list[str]:
    """The parts that are addresses, as the gateway comes by them."""
    wanted = read(raw, ROUTES[path])
    assert wanted.fields is not None
    return [one.part for one in attached.look(wanted.fields).attached] if attached.marked(raw) else []


@pytest.mark.parametrize("address", ANYWHERE)
@pytest.mark.parametrize(
    ("part", "named"),
    [
        ({"type": "image_url", "image_url": {"url": "@", "detail": "low"}}, "image_url"),
        ({"type": "image_url", "image_url": "@"}, "image_url"),
        ({"image_url": ["@"]}, "image_url"),
        ({"type": "video_url", "video_url": {"url": "@"}}, "video_url"),
        ({"type": "audio_url", "audio_url": {"url": "@"}}, "audio_url"),
        ({"type": "input_image", "image_url": "@"}, "image_url"),
        ({"type": "input_file", "file_url": "@"}, "file_url"),
        ({"type": "file", "file": {"file_data": "@"}}, "file"),
        ({"type": "input_audio", "input_audio": {"data": "@", "format": "wav"}}, "input_audio"),
        ({"type": "text", "text": "x", "image_url": {"url": "@"}}, "image_url"),
        ({"type": "novel", "source": "@"}, "source"),
        ({"type": "novel", "source": {"url": "@"}}, "source.url"),
        ({"images": ["@"]}, "images"),
    ],
)
def test_a_part_that_says_an_address_is_found(part: Any, named: str, address: str) -> None:
    said = orjson.loads(orjson.dumps(part).replace(b"@", address.encode()))
    assert looked(body(["words", said])) == [f"messages[0].content[1].{named}"]
    item = orjson.dumps({"model": "m", "input": [{"role": "user", "content": [said]}]})
    assert looked(item, "/v1/responses") == [f"input[0].content[0].{named}"]


@pytest.mark.parametrize(
    "raw",
    [
        {"input": [{"type": "computer_call_output", "output": {"type": "computer_screenshot", "image_url": INNER}}]},
        {"input": [{"type": "function_call_output", "output": [{"type": "input_image", "image_url": INNER}]}]},
        {"input": "x", "tools": [{"type": "mcp", "server_url": INNER}]},
        {"prompt": {"prompt_string": "x", "multimodal_data": [INNER]}},
        {"messages": [], "image_data": [{"data": INNER, "id": 10}]},
        {"messages": [], "tools": [{"type": "image_generation", "input_image_mask": {"image_url": INNER}}]},
    ],
)
def test_so_is_what_stands_elsewhere(raw: dict[str, Any]) -> None:
    assert len(looked(orjson.dumps({"model": "m", **raw}))) == 1


def test_an_address_as_an_outermost_name_is_refused() -> None:
    with pytest.raises(Refused) as found:
        looked(orjson.dumps({"model": "m", "messages": [], "image_url": INNER}))
    assert found.value.words.param == "image_url"


@pytest.mark.parametrize("said", ["/etc/passwd", "//inner/x", "inner", " data:image/png;base64,AA==", "DATA:x", "\tx"])
def test_where_an_address_belongs_all_but_data_is_one(said: str) -> None:
    assert looked(body([{"type": "image_url", "image_url": {"url": said}}])) == ["messages[0].content[0].image_url"]


@pytest.mark.parametrize(
    "said", [f" {INNER}", "ht\ntps://a/", "https:\\\\a", "https:/a", f"\ufeff{INNER}", f"\x01{INNER}"]
)
def test_an_address_is_one_to_whoever_is_lenient(said: str) -> None:
    assert looked(body([{"type": "input_audio", "input_audio": {"data": said}}]))


@pytest.mark.parametrize(
    "raw",
    [
        body(f"what is at {INNER}?"),
        body([{"type": "text", "text": INNER}, INNER]),
        body([{"type": "image_url", "image_url": {"url": DATA}}, {"type": "image_url", "image_url": None}]),
        body([{"type": "input_audio", "input_audio": {"data": "//uQxAAAAAAA/9j=", "format": "mp3"}}]),
        body("x", tools=[{"type": "function", "function": {"description": INNER, "parameters": {"image_url": INNER}}}]),
        body("x", metadata={"image_url": INNER}),
        body("x", response_format={"type": "json_schema", "json_schema": {"schema": {"$id": INNER}}}),
        orjson.dumps(
            {"model": "m", "messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": INNER}}]}]}
        ),
        orjson.dumps({"model": "m", "input": [{"type": "function_call_output", "output": INNER}]}),
        orjson.dumps({"model": "m", "input": [{"type": "web_search_call", "action": {"type": "open", "url": INNER}}]}),
        orjson.dumps(
            {
                "model": "m",
                "input": [{"content": [{"type": "output_text", "text": "x", "annotations": [{"url": INNER}]}]}],
                "include": ["message.input_image.image_url"],
            }
        ),
        orjson.dumps({"model": "m", "input": [INNER, INNER]}),
        orjson.dumps({"model": "m", "prompt": INNER}),
    ],
)
def test_text_may_say_addresses(raw: bytes) -> None:
    assert looked(raw) == []


def test_what_is_attached_as_data_is_bounded() -> None:
    long = "data:image/png;base64," + "A" * attached.DATA_LENGTH_MAX
    with pytest.raises(Refused, match="at most"):
        looked(body([{"type": "image_url", "image_url": {"url": long}}]))


def test_what_would_take_long_to_look_through_is_refused() -> None:
    for many in ([{}] * (attached.NODES_MAX + 1), [0] * (attached.SEPARATORS_MAX + 1)):
        with pytest.raises(Refused, match="looked through"):
            looked(body("x", documents=[*many, INNER]))


def test_a_name_that_is_there_twice_goes_on_once() -> None:
    raw = b'{"model":"m","messages":[{"content":[{"image_url":"%b","image_url":"%b"}]}]}' % (
        INNER.encode(),
        DATA.encode(),
    )
    wanted = read(raw, ROUTES["/v1/chat/completions"])
    assert wanted.fields is not None
    seen = attached.look(wanted.fields)
    assert seen.attached == []
    assert seen.written() == {"messages": orjson.dumps([{"content": [{"image_url": DATA}]}])}


def escaped(text: str, which: list[bool]) -> str:
    """A JSON string in which some characters are escaped, each in its hexadecimal form."""
    shown = (f"\\u{ord(c):04x}" if flag else c for c, flag in zip(text, [*which, *([False] * len(text))], strict=False))
    return '"' + "".join(shown) + '"'


SPELLED = st.lists(st.booleans(), max_size=40)
BLANK = st.text(" \t\r\n", max_size=3)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["image_url", "video_url", "audio_url", "file_url"]),
    st.sampled_from(ANYWHERE),
    SPELLED,
    SPELLED,
    BLANK,
)
def test_no_spelling_hides_an_address(name: str, address: str, named: list[bool], said: list[bool], blank: str) -> None:
    part = f"{{{blank}{escaped(name, named)}{blank}:{blank}{escaped(address, said)}{blank}}}"
    raw = f'{{"model":"m",{blank}"messages":[{{{escaped("content", said)}:[{part}]}}]}}'.encode()
    assert json.loads(raw)["messages"][0]["content"][0] == {name: address}
    assert looked(raw) == [f"messages[0].content[0].{name}"]


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)
    )
)
def test_whatever_it_looks_through_goes_on_as_it_was(tree: Any) -> None:
    raw = msgspec.Raw(json.dumps({"image_url": None, "x": tree}).encode())
    try:
        seen = attached.look({"messages": raw})
    except Refused:
        return
    for one in seen.attached:
        one.put(DATA)
    if not seen.attached:
        assert orjson.loads(seen.written()["messages"]) == orjson.loads(bytes(raw))
