"""llama.cpp as a sort of engine: what it serves, and which arguments may be given to it.

An argument has the name of the option of ``llama-server`` without its dashes; `runner` sets each of them, so nothing is
in the table that would be taken and not obeyed.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from bessemer.drivers.engine.protocol import CODE, FILES, OURS, Option, Sort

NAME = "llamacpp"

BATCH_TOKENS = 512
"""What it computes at once by itself."""

_TOKEN_BYTES, _BATCH_PARTS = 512 << 10, 4
"""Of each token that is computed at once: a large vocabulary's numbers. Of an engine's memory, one may hold them."""

_CACHE = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")

_OURS = (
    *("alias", "api-key", "cpu-mask", "ctx-size", "host", "metrics", "numa", "parallel", "port", "prio", "props"),
    *("reuse-port", "slots", "threads", "threads-batch", "threads-http"),
)
_FILES = (
    *("api-key-file", "chat-template-file", "control-vector", "grammar-file", "hf-file", "hf-repo", "hf-token"),
    *("json-schema-file", "log-file", "lora", "lora-scaled", "media-path", "mmproj", "mmproj-url", "model"),
    *("model-draft", "model-url", "models-dir", "models-preset", "path", "prompt-cache", "rpc", "slot-save-path"),
    *("ssl-cert-file", "ssl-key-file"),
)

OPTIONS: Mapping[str, Option] = MappingProxyType(
    {
        "batch-size": Option("int", "Tokens of a prompt that are taken at once.", 32, 16_384),
        "ubatch-size": Option("int", "Tokens that are computed at once.", 32, 16_384),
        "cache-prompt": Option("bool", "Whether a slot keeps a prompt, for the next one that begins alike."),
        "cache-ram": Option("int", "MiB for prompts of idle slots; without it an eighth of the memory.", 0, 1 << 20),
        "cache-reuse": Option("int", "Least length of a piece that is moved within the cache; 0: none is.", 0, 1 << 20),
        "cache-type-k": Option("word", "How keys are kept in the cache.", choices=_CACHE),
        "cache-type-v": Option("word", "How values are kept in the cache.", choices=_CACHE),
        "context-shift": Option("bool", "Whether a context that is full loses its beginning and goes on."),
        "flash-attn": Option("word", "Whether attention is fused.", choices=("auto", "on", "off")),
        "keep": Option("int", "Tokens of a prompt that a shifted context keeps; -1: all.", -1, 1 << 22),
        "kv-unified": Option("bool", "Whether slots share one cache, so that one may have more than its part."),
        "pooling": Option(
            "word",
            "How a text's tokens become one vector; with it embeddings are served, and answers all the same.",
            choices=("mean", "cls", "last"),
        ),
        "predict": Option("int", "The most tokens of an answer that names no length; -1: none.", -1, 1 << 22),
        "reasoning-format": Option(
            "word", "Where what it thinks goes.", choices=("none", "auto", "deepseek", "deepseek-legacy")
        ),
        "rope-freq-base": Option("float", "Base frequency of rotary positions; 0: the model's.", 0, 1e12),
        "rope-freq-scale": Option("float", "What their frequency is scaled by; 0: the model's.", 0, 1e3),
        "rope-scaling": Option("word", "How positions are stretched.", choices=("none", "linear", "yarn")),
        "slot-prompt-similarity": Option("float", "How alike a slot's prompt must be to be chosen for it.", 0, 1),
        "swa-full": Option("bool", "Whether models with a sliding window keep everything."),
        "warmup": Option("bool", "Whether it computes something before it answers."),
        "yarn-orig-ctx": Option("int", "The context that the model was made for; 0: what it says.", 0, 1 << 24),
    }
)

REFUSED: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(_OURS, OURS),
        **dict.fromkeys(_FILES, FILES),
        **dict.fromkeys(("chat-template", "mcp-config", "tools", "ui-mcp-proxy"), CODE),
    }
)

LLAMACPP = Sort(NAME, formats=("gguf",), options=OPTIONS, refused=REFUSED, picks="number")


def choosing(number: int | None) -> Mapping[str, Any]:
    """The fields that a request must carry, whatever it brought of these names, at an engine that has adapters: those
    by which it gets the adapter of that number, or none.

    The server forgets what a slot has cached when an adapter is put on, and not when it is taken off: what was computed
    with one would be the beginning of an answer without. So who wants none has nothing from the cache.
    """
    chosen = [] if number is None else [{"id": number, "scale": 1.0}]
    return {"lora": chosen, "cache_prompt": number is not None}


def batch_of(memory_bytes: int, *, context_tokens: int) -> int:
    """Tokens that it computes at once where it embeds: the longest text that it takes. ``context_tokens`` are a
    slot's."""
    room = memory_bytes // _BATCH_PARTS // _TOKEN_BYTES
    tokens = min(max(BATCH_TOKENS, room), max(BATCH_TOKENS, context_tokens))
    return min(tokens, int(OPTIONS["ubatch-size"].most))
