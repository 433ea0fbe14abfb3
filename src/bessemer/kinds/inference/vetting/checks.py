"""What a model is asked before it is measured, and what its answers say of it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from bessemer.drivers.load.protocol import Hit, Shot
from bessemer.kinds.inference.vetting.report import Check, checked, refused, shown

COMPLETIONS = "/v1/completions"
QUESTION = "Name three colours of the rainbow, each in a short sentence of its own."
LENGTH = 4
"""Tokens of an answer that is to be short."""

TOOL: Mapping[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {"verdict": {"type": "string", "enum": ["yes", "no"]}, "count": {"type": "integer"}},
    "required": ["verdict", "count"],
    "additionalProperties": False,
}

_MARKS = ("<|", "[INST]", "<start_of_turn>")
"""What templates put between turns, and answers should not hold."""

TEXT_MAX = 2000
"""Characters of an answer that count: asked for are a few tokens, and what is known of it is kept in a status."""


def first(model: str) -> list[Shot]:
    """Asked one after the other: twice the same, once without a template, a short answer, a tool, a schema."""

    def chat(text: str, **more: Any) -> Shot:
        said = {"model": model, "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 32}
        return Shot(0.0, {**said, "seed": 1, **more})

    plain = {"model": model, "prompt": QUESTION, "temperature": 0, "max_tokens": 1}
    schema = {"name": "verdict", "schema": dict(SCHEMA), "strict": True}
    return [
        # What lies in a cache is computed in other pieces, and may round otherwise.
        chat(QUESTION, cache_prompt=False),
        chat(QUESTION, cache_prompt=False),
        Shot(0.0, plain, COMPLETIONS),
        chat(QUESTION, max_tokens=LENGTH),
        chat("What is the weather in Bern?", tools=[dict(TOOL)], tool_choice="required", max_tokens=64),
        chat(
            "Is water wet? How many oceans are there?",
            response_format={"type": "json_schema", "json_schema": schema},
            max_tokens=64,
        ),
    ]


def second(model: str, text: str) -> tuple[list[Shot], str]:
    """The first question again, to be ended by a word of what was answered; none where that was too short."""
    word = stop_of(text)
    if not word:
        return [], ""
    body = {"model": model, "messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "max_tokens": 32}
    return [Shot(0.0, {**body, "seed": 1, "cache_prompt": False, "stop": [word]})], word


def stop_of(text: str) -> str:
    """A word in the middle of an answer, which does not stand in it before; "" where there is none."""
    words = text.split()
    for word in words[max(1, len(words) // 3) :]:
        if word.isalnum() and text.find(word) > 0 and not text.startswith(word):
            return word
    return ""


def judged(hits: Sequence[Hit]) -> tuple[list[Check], str]:
    """What came of `first`, and the text of the first answer."""
    one, two, plain, short, tool, schema = hits
    text = text_of(one)
    return [
        checked("answers", _answers(one, text)),
        checked("template", _template(one, plain, text=text)),
        checked("deterministic", _same(one, two)),
        checked("length", _length(short)),
        checked("tools", _tool(tool)),
        checked("schema", _schema(schema)),
    ], text


def stopped(hits: Sequence[Hit], *, text: str, word: str) -> Check:
    """What came of `second`."""
    if not hits:
        return Check(name="stop", verdict="Skipped", seen=f"the answer has no word to stop at: {shown(text)}")
    return checked("stop", _stop(hits[0], text=text, word=word))


def text_of(hit: Hit) -> str:
    """The answer's words; "" where there are none."""
    said = _message(hit).get("content")
    return said[:TEXT_MAX] if isinstance(said, str) else ""


def _answers(hit: Hit, text: str) -> Iterator[str]:
    if refused(hit) or not text.strip() or "\N{REPLACEMENT CHARACTER}" in text:
        yield refused(hit) or "no text"
    yield shown(text)


def _template(hit: Hit, plain: Hit, *, text: str) -> Iterator[str]:
    if why := refused(hit) or refused(plain):
        yield why
    elif hit.read <= plain.read:
        yield "a conversation is no longer than its text: no template is applied"
    if any(mark in text for mark in _MARKS):
        yield f"the answer holds a mark of the template: {shown(text)}"
    yield f"{plain.read} tokens of text, {hit.read} as a conversation"


def _same(one: Hit, two: Hit) -> Iterator[str]:
    if why := refused(one) or refused(two):
        yield why
    elif text_of(one) != text_of(two):
        yield f"at temperature 0 it answers {shown(text_of(one))}, then {shown(text_of(two))}"
    yield "the same answer twice at temperature 0" if text_of(one) == text_of(two) else ""


def _length(hit: Hit) -> Iterator[str]:
    if why := refused(hit):
        yield why
    elif hit.written > LENGTH:
        yield f"max_tokens {LENGTH} is not heeded"
    yield f"{hit.written} tokens, finish_reason {_finish(hit)}"


def _stop(hit: Hit, *, text: str, word: str) -> Iterator[str]:
    if why := refused(hit):
        yield why
    elif word in text_of(hit) or _finish(hit) != "stop":
        yield f"stop {shown(word)} is not heeded"
    elif not text.startswith(text_of(hit).rstrip()):
        yield f"with a stop it answers otherwise: {shown(text_of(hit))}"
    yield f"ends before {shown(word)}, finish_reason {_finish(hit)}"


def _tool(hit: Hit) -> Iterator[str]:
    calls = _message(hit).get("tool_calls")
    call = calls[0].get("function") if isinstance(calls, list) and calls and isinstance(calls[0], dict) else None
    named = call.get("name") if isinstance(call, dict) else None
    arguments = _json(call.get("arguments")) if isinstance(call, dict) else None
    if why := refused(hit):
        yield why
    elif named != TOOL["function"]["name"]:
        yield f"no call of the tool that must be called: {shown(text_of(hit))}"
    elif not isinstance(arguments, dict):
        yield "the call's arguments are no JSON object"
    yield f"{shown(str(named))[1:-1]}({shown(str(arguments))})" if named else ""


def _schema(hit: Hit) -> Iterator[str]:
    said = _json(text_of(hit))
    fits = isinstance(said, dict) and said.keys() == SCHEMA["properties"].keys()
    fits = fits and said["verdict"] in ("yes", "no") and type(said["count"]) is int
    if why := refused(hit):
        yield why
    elif not fits:
        yield "the answer is not of the schema"
    yield shown(text_of(hit))


def _choice(hit: Hit) -> Mapping[str, Any]:
    said = _json(hit.answer)
    choices = said.get("choices") if isinstance(said, dict) else None
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}


def _message(hit: Hit) -> Mapping[str, Any]:
    said = _choice(hit).get("message")
    return said if isinstance(said, dict) else {}


def _finish(hit: Hit) -> str:
    return shown(str(_choice(hit).get("finish_reason"))[:20])[1:-1]


def _json(text: Any) -> Any:
    try:
        return orjson.loads(text)
    except (orjson.JSONDecodeError, TypeError):
        return None
