"""A tiny OpenAI-compatible server on a unix socket, as llama.cpp's would answer, without a model.

Answers are deterministic: the same messages give the same words and the same counts. It copies what clients trip
over: usage in a stream only when asked for, ``timings`` with ``prompt_n`` and ``cache_n``, a connection that is closed
after a stream without saying so beforehand, 401 in llama.cpp's words. It is no HTTP server for anything else.
"""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bessemer.core.clock import Clock

BODY_BYTES_MAX = 8 << 20
WORDS = ("iron", "runs", "from", "the", "blown", "vessel", "as", "steel", "that", "carries", "every", "load")
EMBED_NUMBERS = 16
TEMPLATE_TOKENS = 20
"""What a chat template adds to the words of the messages."""


@dataclass(slots=True)
class Behaviour:
    """How a fake engine behaves; a test may change it while the engine runs."""

    nonsense: bool = False
    """Another model's name, no text, counts that do not add up."""
    seconds_per_token: float = 0.0
    cut_after_tokens: int | None = None
    """A stream breaks off after so many tokens, without ``[DONE]``."""
    mute: bool = False
    """Requests are taken and never answered."""
    status: int = 200
    """Any other status is answered with an error body."""
    heedless: bool = False
    """Words to stop at, tools and schemas are passed over."""


@dataclass(slots=True)
class Counters:
    """What ``/metrics`` shows."""

    prompt_tokens: int = 0
    prompt_tokens_cached: int = 0
    tokens_predicted: int = 0
    requests: int = 0
    kv_used: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """One completion: its words, and the split of its prompt into computed and cached tokens."""

    model: str
    words: tuple[str, ...]
    finish_reason: str
    prompt_n: int
    cache_n: int
    tool: str = ""
    """The tool that is called, with ``{}``, in place of words."""

    @property
    def message(self) -> dict[str, Any]:
        """OpenAI's message object."""
        if not self.tool:
            return {"role": "assistant", "content": "".join(self.words)}
        call = {"id": "call-1", "type": "function", "function": {"name": self.tool, "arguments": "{}"}}
        return {"role": "assistant", "content": None, "tool_calls": [call]}

    def usage(self, predicted: int) -> dict[str, Any]:
        """OpenAI's usage object."""
        prompt = self.prompt_n + self.cache_n
        return {
            "prompt_tokens": prompt,
            "completion_tokens": predicted,
            "total_tokens": prompt + predicted,
            "prompt_tokens_details": {"cached_tokens": self.cache_n},
        }

    def timings(self, predicted: int) -> dict[str, Any]:
        """llama.cpp's timings object, with the counts that metering reads."""
        return {
            "cache_n": self.cache_n,
            "prompt_n": self.prompt_n,
            "predicted_n": predicted,
            "predicted_ms": predicted * 1.0,
        }


