"""What an engine's answer must be to make sense, and what its silence means. Pure; the real and the fake share it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bessemer.core.errors import DriverError
from bessemer.drivers.engine.protocol import EngineMetrics, ProbeResult
from bessemer.drivers.process.protocol import End, Ended

COUNT_MAX = 1 << 53
PROBE_TOKENS = 4
PROBE_BODY: Mapping[str, Any] = {
    "messages": [{"role": "user", "content": "Say hello."}],
    "max_tokens": PROBE_TOKENS,
    "temperature": 0,
    "stream": False,
}

EMBED_BODY: Mapping[str, Any] = {"input": "Say hello.", "encoding_format": "float"}


def judge(reply: Any, *, alias: str | None, seconds: float) -> ProbeResult:
    """Read the reply to `PROBE_BODY`. Raises DriverError ``ProbeFailed`` with what is wrong about it."""
    try:
        model = reply["model"]
        text = reply["choices"][0]["message"]["content"]
        usage = reply["usage"]
        prompt, completion, total = (int(usage[k]) for k in ("prompt_tokens", "completion_tokens", "total_tokens"))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise DriverError("ProbeFailed", "the answer is no chat completion", internal=repr(error)) from error
    if alias is not None and model != alias:
        raise DriverError("ProbeFailed", f"the engine serves {str(model)[:63]!r} instead of {alias!r}")
    if not isinstance(text, str) or not text.strip() or "\N{REPLACEMENT CHARACTER}" in text:
        raise DriverError("ProbeFailed", "the answer holds no text")
    if not 1 <= prompt <= COUNT_MAX or not 1 <= completion <= PROBE_TOKENS or total != prompt + completion:
        raise DriverError("ProbeFailed", f"the counts do not add up: {prompt} + {completion} tokens, {total} in total")
    return ProbeResult(model, text, prompt, completion, seconds)


def plausible(said: EngineMetrics) -> EngineMetrics:
    """The same. Raises ValueError for more than is ever counted: it would have no place in what is kept of it, and what
    cannot be kept would hold its replica for ever."""
    counts = (said.prompt_tokens_total, said.prompt_tokens_cached_total, said.tokens_predicted_total)
    if any(abs(count) > COUNT_MAX for count in (*counts, said.running, said.waiting)):
        raise ValueError("counts that are none")
    if said.kv_used is not None and not 0.0 <= said.kv_used <= 1.0:
        raise ValueError("a part of a cache that is none")
    return said


def judge_vector(reply: Any, *, alias: str | None, seconds: float) -> ProbeResult:
    """Read the reply to `EMBED_BODY`. Raises DriverError ``ProbeFailed`` with what is wrong about it."""
    try:
        model = reply["model"]
        vector = [float(one) for one in reply["data"][0]["embedding"]]
        prompt, total = (int(reply["usage"][name]) for name in ("prompt_tokens", "total_tokens"))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise DriverError("ProbeFailed", "the answer is no embedding", internal=repr(error)) from error
    if alias is not None and model != alias:
        raise DriverError("ProbeFailed", f"the engine serves {str(model)[:63]!r} instead of {alias!r}")
    if not all(map(math.isfinite, vector)) or not any(vector):
        raise DriverError("ProbeFailed", "the embedding holds no numbers that say anything")
    if prompt < 1 or total != prompt:
        raise DriverError("ProbeFailed", f"the counts do not add up: {prompt} tokens, {total} in total")
    return ProbeResult(model, "", prompt, 0, seconds)


def series(raw: bytes) -> dict[str, float]:
    """The sums of Prometheus series over their labels, by name; what cannot be read is passed over."""
    sums: dict[str, float] = {}
    for line in raw.decode("utf-8", "replace").splitlines():
        name, brace, rest = line.partition("{")
        words = rest.rpartition("}")[2].split() if brace else line.split()[1:]
        name = name if brace else line.partition(" ")[0]
        try:
            value = float(words[0])
        except (ValueError, IndexError):
            continue
        if not line.startswith("#") and math.isfinite(value):
            sums[name] = sums.get(name, 0.0) + value
    return sums


def engine_ended(end: Ended | None) -> DriverError:
    """The refusal of an engine that is not there."""
    if end is None:
        return DriverError("EngineExited", "no engine runs for this claim")
    if end.reason is End.OUT_OF_MEMORY:
        return DriverError("OutOfMemory", f"the engine {end.message}")
    return DriverError("EngineExited", f"the engine ended: {end.message}")
