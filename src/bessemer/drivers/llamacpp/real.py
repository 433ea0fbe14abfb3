"""llama.cpp on this machine: ``xllamacpp``'s server, with the interpreter, the library, the model, its adapters and the
runner bound read-only. It has no network: the unix socket is its only way to the world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson

from bessemer.core.errors import DriverError
from bessemer.drivers.engine.protocol import Argument, EngineMetrics, EngineSpec, Sort
from bessemer.drivers.engine.recipe import (
    ADAPTERS,
    DOOR,
    DOOR_SOCKET,
    LIBRARIES,
    MODEL,
    PYTHON,
    interpreter,
    model_binds,
    sole,
)
from bessemer.drivers.llamacpp import runner
from bessemer.drivers.llamacpp.protocol import LLAMACPP, batch_of
from bessemer.drivers.process.protocol import Confined

_RUNNER = "/opt/llamacpp.py"
_CACHE_PARTS = 8
"""Of an engine's memory, one may hold prompts of slots that are idle."""


class LlamaCpp:
    """Implements `engine.recipe.Recipe`."""

    sort: Sort = LLAMACPP
    runner = _RUNNER
    listing = "/lora-adapters"

    def installed(self) -> bool:
        return find_spec("xllamacpp") is not None

    def confined(self, spec: EngineSpec, *, door: Path, adapters: Path | None) -> Confined:
        python, prefix = interpreter()
        inside = [(sole(one.files, ".gguf", path=one.path)[1], f"{ADAPTERS}/{one.name}.gguf") for one in spec.adapters]
        # The parts of a model that is split are found beside the first.
        name, _ = sole(spec.files, ".gguf", path=spec.model_path)
        model = f"{MODEL}/{name}" if spec.files else f"{MODEL}.gguf"
        settings = {
            "model": model,
            "alias": spec.alias,
            "door": DOOR_SOCKET,
            "secret": spec.secret,
            "slots": spec.slots,
            "context_tokens": spec.context_tokens,
            "threads": max(1, spec.threads),
            "cache_ram_mib": (spec.memory_bytes >> 20) // _CACHE_PARTS,
            "adapters": [path for _, path in inside],
            "arguments": _arguments(spec),
            "embeds": spec.task == "embed",
        }
        return Confined(
            uid=spec.uid,
            argv=(python, "-I", "-S", "-B", _RUNNER, LIBRARIES),
            cores_milli=spec.cores_milli,
            own_cpus=spec.own_cpus,
            memory_bytes=spec.memory_bytes,
            # Spinning threads on a shared machine cost up to sixty times the throughput.
            env={"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0", "LD_LIBRARY_PATH": f"{PYTHON}/lib"},
            binds_ro=(
                prefix,
                (_library(), f"{LIBRARIES}/xllamacpp"),
                (Path(runner.__file__), _RUNNER),
                *(model_binds(spec) or [(spec.model_path, model)]),
                *inside,
            ),
            binds_rw=((door, DOOR),),
            stdin=orjson.dumps(settings),
        )

    def counters(self, numbers: Mapping[str, float]) -> EngineMetrics:
        return EngineMetrics(
            prompt_tokens_total=int(numbers["llamacpp:prompt_tokens_total"]),
            prompt_tokens_cached_total=int(numbers["llamacpp:prompt_tokens_cached_total"]),
            tokens_predicted_total=int(numbers["llamacpp:tokens_predicted_total"]),
            running=int(numbers["llamacpp:requests_processing"]),
            waiting=int(numbers["llamacpp:requests_deferred"]),
        )

    def names(self, listed: Any) -> Sequence[str]:
        ordered = sorted(listed, key=lambda one: int(one["id"]))
        return [Path(str(one["path"])).name.removesuffix(".gguf") for one in ordered]


def _arguments(spec: EngineSpec) -> Mapping[str, Argument]:
    """What was said, and of one that embeds what else has to be: a text is computed at once, or not at all, as much as
    a slot holds and its memory bears; and slots have one cache. Where each has its own, texts of different lengths that
    are computed together are cut into pieces of one length, and a text's vector is that of its last piece alone."""
    if spec.task != "embed":
        return {"kv-unified": True, **spec.arguments} if "pooling" in spec.arguments else dict(spec.arguments)
    tokens = batch_of(spec.memory_bytes, context_tokens=spec.context_tokens // spec.slots)
    return {**dict.fromkeys(("batch-size", "ubatch-size"), tokens), **spec.arguments, "kv-unified": True}


def _library() -> Path:
    """The folder of ``xllamacpp``, found without importing it: what it loads is for the confined process alone."""
    spec = find_spec("xllamacpp")
    if spec is None or spec.origin is None:
        raise DriverError("EngineMissing", "no engine is installed on this host (package xllamacpp)")
    return Path(spec.origin).parent
