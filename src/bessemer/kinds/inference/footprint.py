"""What memory a model takes, by what its files say of it: so which flavors hold it, at which context and for how many
at the same time. Pure.

An engine's memory is its weights, the cache of keys and values of all its slots, the buffers that one batch is computed
in, and what it takes by itself. The first two follow from the facts:

* A token takes ``2 × kv_heads × head_dim`` numbers of a block's cache (grouped-query attention; Ainslie et al., EMNLP
  2023), with multi-head latent attention (DeepSeek-V2, 2024) ``head_dim`` of them for keys and values together.
* A block that slides a window (Mistral 7B, 2023) keeps the window and the batch that is computed, whatever the context.
* One that embeds has the same cache of each slot, though nothing is written: engines take it when they start. An
  encoder has none (BERT; Devlin et al., NAACL 2019). A text is computed at once, with numbers for each of its tokens.

The other two are counted from what engines of the releases that are locked say of themselves (docs/vetting.md), and a
vetting says what was measured beside what was estimated here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bessemer.core.inference import ModelFacts
from bessemer.core.units import MIB, parse_bytes, show_bytes
from bessemer.drivers.engine.protocol import Argument, Task
from bessemer.drivers.llamacpp.protocol import BATCH_TOKENS, LLAMACPP, batch_of
from bessemer.drivers.vllm.protocol import VLLM
from bessemer.kinds.fleet.flavor import FlavorSpec
from bessemer.kinds.fleet.outline import Hindrance

SLOTS_MAX = 256
"""As many an engine is asked to answer at the same time."""

CACHE_BITS: Mapping[str, int] = {
    "f32": 320,
    "f16": 160,
    "bf16": 160,
    "q8_0": 85,
    "q5_1": 60,
    "q5_0": 55,
    "q4_1": 50,
    "q4_0": 45,
    "auto": 160,
    "bfloat16": 160,
    "fp8": 80,
    "fp8_e4m3": 80,
    "fp8_e5m2": 80,
}
"""Tenths of a bit that a number takes, by how it is kept: blocks of 32 numbers with what they are scaled by (ggml)."""

_BATCHED = 2048
"""Tokens that vLLM computes at once where nobody says otherwise."""

_WIDTHS = 13
"""Of the hidden width, in numbers of 4 bytes, that a token of a batch takes while it is computed."""

_VECTOR_WIDTHS = 5
"""The same where it embeds, beside the numbers of the whole vocabulary: they take the room that the others leave."""

_ENCODERS = ("bert", "gemma-embedding")
"""In the names of architectures that keep nothing of what they have read."""

_FIXED: Mapping[str, int] = {LLAMACPP.name: 64 * MIB, VLLM.name: 2400 * MIB}
"""What an engine takes with no model: its interpreter, libraries, threads. vLLM's is of its three processes."""

_ON_DEVICE = 1536 * MIB
"""What vLLM takes of a device besides weights and cache: the driver's context and recorded graphs."""

_UTILISATION = 0.9
"""The part of a device's memory that vLLM takes where nobody says otherwise."""

_IDLE_PARTS, _CACHE_PARTS = 8, 4
"""Of an engine's memory, llama.cpp may fill one with prompts of idle slots; vLLM's cache is one, on processors."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes. A slot of ``context`` tokens takes ``per_token`` of them each, but no more than ``window`` of those
    blocks that slide one: ``windowed`` of each."""

    weights: int
    per_token: int
    windowed: int
    window: int
    batch: int
    """Of what one batch is computed in, what does not depend on context or slots."""
    batch_token: int
    """The same, for each token of a slot's context."""
    slot: int
    fixed: int

    def cache(self, context: int) -> int:
        """Keys and values of one slot."""
        return self.per_token * context + self.windowed * min(context, self.window)

    def needs(self, *, slots: int, context: int) -> int:
        """All of it."""
        computed = self.batch + self.batch_token * context
        return self.weights + self.fixed + computed + slots * (self.cache(context) + self.slot)


@dataclass(frozen=True, slots=True)
class Fit:
    """How many slots of that context a flavor holds; 0 with the reason."""

    context: int
    slots: int
    why: str = ""


def told(
    arguments: Mapping[str, Argument], flavor: FlavorSpec, *, engine: str, task: Task, context: int
) -> Mapping[str, Argument]:
    """The arguments, with what llama.cpp is told besides where it embeds: how long a text may be, by its memory."""
    if engine != LLAMACPP.name or task != "embed":
        return arguments
    return {"ubatch-size": batch_of(parse_bytes(flavor.memory), context_tokens=context), **arguments}


def footprint(
    facts: ModelFacts, *, engine: str, arguments: Mapping[str, Argument], task: Task = "generate"
) -> Footprint | None:
    """None where the files do not say enough; ``arguments`` as they were `told`."""
    if not (facts.layers and facts.kv_heads and facts.head_dim and facts.weight_bytes):
        return None
    vllm = engine == VLLM.name
    encoder = any(word in facts.architecture.lower() for word in _ENCODERS)
    of_block = 0 if encoder else _of_block(facts, engine=engine, arguments=arguments)
    option, usual = ("max-num-batched-tokens", _BATCHED) if vllm else ("ubatch-size", BATCH_TOKENS)
    tokens = _number(arguments, option, otherwise=usual)
    # llama.cpp computes every token's numbers where any is asked for; an encoder has none of the vocabulary.
    every = task == "embed" and not vllm and not encoder
    widths, beside = (_VECTOR_WIDTHS, facts.vocabulary) if every else (_WIDTHS, 0)
    whole = any(arguments.get(name) is True for name in ("swa-full", "disable-sliding-window"))
    windowed = 0 if whole else facts.window_layers
    return Footprint(
        weights=facts.weight_bytes,
        per_token=_up((facts.layers - windowed) * of_block, 80),
        windowed=_up(windowed * of_block, 80),
        window=facts.window_tokens + tokens,
        batch=tokens * 4 * (widths * facts.hidden + beside),
        batch_token=0 if vllm else tokens * 2,
        slot=4 * facts.vocabulary,
        fixed=_FIXED.get(engine, 0),
    )


