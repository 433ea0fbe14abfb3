"""vLLM on this machine: its server from an environment of its own, which is bound read-only with the interpreter that
it was made by, the model's folder and a folder of adapters. It has no network but the loopback of its own namespace.

On processors it computes with as many threads as it is given and compiles nothing, since there is no compiler behind
the walls; with devices of its Claim it sees those, and takes one part of the model to each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
)
from bessemer.drivers.jobs.nodes import nodes_of, uuids_of
from bessemer.drivers.process.protocol import Confined
from bessemer.drivers.vllm import runner
from bessemer.drivers.vllm.protocol import OPTIONS, VLLM

_RUNNER = "/opt/vllm.py"
_TOPOLOGY = (Path("/bin/sh"), Path("/usr/bin/lscpu"), Path("/sys/devices/system"))
"""On processors it asks these which there are, and does not start without an answer."""

_CACHE_PARTS = 4
"""Of an engine's memory, one is its cache of keys and values, on processors."""

_LORA_RANK = 64
_PIDS_MAX = 4096
_TMP_BYTES = 1 << 30


class Vllm:
    """Implements `engine.recipe.LoadingRecipe`. ``home`` is the virtual environment that holds vLLM."""

    sort: Sort = VLLM
    runner = _RUNNER
    listing = "/v1/models"

    def __init__(self, home: Path) -> None:
        self._home = home.absolute()

    def installed(self) -> bool:
        return self._packages() is not None

    def confined(self, spec: EngineSpec, *, door: Path, adapters: Path | None) -> Confined:
        packages = self._packages()
        if packages is None or adapters is None:
            raise DriverError("EngineMissing", "vLLM is not installed on this host", internal=str(self._home))
        python, prefix = interpreter(self._home / "bin" / "python")
        # It starts programs of its own, which look there.
        libraries = f"{LIBRARIES}/{packages.relative_to(self._home)}"
        settings = {"secret": spec.secret, "argv": [*_argv(spec)]}
        return Confined(
            uid=spec.uid,
            argv=(python, "-I", "-S", "-B", _RUNNER, libraries),
            cores_milli=spec.cores_milli,
            own_cpus=spec.own_cpus,
            memory_bytes=spec.memory_bytes,
            env={**_environment(spec), "PYTHONPATH": libraries},
            binds_ro=(
                prefix,
                (self._home, LIBRARIES),
                (Path(runner.__file__), _RUNNER),
                *(model_binds(spec) or [(spec.model_path, MODEL)]),
                (adapters, ADAPTERS),
                *((path.resolve(), str(path)) for path in _TOPOLOGY if path.exists()),
            ),
            binds_rw=((door, DOOR),),
            pids_max=_PIDS_MAX,
            tmp_bytes=min(_TMP_BYTES, spec.memory_bytes // 4),
            devices=nodes_of(spec.devices),
            stdin=orjson.dumps(settings),
        )

    def counters(self, numbers: Mapping[str, float]) -> EngineMetrics:
        prompt = int(numbers["vllm:prompt_tokens_total"])
        cached = int(numbers["vllm:prompt_tokens_cached_total"])
        return EngineMetrics(
            prompt_tokens_total=prompt - cached,
            prompt_tokens_cached_total=cached,
            tokens_predicted_total=int(numbers["vllm:generation_tokens_total"]),
            running=int(numbers["vllm:num_requests_running"]),
            waiting=int(numbers["vllm:num_requests_waiting"]),
            kv_used=numbers.get("vllm:kv_cache_usage_perc"),
        )

    def names(self, listed: Any) -> Sequence[str]:
        return [str(one["id"]).rpartition(":")[2] for one in listed["data"] if one.get("parent")]

    def loading(self, listed: Any, name: str) -> tuple[str, dict[str, Any]]:
        body = {"lora_name": f"{_alias(listed)}:{name}", "lora_path": f"{ADAPTERS}/{name}"}
        return "/v1/load_lora_adapter", body

    def unloading(self, listed: Any, name: str) -> tuple[str, dict[str, Any]]:
        return "/v1/unload_lora_adapter", {"lora_name": f"{_alias(listed)}:{name}"}

    def _packages(self) -> Path | None:
        """Where its environment has its packages; None where vLLM is not among them."""
        found = sorted(self._home.glob("lib/python3.*/site-packages/vllm/__init__.py"))
        return found[-1].parent.parent if found and (self._home / "bin" / "python").exists() else None


def _alias(listed: Any) -> str:
    """The model's own name in its list."""
    return next((str(one["id"]) for one in listed["data"] if not one.get("parent")), "")


def _argv(spec: EngineSpec) -> Iterator[str]:
    """Its command line: what the platform says, then what its endpoint does."""
    fixed: dict[str, Argument] = {
        "model": MODEL,
        "served-model-name": spec.alias,
        "uds": DOOR_SOCKET,
        "max-model-len": spec.context_tokens // spec.slots,
        "max-num-seqs": spec.slots,
        "tensor-parallel-size": max(1, len(spec.devices)),
        "enable-prompt-tokens-details": True,
        "disable-uvicorn-access-log": True,
        "disable-fastapi-docs": True,
    }
    chosen: dict[str, Argument] = {} if spec.devices else {"kv-cache-memory-bytes": spec.memory_bytes // _CACHE_PARTS}
    chosen |= {name: value for name, value in spec.arguments.items() if name in OPTIONS}
    if spec.adapters or chosen.get("enable-lora"):
        chosen = {"enable-lora": True, "max-lora-rank": _LORA_RANK} | chosen | {"enable-lora": True}
    if spec.task == "embed":
        fixed |= {"runner": "pooling", "convert": "embed"}
    if not spec.devices:
        chosen["enforce-eager"] = True
    for name, value in {**chosen, **fixed}.items():
        if isinstance(value, bool):
            yield f"--{name}" if value else f"--no-{name}"
        else:
            yield f"--{name}={value}"
    if spec.adapters:
        yield "--lora-modules"
        yield from (f"{spec.alias}:{one.name}={ADAPTERS}/{one.name}" for one in spec.adapters)


def _environment(spec: EngineSpec) -> dict[str, str]:
    same = {
        # There is no account behind its user, and nothing to write to but /tmp.
        **dict.fromkeys(("HOME", "XDG_CACHE_HOME", "TMPDIR"), "/tmp"),
        **dict.fromkeys(("USER", "LOGNAME"), "engine"),
        "LD_LIBRARY_PATH": f"{PYTHON}/lib:{LIBRARIES}/lib",
        **dict.fromkeys(("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "VLLM_NO_USAGE_STATS", "DO_NOT_TRACK"), "1"),
        "PATH": "/usr/bin:/bin",
        "VLLM_PLUGINS": "",
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_LOOPBACK_IP": "127.0.0.1",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    if spec.devices:
        return {**same, "CUDA_VISIBLE_DEVICES": ",".join(uuids_of(spec.devices))}
    # Threads that spin for each other on a shared machine made minutes of seconds.
    threads = str(max(1, spec.threads))
    return {
        **same,
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": threads,
        "KMP_BLOCKTIME": "0",
        "OMP_WAIT_POLICY": "passive",
    }
