"""A LoRA adapter of rank 1 for SmolLM2-135M, made of chance: as a GGUF file and as a folder of PEFT's, of one matrix.

It changes what the last layer but a few adds, by enough that an answer is another one. Formats: GGUF version 3 (its
specification in ggml's docs/gguf.md), safetensors (8 bytes of length, a JSON header, the data), PEFT's adapter_config.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

HIDDEN, INNER, LAYER, ALPHA = 576, 1536, 20, 1.0
_ALIGNMENT = 32
_STRING, _FLOAT = 8, 6


def matrices(seed: int) -> dict[str, npt.NDArray[np.float32]]:
    """A (1 by inner) and B (hidden by 1) of ``down_proj`` in one layer."""
    chance = np.random.default_rng(seed)
    down = chance.standard_normal((1, INNER)).astype(np.float32)
    return {"a": down, "b": (chance.standard_normal((HIDDEN, 1)) * 2).astype(np.float32)}


def gguf(path: Path, *, seed: int = 1) -> Path:
    """Write it as llama.cpp reads it."""
    tensors = {f"blk.{LAYER}.ffn_down.weight.lora_{half}": matrix for half, matrix in matrices(seed).items()}
    values = [
        *(_key(name, _STRING) + _text(value) for name, value in
          (("general.architecture", "llama"), ("general.type", "adapter"), ("adapter.type", "lora"))),
        _key("adapter.lora.alpha", _FLOAT) + struct.pack("<f", ALPHA),
    ]  # fmt: skip
    head, data = [struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(values)), *values], b""
    for name, matrix in tensors.items():
        data += b"\0" * (-len(data) % _ALIGNMENT)
        # Sizes come fastest first; type 0 is 32-bit floats.
        head.append(_text(name) + struct.pack("<IQQIQ", 2, *reversed(matrix.shape), 0, len(data)))
        data += matrix.tobytes()
    raw = b"".join(head)
    path.write_bytes(raw + b"\0" * (-len(raw) % _ALIGNMENT) + data)
    return path


def peft(folder: Path, *, seed: int = 1) -> Path:
    """Write it as PEFT, and vLLM, read it."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "smollm2",
        "r": 1,
        "lora_alpha": ALPHA,
        "target_modules": ["down_proj"],
        "layers_to_transform": [LAYER],
        "bias": "none",
        "lora_dropout": 0.0,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    header, data = {}, b""
    for half, matrix in matrices(seed).items():
        name = f"base_model.model.model.layers.{LAYER}.mlp.down_proj.lora_{half.upper()}.weight"
        raw = matrix.tobytes()
        header[name] = {"dtype": "F32", "shape": matrix.shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    words = json.dumps(header).encode()
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(words)) + words + data)
    return folder


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def _key(name: str, kind: int) -> bytes:
    return _text(name) + struct.pack("<I", kind)