def fits(made: Footprint, flavor: FlavorSpec, *, engine: str, arguments: Mapping[str, Argument], context: int) -> Fit:
    """How many slots of that context the flavor holds."""
    room, where = room_of(flavor, engine=engine, arguments=arguments, weights=made.weights)
    if room is None:
        return Fit(context, 0, where)
    beside = made.batch + made.batch_token * context
    if engine != VLLM.name:
        beside += made.weights + made.fixed
    each = max(1, made.cache(context) + made.slot)  # files may say of an encoder that it knows no tokens
    if room - beside >= each:
        return Fit(context, min(SLOTS_MAX, (room - beside) // each))
    return Fit(context, 0, f"a slot takes {show_bytes(each)}, all else {show_bytes(beside)}, {where}")


def room_of(
    flavor: FlavorSpec, *, engine: str, arguments: Mapping[str, Argument], weights: int
) -> tuple[int | None, str]:
    """Bytes that an engine has for its model, by vLLM those of its cache alone, and in words of what; None with the
    reason where there are none, or nobody knows."""
    memory = parse_bytes(flavor.memory)
    if engine != VLLM.name:
        idle = idle_bytes(memory, engine=engine, arguments=arguments)
        return memory - idle, f"and {show_bytes(memory - idle)} are there of {show_bytes(memory)}"
    devices = flavor.devices
    if devices is None:
        cache = _number(arguments, "kv-cache-memory-bytes", otherwise=memory // _CACHE_PARTS)
        if weights + cache + _FIXED[engine] > memory:
            words = f"weights, cache and vLLM itself take {show_bytes(weights + cache + _FIXED[engine])}"
            return None, f"{words} of {show_bytes(memory)}"
        return cache, f"and its cache has {show_bytes(cache)}"
    if not devices.memory_bytes:
        return None, "nobody says how much memory its devices have"
    part = arguments.get("gpu-memory-utilization", _UTILISATION)
    taken = int(devices.count * devices.memory_bytes * float(part))
    room = taken - weights - devices.count * _ON_DEVICE
    if room <= 0:
        return None, f"weights of {show_bytes(weights)}, and {show_bytes(taken)} of its devices' memory are taken"
    return room, f"and {show_bytes(room)} of its devices' memory are left for its cache"


def idle_bytes(memory: int, *, engine: str, arguments: Mapping[str, Argument]) -> int:
    """What llama.cpp may fill with prompts of slots that are idle, of so much memory."""
    if engine != LLAMACPP.name:
        return 0
    return _number(arguments, "cache-ram", otherwise=memory // _IDLE_PARTS // MIB) * MIB


def contexts_of(facts: ModelFacts) -> Sequence[int]:
    """Contexts that are worth a column: powers of two up to its own, and that."""
    longest = facts.context_tokens or 8192
    found = [size for size in (2048, 8192, 32_768, 131_072) if size < longest]
    return [*found, longest]


def too_small(
    facts: ModelFacts | None,
    flavor: FlavorSpec,
    *,
    engine: str,
    arguments: Mapping[str, Argument],
    slots: int,
    context: int,
) -> Iterator[Hindrance]:
    """What keeps a replica that its flavor can surely not hold: weights and cache alone are more than all its memory,
    whatever an engine takes besides. Of what nobody knows for certain nothing is said."""
    made = footprint(facts, engine=engine, arguments=arguments) if facts is not None else None
    if made is None or flavor.devices is not None or engine != LLAMACPP.name:
        return
    cache, memory = slots * made.cache(context), parse_bytes(flavor.memory)
    if made.weights + cache <= memory:
        return
    message = (
        f"weights of {show_bytes(made.weights)} and a cache of {show_bytes(cache)} for {slots} slots of {context} "
        f"tokens are more than the {show_bytes(memory)} that the flavor gives"
    )
    most = (memory - made.weights) // made.cache(context) if made.weights < memory else 0
    remedy = "Take a larger flavor, fewer slots or less context." if most else "Take a larger flavor."
    yield Hindrance(reason="FlavorTooSmall", message=message, remedy=remedy)


def _of_block(facts: ModelFacts, *, engine: str, arguments: Mapping[str, Argument]) -> int:
    """Tenths of a bit that a token takes of one block's cache."""
    if engine == VLLM.name:
        keys = values = CACHE_BITS.get(str(arguments.get("kv-cache-dtype", "auto")), 160)
    else:
        keys, values = (CACHE_BITS.get(str(arguments.get(f"cache-type-{of}", "f16")), 160) for of in ("k", "v"))
    numbers = facts.kv_heads * facts.head_dim
    return numbers * keys if facts.latent else numbers * (keys + values)


def _number(arguments: Mapping[str, Argument], name: str, *, otherwise: int) -> int:
    said = arguments.get(name)
    return said if isinstance(said, int) and not isinstance(said, bool) else otherwise


def _up(bits: int, per_byte: int) -> int:
    return -(-bits // per_byte)
