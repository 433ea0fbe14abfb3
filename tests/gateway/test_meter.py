"""What is read out of events and bodies as they pass, and what goes on: by bytes where that is enough, and as the
parser would have it."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.gateway import request
from bessemer.gateway.meter import Counts, EventStream

CHAT = request.ROUTES["/v1/chat/completions"]
RESPONSES = request.ROUTES["/v1/responses"]
TIMINGS = {"cache_n": 2, "prompt_n": 3, "prompt_ms": 1.5, "predicted_n": 4, "predicted_per_second": 0.0}


def hidden(**shows: bool) -> EventStream:
    return EventStream(**{"show_usage": False, "show_timings": False, "show_counts": False, **shows})


def event(body: Any, before: bytes = b"") -> bytes:
    return before + b"data: " + orjson.dumps(body) + b"\n\n"


def counted(events: EventStream) -> tuple[int, int, int]:
    counts = events.counts
    return counts.input_tokens, counts.cached_input_tokens, counts.output_tokens


def test_timings_at_the_end_of_an_event_are_cut_off() -> None:
    events = hidden()
    assert events.feed(event({"choices": [1], "timings": TIMINGS})) == event({"choices": [1]})
    assert counted(events) == (5, 2, 4)
    shown = hidden(show_timings=True)
    asked = event({"choices": [1], "timings": TIMINGS})
    assert shown.feed(asked) == asked
    assert counted(shown) == (5, 2, 4)


@pytest.mark.parametrize(
    "timings",
    [
        {"predicted_n": -1},
        {"predicted_n": 1 << 60},
        {"predicted_n": "4"},
        {"predicted_n": 4.5},
        {"predicted_n": True},
        7,
    ],
)
def test_timings_that_are_none_are_taken_out_and_not_taken(timings: Any) -> None:
    events = hidden()
    assert orjson.loads(events.feed(event({"choices": [1], "timings": timings}))[5:]) == {"choices": [1]}
    assert counted(events) == (0, 0, 0)


def test_what_is_said_is_no_name() -> None:
    """Text that looks like our additions is text; a line of it that looks like another is none."""
    said = {"choices": [{"delta": {"content": ',"timings":{"predicted_n":9}} "usage" data: {"usage":{}}'}}]}
    events = hidden()
    assert events.feed(event(said)) == event(said)
    assert events.feed(event({**said, "timings": TIMINGS})) == event(said)
    assert counted(events) == (5, 2, 4)


def test_the_responses_api_tells_its_usage_in_its_last_event() -> None:
    usage = {"input_tokens": 31, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 30}}
    done = {"type": "response.completed", "response": {"id": "r", "usage": usage}}
    events = hidden(show_usage=True)
    delta = {"type": "response.output_text.delta", "delta": "data: x"}
    assert events.feed(event({**delta, "timings": TIMINGS}, b"event: a\n")) == event(delta, b"event: a\n")
    assert events.feed(event({**done, "timings": TIMINGS}, b"event: b\n")) == event(done, b"event: b\n")
    assert counted(events) == (31, 30, 3)


def test_usage_so_far_is_counted_and_shown_to_who_asks_for_it() -> None:
    each = {"choices": [{"finish_reason": None}], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}
    events = hidden(show_usage=True)
    assert orjson.loads(events.feed(event(each))[5:]) == {"choices": each["choices"]}
    assert counted(events) == (3, 0, 1)
    assert hidden(show_usage=True, show_counts=True).feed(event(each)) == event(each)
    last = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    assert events.feed(event(last)) == event(last)
    assert hidden().feed(event(last)) == b""


BODIES = st.dictionaries(
    st.sampled_from(["choices", "usage", "timings", "x", "response"]),
    st.recursive(
        st.integers(-5, 5) | st.text(max_size=5) | st.none(),
        lambda inner: st.dictionaries(
            st.sampled_from(["prompt_n", "predicted_n", "timings", "usage", "prompt_tokens", "n"]), inner, max_size=3
        ),
        max_leaves=4,
    ),
    max_size=4,
)


@given(bodies=st.lists(BODIES, max_size=4), cut=st.integers(1, 50))
def test_by_bytes_is_as_the_parser_has_it(bodies: list[dict[str, Any]], cut: int) -> None:
    """However the parts come."""
    stream = b"".join(map(event, bodies))
    events, counts = hidden(show_usage=True, show_counts=True), Counts()
    said = b"".join(events.feed(stream[at : at + cut]) for at in range(0, len(stream), cut))
    for body in bodies:
        counts.take(body)
        body.pop("timings", None)
    assert [orjson.loads(one[5:]) for one in said.split(b"\n\n")[:-1]] == bodies
    assert events.counts == counts


@pytest.mark.parametrize(
    "more",
    [{}, {"stream_options": {"x": 1}}, {"stream_options": None, "timings_per_token": False}, {"stream_options": 7}],
)
def test_what_is_asked_of_a_stream_beside_what_its_client_asks(more: dict[str, Any]) -> None:
    said = more.get("stream_options")
    options = {**(said if isinstance(said, dict) else {}), "include_usage": True, "continuous_usage_stats": True}
    body = {"model": "m", "stream": True, "messages": [{"a": "é"}], **more}
    for raw in (orjson.dumps(body), orjson.dumps(body, option=orjson.OPT_INDENT_2) + b"\n"):
        wanted = request.read(raw, CHAT)
        assert orjson.loads(wanted.body) == {**body, "stream_options": options, "timings_per_token": True}
        assert (wanted.stream, wanted.show_usage, wanted.show_timings) == (True, False, False)


def test_the_responses_api_is_asked_for_no_usage() -> None:
    wanted = request.read(
        orjson.dumps({"model": "m", "stream": True, "input": ["a"] * 9, "max_output_tokens": 7}), RESPONSES
    )
    assert "stream_options" not in orjson.loads(wanted.body)
    assert (wanted.writes, wanted.sequences, wanted.show_usage) == (7, 1, True)


@pytest.mark.parametrize("said", [{}, {"max_tokens": 9}, {"max_completion_tokens": 9, "n_predict": -1}])
def test_a_body_is_shortened_by_every_name_that_it_says_it_by(said: dict[str, Any]) -> None:
    body = {"model": "m", "messages": [], **said}
    shorter = orjson.loads(request.shortened(orjson.dumps(body), 5, route=request.ROUTES["/v1/chat/completions"]))
    assert shorter == {**body, **dict.fromkeys(said or ["max_tokens"], 5)}


def test_an_answer_of_the_responses_api_is_shortened_by_the_name_that_its_engines_heed() -> None:
    shorter = request.shortened(b'{"model":"m","input":"x"}', 5, route=RESPONSES)
    assert orjson.loads(shorter) == {"model": "m", "input": "x", "max_output_tokens": 5}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "said", "onward"),
    [
        ("/v1/chat/completions", {"n_predict": 1}, {"max_tokens": 1}),
        ("/v1/chat/completions", {"max_tokens": 1, "n_predict": -1}, {"max_tokens": 1}),
        ("/v1/chat/completions", {"max_completion_tokens": "900", "max_tokens": 1}, {"max_tokens": 1}),
        ("/v1/chat/completions", {"max_completion_tokens": 2, "n_predict": 10**19}, {"max_completion_tokens": 2}),
        ("/v1/chat/completions", {"max_tokens": 3, "max_completion_tokens": None}, None),
        ("/v1/chat/completions", {"max_tokens": 3, "n_predict": 2}, None),
        ("/v1/completions", {"max_completion_tokens": 1}, {"max_tokens": 1}),
        ("/v1/completions", {"max_tokens": 4}, None),
        ("/v1/responses", {"max_tokens": 1}, {"max_output_tokens": 1}),
        ("/v1/responses", {"max_output_tokens": None, "n_predict": 6}, {"max_output_tokens": 6}),
    ],
)
def test_what_bounds_an_answer_here_bounds_it_at_every_engine(
    path: str, said: dict[str, Any], onward: dict[str, Any] | None, stream: bool
) -> None:
    body = orjson.dumps({"model": "m", "stream": stream})[:-1] + b"," + json.dumps(said).encode()[1:]
    wanted = request.read(body, request.ROUTES[path])
    sent = json.loads(wanted.body)
    bounds = {name: sent[name] for name in ("max_output_tokens", *said, "max_tokens") if name in sent}
    assert bounds == (onward or said), "no engine writes more than is held for it"
    assert wanted.writes == max(one for one in bounds.values() if one is not None)