@dataclass(slots=True)
class FakeModel:
    """What answers: alias, adapters, behaviour, counters, what it was asked last, how many at a time, and the last
    prompt, which is what a slot caches."""

    alias: str
    adapters: list[str] = field(default_factory=list)
    behaviour: Behaviour = field(default_factory=Behaviour)
    counters: Counters = field(default_factory=Counters)
    asked: dict[str, Any] = field(default_factory=dict)
    slots: int = 4
    embeds: bool = False
    _cached: tuple[str, ...] = ()

    def answer(self, body: dict[str, Any]) -> Answer:
        """Decide a whole answer and count its prompt. ``max_tokens`` defaults to 16."""
        self.asked = body
        template = 0 if "prompt" in body else TEMPLATE_TOKENS
        prompt = ("<s>",) * template + tuple(_prompt_words(body))
        same = 0
        while same < min(len(prompt), len(self._cached)) - 1 and prompt[same] == self._cached[same]:
            same += 1
        self._cached = prompt
        wanted = int(body.get("max_tokens") or body.get("max_completion_tokens") or 16)
        length = max(1, wanted if body.get("ignore_eos") else min(wanted, 8 + len(prompt) % 8))
        first = sum(map(len, prompt)) % len(WORDS)
        words = tuple(WORDS[(first + i) % len(WORDS)] + " " for i in range(length))
        self.counters.requests += 1
        self.counters.prompt_tokens += len(prompt) - same
        self.counters.prompt_tokens_cached += same
        if self.behaviour.nonsense:
            return Answer("unknown", (), "stop", 0, 0)
        finish, counts = "length" if length == wanted else "stop", (len(prompt) - same, same)
        if self.behaviour.heedless:
            return Answer(self.alias, words, finish, *counts)
        if body.get("tool_choice") == "required":
            return Answer(self.alias, ("{}",), "tool_calls", *counts, tool=body["tools"][0]["function"]["name"])
        if "response_format" in body:
            return Answer(self.alias, (_instance(body["response_format"]["json_schema"]["schema"]),), "stop", *counts)
        for word in body.get("stop") or ():
            text, found, _ = "".join(words).partition(word)
            if found:
                words, finish = tuple(one + " " for one in text.split()), "stop"
        return Answer(self.alias, words, finish, *counts)

    def embed(self, body: dict[str, Any]) -> dict[str, Any]:
        """OpenAI's list of embeddings: one of each input, by its words."""
        self.asked = body
        said = body.get("input", "")
        texts = [str(one) for one in said] if isinstance(said, list) else [str(said)]
        tokens = sum(1 + len(text.split()) for text in texts)
        self.counters.requests += 1
        self.counters.prompt_tokens += tokens
        packed = body.get("encoding_format") == "base64"
        data = [{"object": "embedding", "index": at, "embedding": _vector(one, packed)} for at, one in enumerate(texts)]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "model": self.alias, "data": data, "usage": usage}


def _vector(text: str, packed: bool) -> list[float] | str:
    """By its words: texts that share some are alike."""
    numbers = [0.25] * EMBED_NUMBERS
    for word in text.lower().split():
        numbers[zlib.crc32(word.encode()) % EMBED_NUMBERS] += 1.0
    return base64.b64encode(struct.pack(f"<{EMBED_NUMBERS}f", *numbers)).decode() if packed else numbers


def _instance(schema: dict[str, Any]) -> str:
    """Something of the schema: the first of what is enumerated, 0, no words."""

    def one(of: dict[str, Any]) -> Any:
        if "enum" in of:
            return of["enum"][0]
        if of.get("type") == "object":
            return {name: one(inner) for name, inner in of.get("properties", {}).items()}
        return {"integer": 0, "number": 0, "boolean": True, "array": []}.get(str(of.get("type")), "")

    return json.dumps(one(schema))


def _prompt_words(body: dict[str, Any]) -> list[str]:
    parts = [str(body.get("prompt", ""))]
    parts += [str(message.get("content") or "") for message in body.get("messages", []) if isinstance(message, dict)]
    return " ".join(parts).split()


