"""What was streamed, put together again, is what would have been answered without a stream."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.gateway.assembled import Assembled

MOST = 1 << 20
NAMES = ("choices", "delta", "message", "index", "object", "type", "response", "tool_calls", "content", "output_index")
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
PIECES = st.lists(TEXT.filter(bool), min_size=1, max_size=5)
CALL = st.tuples(TEXT.filter(bool), PIECES)
CHOICE = st.fixed_dictionaries({
    "content": st.none() | PIECES,
    "reasoning": st.none() | PIECES,
    "calls": st.lists(CALL, max_size=3),
    "tokens": st.lists(TEXT, max_size=3),
    "finish": st.sampled_from(["stop", "length", "tool_calls"]),
})  # fmt: skip


def event(said: Any) -> bytes:
    return b"data: " + orjson.dumps(said) + b"\n\n"


def chunk(index: int, delta: dict[str, Any], **more: Any) -> bytes:
    choice = {"index": index, "delta": delta, "finish_reason": None, **more}
    return event({"id": "c1", "object": "chat.completion.chunk", "created": 7, "model": "m", "choices": [choice]})


def streamed(index: int, said: dict[str, Any]) -> list[bytes]:
    """The events of one choice, as engines send them."""
    events = [chunk(index, {"role": "assistant", "content": None})]
    events += [chunk(index, {"content": piece}) for piece in said["content"] or ()]
    events += [chunk(index, {"reasoning_content": piece}) for piece in said["reasoning"] or ()]
    for place, (name, pieces) in enumerate(said["calls"]):
        call = {"index": place, "id": f"call-{place}", "type": "function", "function": {"name": name, "arguments": ""}}
        events.append(chunk(index, {"tool_calls": [call]}))
        for piece in pieces:
            events.append(chunk(index, {"tool_calls": [{"index": place, "function": {"arguments": piece}}]}))
    for token in said["tokens"]:
        events.append(chunk(index, {}, logprobs={"content": [{"token": token, "logprob": -0.5}]}))
    return [*events, chunk(index, {}, finish_reason=said["finish"])]


def whole(index: int, said: dict[str, Any]) -> dict[str, Any]:
    """The same choice where nothing is streamed."""
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if said["content"] is None else "".join(said["content"]),
    }
    if said["reasoning"] is not None:
        message["reasoning_content"] = "".join(said["reasoning"])
    if said["calls"]:
        message["tool_calls"] = [
            {"id": f"call-{place}", "type": "function", "function": {"name": name, "arguments": "".join(pieces)}}
            for place, (name, pieces) in enumerate(said["calls"])
        ]
    choice = {"index": index, "message": message, "finish_reason": said["finish"]}
    if said["tokens"]:
        choice["logprobs"] = {"content": [{"token": token, "logprob": -0.5} for token in said["tokens"]]}
    return choice


@given(st.lists(CHOICE, min_size=1, max_size=3), st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None)
def test_a_chat_is_put_together(choices: list[dict[str, Any]], random: Any) -> None:
    """Events of several choices come in any order, each one's own in theirs, any number at once."""
    lines = [streamed(index, said) for index, said in enumerate(choices)]
    events: list[bytes] = []
    while any(lines):
        events.append(random.choice([line for line in lines if line]).pop(0))
    events += [event({"id": "c1", "choices": [], "usage": {"prompt_tokens": 3}}), b"data: [DONE]\n\n"]
    made = Assembled(MOST)
    while events:
        count = random.randint(1, len(events))
        made.feed(b"".join(events[:count]))
        del events[:count]
    assert orjson.loads(orjson.dumps(made.answer())) == {
        "id": "c1", "object": "chat.completion", "created": 7, "model": "m", "usage": {"prompt_tokens": 3},
        "choices": [whole(index, said) for index, said in enumerate(choices)],
    }  # fmt: skip
    assert not made.cut


@given(st.lists(PIECES, min_size=1, max_size=3))
@settings(max_examples=50, deadline=None)
def test_a_completion_is_put_together(texts: list[list[str]]) -> None:
    made = Assembled(MOST)
    for index, pieces in enumerate(texts):
        for piece in pieces:
            made.feed(event({"object": "text_completion", "choices": [{"index": index, "text": piece}]}))
        made.feed(event({"choices": [{"index": index, "text": "", "finish_reason": "stop"}]}))
    choices = [{"index": i, "text": "".join(pieces), "finish_reason": "stop"} for i, pieces in enumerate(texts)]
    assert made.answer() == {"object": "text_completion", "choices": choices}


