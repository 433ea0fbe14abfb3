"""What memory a model takes: as engines count it, and what of it keeps a replica from a flavor."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.core.inference import ModelFacts
from bessemer.core.units import MIB
from bessemer.drivers.weights.fake import SMALL
from bessemer.kinds.fleet.flavor import FlavorSpec
from bessemer.kinds.inference.footprint import CACHE_BITS, Footprint, contexts_of, fits, footprint, too_small
from tests.kinds.world import World

LLAMA_70B = ModelFacts(
    format="safetensors",
    layers=80,
    hidden=8192,
    heads=64,
    kv_heads=8,
    head_dim=128,
    context_tokens=131_072,
    vocabulary=128_256,
    weight_bytes=141 * 10**9,
)


def made(facts: ModelFacts = SMALL, engine: str = "llamacpp", **arguments: Any) -> Footprint:
    said = {name.replace("_", "-"): value for name, value in arguments.items()}
    found = footprint(facts, engine=engine, arguments=said)
    assert found is not None
    return found


def test_the_cache_is_what_llamacpp_says_that_it_is() -> None:
    """``CPU KV buffer size``: 11.25 MiB of 512 tokens, 180 of 8192, of SmolLM2-135M."""
    assert made().cache(512) == 11.25 * MIB
    assert made().cache(8192) == 180 * MIB


@pytest.mark.parametrize(
    ("slots", "context", "ubatch", "said"), [(1, 512, 512, 15.14), (1, 8192, 512, 22.64), (1, 2048, 128, 4.16)]
)
def test_what_is_computed_in_is_near_what_llamacpp_says(slots: int, context: int, ubatch: int, said: float) -> None:
    """``CPU compute buffer size``."""
    found = made(ubatch_size=ubatch)
    assert found.batch + context * found.batch_token == pytest.approx(said * MIB, rel=0.05)


def test_caches_may_be_packed() -> None:
    assert made(cache_type_k="q8_0", cache_type_v="q8_0").per_token == 23_040 * 85 // 160
    assert made(cache_type_k="q4_0").per_token == 23_040 * (45 + 160) // 320
    assert made(engine="vllm", kv_cache_dtype="fp8").per_token == 23_040 // 2


def test_every_type_that_may_be_asked_for_is_known() -> None:
    from bessemer.drivers.llamacpp.protocol import LLAMACPP
    from bessemer.drivers.vllm.protocol import VLLM

    said = {*LLAMACPP.options["cache-type-k"].choices, *VLLM.options["kv-cache-dtype"].choices}
    assert said == CACHE_BITS.keys()


def test_grouped_latent_and_sliding() -> None:
    assert made(LLAMA_70B, "vllm").per_token == 2 * 80 * 8 * 128 * 2  # 320 KiB
    latent = LLAMA_70B.model_copy(update={"latent": True, "kv_heads": 1, "head_dim": 576, "layers": 61})
    assert made(latent, "vllm").per_token == 61 * 576 * 2  # DeepSeek-V3: 70 KB
    sliding = SMALL.model_copy(update={"window_tokens": 1024, "window_layers": 25})
    assert made(sliding).cache(8192) == 768 * (5 * 8192 + 25 * (1024 + 512))
    assert made(sliding).cache(512) == made().cache(512)
    assert made(sliding, swa_full=True).cache(8192) == made().cache(8192)


def test_what_says_too_little_has_no_footprint() -> None:
    assert footprint(ModelFacts(), engine="llamacpp", arguments={}) is None


def flavor(memory: str, **more: Any) -> FlavorSpec:
    return FlavorSpec.model_validate({"cores": 4, "memory": memory, **more})


def slots(memory: str, context: int, *, engine: str = "llamacpp", facts: ModelFacts = SMALL, **more: Any) -> int:
    found = footprint(facts, engine=engine, arguments={})
    assert found is not None
    return fits(found, flavor(memory, **more), engine=engine, arguments={}, context=context).slots


def test_what_fits_where() -> None:
    assert slots("512Mi", 2048) == 6
    assert slots("512Mi", 8192) == 1
    assert slots("256Mi", 8192) == 0
    assert slots("64Gi", 2048) == 256
    assert slots("8Gi", 2048, engine="vllm") == 44
    assert slots("2Gi", 2048, engine="vllm") == 0
    assert slots("64Gi", 8192, engine="vllm", devices={"count": 1, "memory": "80Gi"}) == 256
    assert slots("64Gi", 8192, engine="vllm", facts=LLAMA_70B, devices={"count": 1, "memory": "80Gi"}) == 0
    unknown = fits(
        made(LLAMA_70B, "vllm"), flavor("64Gi", devices={"count": 8}), engine="vllm", arguments={}, context=8192
    )
    assert (unknown.slots, unknown.why) == (0, "nobody says how much memory its devices have")


@given(memory=st.integers(200, 1 << 16), context=st.integers(64, 1 << 17), more=st.integers(1, 1 << 14))
def test_more_memory_holds_no_less_and_more_context_no_more(memory: int, context: int, more: int) -> None:
    here = slots(f"{memory}Mi", context)
    assert slots(f"{memory + more}Mi", context) >= here
    assert slots(f"{memory}Mi", context + more) <= here
    if 0 < here < 256:
        room = (memory - memory // 8) * MIB
        assert made().needs(slots=here, context=context) <= room < made().needs(slots=here + 1, context=context)


def test_columns_go_up_to_the_models_own_context() -> None:
    assert contexts_of(SMALL) == [2048, 8192]
    assert contexts_of(LLAMA_70B) == [2048, 8192, 32_768, 131_072]
    assert contexts_of(ModelFacts(context_tokens=1024)) == [1024]


@given(memory=st.integers(64, 4096), slots=st.integers(1, 64), context=st.integers(64, 1 << 15))
def test_what_fits_is_never_refused(memory: int, slots: int, context: int) -> None:
    spec = flavor(f"{memory}Mi")
    found = [*too_small(SMALL, spec, engine="llamacpp", arguments={}, slots=slots, context=context)]
    fit = fits(made(), spec, engine="llamacpp", arguments={}, context=context)
    assert not (found and fit.slots >= slots)
    over = SMALL.weight_bytes + slots * 23_040 * context > memory * MIB
    assert bool(found) == over


def test_of_devices_and_what_is_not_known_nothing_is_refused() -> None:
    asked: dict[str, Any] = {"arguments": {}, "slots": 256, "context": 1 << 20}
    assert not [*too_small(None, flavor("1Gi"), engine="llamacpp", **asked)]
    assert not [*too_small(SMALL, flavor("1Gi"), engine="vllm", **asked)]
    assert not [*too_small(SMALL, flavor("1Gi", devices={"count": 1}), engine="llamacpp", **asked)]


async def test_an_endpoint_that_no_memory_would_hold_takes_no_claim() -> None:
    async with World() as world:
        await world.create("Endpoint", "chat", {"model": "smol", "flavor": "serve", "slots": 64, "contextTokens": 8192})
        said = await world.until_reason("Endpoint", "chat", "FlavorTooSmall")
        assert "64 slots of 8192 tokens are more than the 1 GiB that the flavor gives" in said["message"]
        assert await world.bodies("Claim") == []
