"""What runs behind the walls: llama.cpp's server from ``xllamacpp``, on a unix socket.

    python -I -S -B runner.py LIBRARIES < settings.json

It is bound into the confined process as a single file and imports nothing of ours. The settings come on standard input,
because the replica's secret is among them: arguments and environment can be read, standard input only once. What of
them stands in ``arguments`` was checked against `protocol.OPTIONS`, and each of those is a line of `ARGUMENTS`.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from typing import Any


def _same(_library: Any, value: Any) -> Any:
    """A value that the library takes as it is."""
    return value


def _member(kind: str, prefix: str) -> Callable[[Any, Any], Any]:
    """A word that is the end of a name in one of the library's enumerations, in whatever case."""

    def member(library: Any, value: str) -> Any:
        enumeration, name = getattr(library, kind), prefix + value.replace("-", "_").lower()
        return getattr(enumeration, next(one for one in dir(enumeration) if one.lower() == name))

    return member


def _flash(library: Any, value: str) -> Any:
    word = {"auto": "auto", "on": "enabled", "off": "disabled"}[value]
    return _member("llama_flash_attn_type", "llama_flash_attn_type_")(library, word)


_TYPE = _member("ggml_type", "ggml_type_")

ARGUMENTS: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "batch-size": ("n_batch", _same),
    "ubatch-size": ("n_ubatch", _same),
    "cache-prompt": ("cache_prompt", _same),
    "cache-ram": ("cache_ram_mib", _same),
    "cache-reuse": ("n_cache_reuse", _same),
    "cache-type-k": ("cache_type_k", _TYPE),
    "cache-type-v": ("cache_type_v", _TYPE),
    "context-shift": ("ctx_shift", _same),
    "flash-attn": ("flash_attn_type", _flash),
    "keep": ("n_keep", _same),
    "kv-unified": ("kv_unified", _same),
    "pooling": ("pooling_type", _member("llama_pooling_type", "llama_pooling_type_")),
    "predict": ("n_predict", _same),
    "reasoning-format": ("reasoning_format", _member("common_reasoning_format", "common_reasoning_format_")),
    "rope-freq-base": ("rope_freq_base", _same),
    "rope-freq-scale": ("rope_freq_scale", _same),
    "rope-scaling": ("rope_scaling_type", _member("llama_rope_scaling_type", "llama_rope_scaling_type_")),
    "slot-prompt-similarity": ("slot_prompt_similarity", _same),
    "swa-full": ("swa_full", _same),
    "warmup": ("warmup", _same),
    "yarn-orig-ctx": ("yarn_orig_ctx", _same),
}
"""Each argument's field of the library's parameters, and what it is made into for it."""


def parameters(library: Any, settings: dict[str, Any]) -> Any:
    """The library's parameters for these settings."""
    params = library.CommonParams()
    params.model.path = settings["model"]
    params.model_alias = {settings["alias"]}
    # A hostname that ends in .sock makes the server listen on a unix socket.
    params.hostnames = [settings["door"]]
    params.port = 0
    params.api_keys = [settings["secret"]]
    params.n_parallel = settings["slots"]
    params.n_ctx = settings["context_tokens"]
    params.cpuparams.n_threads = settings["threads"]
    params.cpuparams_batch.n_threads = settings["threads"]
    params.n_threads_http = settings["slots"] + 4
    params.cont_batching = True
    params.endpoint_metrics = True
    params.endpoint_slots = False
    params.endpoint_props = False
    # By itself it would keep 8 GiB of prompts, which is more than most engines have.
    params.cache_ram_mib = settings["cache_ram_mib"]
    # At scale 0 an adapter does nothing until a request asks for it.
    params.lora_adapters = [library.CommonAdapterLoraInfo(path, 0.0) for path in settings["adapters"]]
    # It serves embeddings once it knows how tokens become one of them, and answers all the same. A model that is made
    # to embed says itself how.
    params.embedding = settings["embeds"] or "pooling" in settings["arguments"]
    for name, value in settings["arguments"].items():
        field, made = ARGUMENTS[name]
        setattr(params, field, made(library, value))
    if settings["adapters"]:
        # A slot whose prompt was computed with an adapter would be taken for one without: see `protocol.choosing`.
        params.cache_prompt, params.cache_ram_mib = False, 0
    return params


def main() -> int:
    """Serve until a signal ends it. Exit status 2: no settings came."""
    sys.path.insert(0, sys.argv[1])
    words = sys.stdin.buffer.read()
    if not words:
        return 2
    import xllamacpp

    server = xllamacpp.Server(parameters(xllamacpp, json.loads(words)))
    sys.stdout.write(f"listening at {server.listening_address}\n")
    sys.stdout.flush()
    signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