class FakeServer:
    """Serves one `FakeModel` at a unix socket until `close`."""

    def __init__(self, model: FakeModel, *, secret: str, clock: Clock) -> None:
        self._model = model
        self._secret = secret
        self._clock = clock
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, door: Path) -> None:
        """Listen at the path."""
        self._server = await asyncio.start_unix_server(self._connected, path=str(door))

    async def close(self) -> None:
        """Stop listening and drop every connection, as the end of a process does."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; False when the connection ends with it."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _version = head[0].split(" ", 2)
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        raw = await reader.readexactly(min(int(headers.get("content-length", "0")), BODY_BYTES_MAX))
        if self._model.behaviour.mute:
            await asyncio.Event().wait()
        if path == "/health":
            return await _reply(writer, {"status": "ok"})
        if headers.get("authorization") != f"Bearer {self._secret}":
            return await _refuse(writer, 401, message="Invalid API Key", kind="authentication_error")
        if self._model.behaviour.status != 200:
            status = self._model.behaviour.status
            return await _refuse(writer, status, message="told to fail", kind="server_error")
        if path == "/metrics":
            return await _reply(writer, self._metrics())
        if path == "/v1/models":
            return await _reply(writer, {"object": "list", "data": [{"id": self._model.alias, "object": "model"}]})
        if method == "POST" and path in ("/v1/chat/completions", "/v1/completions"):
            return await self._complete(writer, raw)
        if method == "POST" and path == "/v1/embeddings" and self._model.embeds:
            return await _reply(writer, self._model.embed(json.loads(raw)))
        if method == "POST" and path == "/v1/embeddings":
            return await _refuse(writer, 501, message="This server does not support embeddings", kind="not_supported")
        return await _refuse(writer, 404, message="File Not Found", kind="not_found_error")

    async def _complete(self, writer: asyncio.StreamWriter, raw: bytes) -> bool:
        try:
            body = json.loads(raw)
        except ValueError:
            return await _refuse(writer, 400, message="parse error", kind="invalid_request_error")
        answer = self._model.answer(body)
        if body.get("stream"):
            await self._stream(writer, answer, body=body)
            return False
        words = [word async for word in self._words(answer)]
        return await _reply(writer, completion(answer) | {"timings": answer.timings(len(words))})

    async def _stream(self, writer: asyncio.StreamWriter, answer: Answer, *, body: dict[str, Any]) -> None:
        head = b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nContent-Type: text/event-stream\r\n"
        writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n")
        each = bool(body.get("timings_per_token"))
        await _event(writer, _delta(answer, {"role": "assistant", "content": None}))
        count = 0
        async for word in self._words(answer):
            if count == self._model.behaviour.cut_after_tokens:
                return
            count += 1
            extra = {"timings": answer.timings(count)} if each else {}
            await _event(writer, _delta(answer, {"content": word}) | extra)
        ending: dict[str, Any] = {"timings": answer.timings(count)}
        options = body.get("stream_options") or {}
        if options.get("include_usage"):
            await _event(writer, _delta(answer, {}, finish=answer.finish_reason))
            usage = {"usage": answer.usage(count)}
            await _event(writer, _envelope(answer, "chat.completion.chunk", choices=[]) | usage | ending)
        else:
            await _event(writer, _delta(answer, {}, finish=answer.finish_reason) | ending)
        await _chunk(writer, b"data: [DONE]\n\n")
        await _chunk(writer, b"")

    async def _words(self, answer: Answer) -> AsyncIterator[str]:
        for word in answer.words:
            if self._model.behaviour.seconds_per_token:
                await self._clock.sleep(self._model.behaviour.seconds_per_token)
            else:
                await asyncio.sleep(0)  # as an engine does, it gives a client that leaves the time to be noticed
            self._model.counters.tokens_predicted += 1
            yield word

    def _metrics(self) -> str:
        counters = self._model.counters
        return (
            f"llamacpp:prompt_tokens_total {counters.prompt_tokens}\n"
            f"llamacpp:prompt_tokens_cached_total {counters.prompt_tokens_cached}\n"
            f"llamacpp:tokens_predicted_total {counters.tokens_predicted}\n"
        )


def completion(answer: Answer) -> dict[str, Any]:
    """A whole answer that was not streamed, as a body."""
    choice = {"index": 0, "finish_reason": answer.finish_reason, "message": answer.message}
    choice["text"] = "".join(answer.words)
    return _envelope(answer, "chat.completion", choices=[choice]) | {"usage": answer.usage(len(answer.words))}


def _envelope(answer: Answer, kind: str, *, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": "chatcmpl-fake", "object": kind, "created": 0, "model": answer.model, "choices": choices}


def _delta(answer: Answer, delta: dict[str, Any], *, finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return _envelope(answer, "chat.completion.chunk", choices=[choice])


async def _refuse(writer: asyncio.StreamWriter, status: int, *, message: str, kind: str) -> bool:
    return await _reply(writer, {"error": {"message": message, "type": kind, "code": status}}, status=status)


async def _event(writer: asyncio.StreamWriter, body: dict[str, Any]) -> None:
    await _chunk(writer, b"data: " + json.dumps(body).encode() + b"\n\n")


async def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%s\r\n" % (len(data), data))
    await writer.drain()


async def _reply(writer: asyncio.StreamWriter, body: dict[str, Any] | str, *, status: int = 200) -> bool:
    kind, data = ("text/plain", body) if isinstance(body, str) else ("application/json", json.dumps(body))
    raw = data.encode()
    head = (
        f"HTTP/1.1 {status} Status\r\nServer: llama.cpp\r\nContent-Type: {kind}\r\nContent-Length: {len(raw)}\r\n\r\n"
    )
    writer.write(head.encode() + raw)
    await writer.drain()
    return True
