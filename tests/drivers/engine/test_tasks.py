"""What an engine is started with for what it is for, as it is told behind its walls."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from bessemer.drivers.engine.protocol import EngineSpec
from bessemer.drivers.engine.recipe import Recipe
from bessemer.drivers.llamacpp.real import LlamaCpp
from bessemer.drivers.vllm.real import Vllm

SPEC = EngineSpec("a", Path("/m.gguf"), "chat", 2, 8192, 1, 1 << 30, 1000, "sk-1", task="embed")


def told(recipe: Recipe, spec: EngineSpec, folder: Path) -> dict[str, Any]:
    said: dict[str, Any] = orjson.loads(recipe.confined(spec, door=folder, adapters=folder).stdin or b"")
    return said


def test_vllm_is_told_to_embed(tmp_path: Path) -> None:
    package = tmp_path / "lib/python3.11/site-packages/vllm"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").symlink_to(sys.executable)
    argv = told(Vllm(tmp_path), SPEC, tmp_path)["argv"]
    assert {"--runner=pooling", "--convert=embed", "--max-model-len=4096"} <= set(argv)
    argv = told(Vllm(tmp_path), replace(SPEC, task="generate"), tmp_path)["argv"]
    assert not [one for one in argv if one.startswith(("--runner", "--convert"))]


@pytest.mark.parametrize(
    ("memory", "context", "tokens"),
    [
        (1 << 30, 8192, 512),
        (4 << 30, 8192, 2048),
        (64 << 30, 8192, 4096),
        (1 << 40, 1 << 20, 16_384),
        (1 << 40, 64, 512),
    ],
)
def test_llamacpp_computes_as_long_a_text_as_fits(tmp_path: Path, memory: int, context: int, tokens: int) -> None:
    spec = replace(SPEC, memory_bytes=memory, context_tokens=context)
    said = told(LlamaCpp(), spec, tmp_path)
    assert (said["embeds"], said["arguments"]) == (
        True,
        {"batch-size": tokens, "ubatch-size": tokens, "kv-unified": True},
    )
    said = told(LlamaCpp(), replace(spec, arguments={"ubatch-size": 32, "pooling": "cls"}), tmp_path)
    assert said["arguments"] == {"batch-size": tokens, "ubatch-size": 32, "pooling": "cls", "kv-unified": True}
    said = told(LlamaCpp(), replace(spec, task="generate"), tmp_path)
    assert (said["embeds"], said["arguments"]) == (False, {})
    both = {"pooling": "mean", "kv-unified": False}
    said = told(LlamaCpp(), replace(spec, arguments=both), tmp_path)
    assert said["arguments"]["kv-unified"] is True, "else texts of other lengths would have other vectors"
    said = told(LlamaCpp(), replace(spec, task="generate", arguments={"pooling": "mean"}), tmp_path)
    assert said["arguments"] == {"pooling": "mean", "kv-unified": True}
