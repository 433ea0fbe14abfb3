"""Files of models, made by hand: small ones that are right, to be made wrong."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

Tensor = tuple[str, Sequence[int], int, int]
"""Name, shape (as the file has it), number of its type, bytes."""

F32, F16, Q4_1 = 0, 1, 3

KEYS: Mapping[str, tuple[int, Any]] = {
    "general.architecture": (8, "llama"),
    "llama.block_count": (4, 2),
    "llama.context_length": (4, 4096),
    "llama.embedding_length": (4, 64),
    "llama.attention.head_count": (4, 4),
    "llama.attention.head_count_kv": (4, 2),
    "tokenizer.chat_template": (8, "{{ messages }}"),
    "tokenizer.ggml.tokens": (9, (8, ["a", "bc", "", "d" * 300])),
    "tokenizer.ggml.scores": (9, (6, [0.5, 1.0, 2.0, 3.0])),
}
TENSORS: Sequence[Tensor] = (
    ("token_embd.weight", (64, 4), Q4_1, 64 * 4 // 32 * 20),
    ("blk.0.attn_q.weight", (64, 3), F32, 64 * 3 * 4),
    ("output_norm.weight", (5,), F32, 20),
)
PARAMETERS = 64 * 4 + 64 * 3 + 5
WEIGHT_BYTES = 160 + 768 + 20

_FORMS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(kind: int, said: Any) -> bytes:
    if kind == 8:
        return text(said)
    if kind == 9:
        inner, many = said
        return struct.pack("<IQ", inner, len(many)) + b"".join(value(inner, one) for one in many)
    return struct.pack("<" + _FORMS[kind], said)


def gguf(
    keys: Mapping[str, tuple[int, Any]] = KEYS, tensors: Sequence[Tensor] = TENSORS, *, alignment: int = 32
) -> bytes:
    """A whole file."""
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(keys))
    head += b"".join(text(key) + struct.pack("<I", kind) + value(kind, said) for key, (kind, said) in keys.items())
    at = 0
    data = b""
    for name, shape, kind, size in tensors:
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, at)
        padded = size + -size % alignment
        data += bytes(padded)
        at += padded
    return head + bytes(-len(head) % alignment) + data


def safetensors(header: Any, data: int | bytes = 0) -> bytes:
    """A whole file; ``header`` is an object, or its bytes as they are to stand there."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + (bytes(data) if isinstance(data, int) else data)


def tensor(kind: str, shape: Sequence[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": kind, "shape": list(shape), "data_offsets": [begin, end]}


TWO = {
    "__metadata__": {"format": "pt"},
    "model.norm.weight": tensor("F32", (4,), 512, 528),
    "model.embed_tokens.weight": tensor("BF16", (16, 16), 0, 512),
}
TWO_BYTES = 528

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 30,
    "hidden_size": 576,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "vocab_size": 49152,
}