def test_of_a_response_the_last_word_counts_and_until_then_its_text() -> None:
    made = Assembled(MOST)
    begun = {"id": "r1", "object": "response", "status": "in_progress", "output": []}
    made.feed(event({"type": "response.created", "response": begun}))
    for piece in ("ste", "el"):
        said = {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": piece}
        made.feed(b"event: response.output_text.delta\n" + event(said))
    cut = made.answer()
    assert cut is not None
    assert (cut["id"], cut["status"]) == ("r1", "incomplete")
    assert cut["output"] == [
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "steel"}]}
    ]
    done = {**begun, "status": "completed", "output": [{"type": "message"}]}
    made.feed(event({"type": "response.completed", "response": done}))
    assert made.answer() == done


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5000) | TEXT, lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["index", "delta", "choices", "content", "tool_calls", "x"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(
    st.lists(st.one_of(st.dictionaries(st.sampled_from(["id", "choices", "type", "response", "usage"]), JSON), JSON))
)
@settings(max_examples=60, deadline=None)
def test_whatever_an_engine_says_can_be_written(events: list[Any]) -> None:
    made = Assembled(2000)
    for said in events:
        made.feed(event(said))
        assert made.size <= 2000
    orjson.dumps(made.answer())


@pytest.mark.parametrize(
    "said",
    [
        [{"choices": [{"index": 0, "delta": {"content": "x" * 100}}]}] * 1000,
        [{"choices": [{"index": index, "delta": {}}]} for index in range(100_000)],
        [{"choices": [{"index": 0, "delta": {"tool_calls": [{"index": n}]}}]} for n in range(2000)],
        [{"choices": [{"index": 0, "delta": {f"name-{n}": ""}}]} for n in range(2000)],
        [{f"name-{n}": "x" * 100} for n in range(2000)],
        [{"id": n} for n in range(2000)] + [{"id": "x" * 100_000}],
        [{"id": "", "object": {"a": ["x" * 50_000]}}],
        [{"type": "response.output_text.delta", "delta": "x" * 100, "output_index": n} for n in range(2000)],
        [{"type": "response.created", "response": {"x": "x" * 100_000}}],
    ],
)  # fmt: skip
def test_a_stream_without_end_is_cut(said: list[Any]) -> None:
    made = Assembled(20_000)
    for one in said:
        made.feed(event(one))
    assert made.cut
    assert made.size <= 20_000
    assert len(orjson.dumps(made.answer())) < 60_000


def test_what_is_too_deep_or_no_json_is_left_out() -> None:
    made = Assembled(MOST)
    made.feed(b"data: {\n\ndata: [1]\n\n: a comment\n\ndata: " + b'{"a":' * 500 + b"1" + b"}" * 500 + b"\n\n")
    assert made.cut
    assert made.answer() is None
    deep: Any = "x"
    for _ in range(240):
        deep = {"a": deep}
    for _ in range(3):
        made.feed(event({"choices": [{"index": 0, "delta": {"content": deep}}]}))
    made.answer()


def test_what_is_held_of_a_stream_is_about_what_it_said() -> None:
    made = Assembled(MOST)
    events = b"".join(event({"choices": [{"index": 0, "delta": {"content": "word "}}]}) for _ in range(1000))
    tracemalloc.start()
    try:
        for _ in range(30):
            made.feed(events)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    answer = made.answer()
    assert answer is not None
    assert answer["choices"][0]["message"]["content"] == "word " * 30_000
    assert 150_000 <= made.size <= 160_000
    assert held < 2 * made.size


ODD = st.recursive(
    st.none() | st.integers(0, 2) | st.sampled_from(["", "x", "chat.completion.chunk", "response.completed"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=12,
)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.dictionaries(st.sampled_from(NAMES), ODD, max_size=4), max_size=6))
def test_whatever_an_engine_says_is_taken(said: list[Any]) -> None:
    made = Assembled(MOST)
    for one in said:
        made.feed(event(one))
    answer = made.answer()
    assert answer is None or orjson.loads(orjson.dumps(answer)) == answer


@pytest.mark.parametrize("message", ["x", 5, ["x"]])
def test_a_message_that_is_none_is_cut_there(message: Any) -> None:
    made = Assembled(MOST)
    made.feed(event({"choices": [{"index": 0, "message": message}]}))
    made.feed(chunk(0, {"content": "word"}))
    assert made.cut
    assert made.answer() is not None


def test_a_kind_that_is_no_word_is_kept() -> None:
    made = Assembled(MOST)
    made.feed(event({"object": ["a"], "choices": []}))
    assert made.answer() == {"object": ["a"], "choices": []}


def test_however_many_places_a_list_has_each_is_found_at_once() -> None:
    inner = {"index": 0, "more": [{"index": at} for at in range(2000)]}
    made = Assembled(MOST)
    made.feed(chunk(0, {"calls": [{"index": at} for at in range(6000)]}))
    made.feed(chunk(0, {"others": [inner]}))
    again = chunk(
        0, {"calls": [{"index": 9999}] * 20_000, "others": [{"index": 0, "more": [{"index": 9999}] * 20_000}]}
    )
    began = time.process_time()
    made.feed(again)
    assert time.process_time() - began < 1.0


def test_what_was_said_before_a_response_ended_is_not_held_beside_it() -> None:
    made = Assembled(MOST)
    tracemalloc.start()
    try:
        for at in range(8):
            made.feed(chunk(at, {"content": "x" * 900_000}))
            made.feed(event({"type": "response.completed", "response": {"id": "r"}}))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < MOST
    assert made.answer() == {"id": "r"}


@pytest.mark.parametrize("small", [{}, [], {"a": {}}])
def test_small_values_count_for_what_they_take(small: Any) -> None:
    events = event({"x": [small] * 200_000}) + chunk(0, {"y": {f"{at}": small for at in range(100_000)}})
    made = Assembled(MOST)
    tracemalloc.start()
    try:
        made.feed(events)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2 * MOST


def test_a_stream_that_tells_too_much_is_read_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []
    take = Assembled._take
    monkeypatch.setattr(Assembled, "_take", lambda made, said: (read.append(said), take(made, said)))
    made = Assembled(20_000)
    for _ in range(50):
        made.feed(event({"x": "x" * 15_000, "y": "y" * 15_000}))
    assert len(read) < 10
    for name in ("r1", "r2"):
        made.feed(event({"type": "response.completed", "response": {"id": name}}))
    assert made.cut
    assert made.answer() == {"id": "r1"}, "which tells all of it, once"
