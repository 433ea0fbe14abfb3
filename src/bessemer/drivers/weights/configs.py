"""Facts out of what a model says: of the keys of GGUF, and of the texts beside safetensors. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bessemer.core.inference import AdapterFacts, ModelFacts
from bessemer.drivers.weights.gguf import Header
from bessemer.drivers.weights.protocol import refused
from bessemer.drivers.weights.tensors import Tensors, bounded, word


def of_gguf(header: Header, tensors: Tensors) -> ModelFacts:
    """Those of a GGUF model, by the keys of its specification. Raises DriverError for numbers that no model has."""
    values = header.values
    name = word(values.get("general.architecture"))

    def said(key: str, bound: str) -> int:
        value = values.get(f"{name}.{key}")
        numbers = value if isinstance(value, list) else [value]
        return max((bounded(bound, one) for one in numbers), default=0)

    hidden, heads = said("embedding_length", "hidden"), said("attention.head_count", "heads")
    layers, window = said("block_count", "layers"), said("attention.sliding_window", "context_tokens")
    pattern = values.get(f"{name}.attention.sliding_window_pattern")
    sliding = min(layers, sum(one is True for one in pattern)) if isinstance(pattern, list) else 0
    tokens = header.lengths.get("tokenizer.ggml.tokens", 0)
    return ModelFacts(
        format="gguf",
        architecture=name,
        parameters=tensors.parameters,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=said("attention.head_count_kv", "kv_heads") or heads,
        head_dim=said("attention.key_length", "head_dim") or (hidden // heads if heads else 0),
        experts=said("expert_count", "experts"),
        context_tokens=said("context_length", "context_tokens"),
        vocabulary=said("vocab_size", "vocabulary") or bounded("vocabulary", tokens),
        quantisation=tensors.kind,
        weight_bytes=tensors.size_bytes,
        chat_template=header.has("tokenizer.chat_template"),
        adapter=_gguf_adapter(header, tensors),
        # Files that say how wide a key is without it are kept by llama.cpp as one vector.
        latent=said("attention.key_length_mla", "head_dim") > 0,
        window_tokens=window if sliding else 0,
        window_layers=sliding if window else 0,
    )


def _gguf_adapter(header: Header, tensors: Tensors) -> AdapterFacts | None:
    values = header.values
    if values.get("general.type") != "adapter":
        return None
    if values.get("adapter.type") != "lora":
        raise refused("it is an adapter of another kind than LoRA")
    base = word(values.get("general.base_model.0.name")) or word(values.get("general.basename"))
    return AdapterFacts(rank=bounded("rank", tensors.rank), base=base)


def of_texts(
    tensors: Tensors, *, config: Mapping[str, Any], adapter: Mapping[str, Any] | None, chat_template: bool
) -> ModelFacts:
    """Those of a safetensors model: ``config`` is its ``config.json``, ``adapter`` its ``adapter_config.json``."""
    inner = config.get("text_config")
    text = inner if isinstance(inner, dict) and "num_hidden_layers" not in config else config

    def said(bound: str, *keys: str) -> int:
        return next((n for n in (bounded(bound, text.get(key)) for key in keys) if n), 0)

    hidden, heads = said("hidden", "hidden_size", "n_embd", "d_model"), said("heads", "num_attention_heads", "n_head")
    head_dim = said("head_dim", "head_dim") or (hidden // heads if heads else 0)
    kv_heads = said("kv_heads", "num_key_value_heads", "num_kv_heads") or heads
    latent = said("head_dim", "kv_lora_rank")
    if latent:  # multi-head latent attention keeps one vector for all heads, and a part that knows the position
        kv_heads, head_dim = 1, latent + said("head_dim", "qk_rope_head_dim")
    layers = said("layers", "num_hidden_layers", "n_layer")
    window, sliding = _window(text, said("context_tokens", "sliding_window"), layers=layers)
    return ModelFacts(
        format="safetensors",
        architecture=_architecture(config),
        parameters=tensors.parameters,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        experts=said("experts", "num_local_experts", "n_routed_experts", "num_experts"),
        context_tokens=said("context_tokens", "max_position_embeddings", "n_positions", "max_sequence_length"),
        vocabulary=said("vocabulary", "vocab_size"),
        quantisation=_method(config) or tensors.kind,
        weight_bytes=tensors.size_bytes,
        chat_template=chat_template,
        adapter=_peft_adapter(adapter, tensors),
        latent=latent > 0,
        window_tokens=window,
        window_layers=sliding,
    )


def _window(text: Mapping[str, Any], tokens: int, *, layers: int) -> tuple[int, int]:
    """How far back the blocks look that do not look at everything, and how many they are: as a list of the blocks says,
    or all of them where there is none."""
    if not tokens or text.get("use_sliding_window") is False:
        return 0, 0
    kinds = text.get("layer_types")
    if isinstance(kinds, list):
        sliding = min(layers, sum(kind == "sliding_attention" for kind in kinds))
    else:
        every = bounded("layers", text.get("sliding_window_pattern"))
        sliding = layers - layers // every if every else layers
    return (tokens, sliding) if sliding else (0, 0)


def _architecture(config: Mapping[str, Any]) -> str:
    named: Any = config.get("architectures")
    first = named[0] if isinstance(named, Sequence) and not isinstance(named, str) and named else ""
    return word(first) or word(config.get("model_type"))


def _method(config: Mapping[str, Any]) -> str:
    """What made its packed numbers, as ``gptq-4``; "" where they are stored as they are."""
    said = config.get("quantization_config")
    if not isinstance(said, dict):
        return ""
    method, bits = word(said.get("quant_method")), said.get("bits")
    return f"{method}-{bits}" if method and type(bits) is int and 0 < bits <= 64 else method


def _peft_adapter(said: Mapping[str, Any] | None, tensors: Tensors) -> AdapterFacts | None:
    if said is None:
        if tensors.rank:
            raise refused("it is an adapter without its adapter_config.json")
        return None
    if said.get("peft_type") != "LORA":
        raise refused("it is an adapter of another kind than LoRA")
    rank = bounded("rank", tensors.rank) or bounded("rank", said.get("r"))
    return AdapterFacts(rank=rank, base=word(said.get("base_model_name_or_path")))
