"""Vetting of a model that embeds: what it is asked, what is made of its vectors, and what its texts take."""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.drivers.engine.fake_server import FakeModel
from bessemer.drivers.load.protocol import Hit, Shot, Volley
from bessemer.drivers.weights.fake import SMALL
from bessemer.kinds.fleet.flavor import FlavorSpec
from bessemer.kinds.inference.fitting import fit_table
from bessemer.kinds.inference.footprint import footprint, told
from bessemer.kinds.inference.vetting import embedding
from bessemer.kinds.inference.vetting.embedding import cosine, judged, vectors_of
from bessemer.kinds.inference.vetting.measuring import Measured, lengths_of, next_rate, taken, volley_of
from bessemer.kinds.inference.vetting.pricing import times
from bessemer.kinds.inference.vetting.report import EMBEDDINGS, Alone, Goals, point
from bessemer.kinds.inference.vetting.spec import VettingIntent, validate
from tests.kinds.inference.test_vetting import made, vetted
from tests.kinds.inference.test_vetting_measuring import intent
from tests.kinds.world import World

EMBED: dict[str, Any] = {"task": "embed", "target": {"endMs": 60_000}}


def embedding_intent(**more: Any) -> VettingIntent:
    return intent().model_copy(update={"task": "embed", **more})


def hits(model: Any = None) -> list[Hit]:
    """What an engine answers to what is asked first."""
    model = model or FakeModel("m", embeds=True)
    return [
        Hit(200, 0.0, 0.1, read=8, answer=json.dumps(model.embed(dict(shot.body)))) for shot in embedding.first("m")
    ]


def answered(*vectors: Any, index: Sequence[int] | None = None) -> Hit:
    data = [
        {"index": at, "embedding": vector} for at, vector in zip(index or range(len(vectors)), vectors, strict=True)
    ]
    return Hit(200, 0.0, 0.1, read=8, answer=json.dumps({"data": data}))


# --- both sides -------------------------------------------------------------------------------------------------


async def test_it_is_measured_by_its_texts_and_priced_by_what_it_reads() -> None:
    async with World() as world:
        rates = {"coreHour": 40_000, "memoryGibHour": 5_000}
        await world.create("PricePlan", "dear", {"rates": rates}, namespace="")
        await world.patch("Tenant", "acme", namespace="", pricePlan="dear")
        status = (await vetted(world, **EMBED))["status"]
        assert status["phase"] == "Succeeded"
        assert {one["name"]: one["verdict"] for one in status["checks"]} == dict.fromkeys(
            ("answers", "dimension", "deterministic", "similarity", "batch", "target"), "Passed"
        )
        (one,) = status["points"]
        assert (one["written"], one["ttftP95"], one["interTokenP95"]) == (0, 0.0, 0.0)
        assert one["read"] > 0 < one["endP50"] <= one["endP95"]
        found, prices = status["vetted"], status["prices"]
        assert (found["task"], found["outputPerSecond"], found["endMs"]) == ("embed", 0.0, one["endP95"])
        assert (prices["millionOutputTokens"], found.get("outputSeconds", 0.0)) == (0, 0.0)
        assert 0 < prices["millionInputTokens"] == prices["millionCachedInputTokens"]
        assert prices["hourMicro"] == pytest.approx(54_000, abs=2)
        assert status["estimateBytes"] > 0


async def test_one_that_cannot_embed_is_given_up() -> None:
    async with World() as world:
        await world.create("Vetting", "v", {"model": "smol", "flavor": "serve", **EMBED})

        async def mute() -> bool:
            for model in [one for host in world.hosts.values() for one in host.engine.models.values()]:
                model.embeds = False
            return bool((await world.condition("Vetting", "v"))["phase"] == "Failed")

        await world.until(mute)
        found = await world.object("Vetting", "v")
        assert found is not None
        assert found["status"]["trouble"] == "NotAnswered"


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"target": {"ttftMs": 5}}, "spec.target.ttftMs"),
        ({"target": {"interTokenMs": 5}}, "spec.target.interTokenMs"),
        ({"load": {"outputTokens": [1, 2]}}, "spec.load.outputTokens"),
        ({"load": {"sharedPercent": 5}}, "spec.load.sharedPercent"),
    ],
)
def test_what_a_vector_does_not_have_is_refused(spec: dict[str, Any], field: str) -> None:
    assert [cause.field for cause in validate(made(task="embed", **spec), None)] == [field]
    assert not validate(made(**spec), None)


# --- what is asked ----------------------------------------------------------------------------------------------


def test_texts_are_no_longer_than_what_is_computed_at_once() -> None:
    here = {"engine": "llamacpp", "memory_bytes": 1 << 30, "context_tokens": 1 << 16}
    long = intent(inputs=[100_000, 100_001]).plan
    assert lengths_of(embedding_intent(**here, plan=long))[0].at(1.0) == 512 * 3 // 4
    more = embedding_intent(**here, plan=long, arguments={"ubatch-size": 2048})
    assert lengths_of(more)[0].at(1.0) == 2048 * 3 // 4
    assert lengths_of(embedding_intent(**{**here, "engine": "vllm"}, plan=long))[0].at(1.0) == (1 << 16) * 3 // 4


def test_a_course_from_its_begin_to_its_end() -> None:
    made, had, model = embedding_intent(), Measured(), FakeModel("v", embeds=True)
    paths = []
    while (volley := volley_of(made, had)) is not None and len(had.points) < 3:
        paths += [shot.path for shot in volley.shots]
        rate = next_rate(made, had) if had.checks else None
        assert volley.serial == (rate is None)
        found = [_hit(model, shot, seconds=0.001) for shot in volley.shots]
        assert all(not hit.answer for shot, hit in zip(volley.shots, found, strict=True) if not shot.keep)
        had = taken(made, had, volley=volley, hits=found)
    assert set(paths) == {EMBEDDINGS}
    assert had.alone is not None
    assert had.alone.read == pytest.approx(0.001)
    assert had.alone.words == pytest.approx(1.0, rel=0.1)
    assert [one.name for one in had.checks] == ["answers", "dimension", "deterministic", "similarity", "batch"]
    assert all(one.held and one.read and not one.written for one in had.points)


def _hit(model: FakeModel, shot: Shot, *, seconds: float) -> Hit:
    said = model.embed(dict(shot.body))
    read = said["usage"]["prompt_tokens"]
    return Hit(200, shot.at, shot.at + 0.02 + seconds * read, read=read, answer=json.dumps(said) if shot.keep else "")


def test_a_point_is_held_by_its_end() -> None:
    volley = Volley(1, [Shot(0.0, {}, EMBEDDINGS)], 60.0)
    hit = Hit(200, 0.0, 0.1, read=10)
    assert point(volley, [hit], rate=1.0, goals=Goals(end=100)).held
    late = point(volley, [hit], rate=1.0, goals=Goals(end=99))
    assert (late.held, late.failed, late.per_second) == (False, 0, 100.0)
    empty = point(volley, [Hit(200, 0.0, 0.1)], rate=1.0, goals=Goals())
    assert (empty.held, empty.failed) == (False, 1), "what counts no token embeds none"


def test_all_of_the_time_is_of_what_was_read() -> None:
    volley = Volley(1, [Shot(0.0, {}, EMBEDDINGS)], 60.0)
    one = point(volley, [Hit(200, 0.0, 2.0, read=1000)], rate=1.0, goals=Goals())
    each = times(one, Alone(read=0.001, cached=0.001, written=0.0, words=1.0), slots=4)
    assert (each.read, each.cached, each.written) == (2_000_000, 2_000_000, 0)


# --- checks -----------------------------------------------------------------------------------------------------


def test_what_is_well_passes() -> None:
    assert [one.verdict for one in judged(hits())] == ["Passed"] * 5


def failed(changed: dict[int, Hit]) -> list[str]:
    found = hits()
    return [
        one.name for one in judged([changed.get(at, hit) for at, hit in enumerate(found)]) if one.verdict != "Passed"
    ]


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({0: Hit(500, 0, 0, answer="no")}, ["answers", "dimension", "deterministic", "similarity", "batch"]),
        ({0: answered([math.nan] * 16)}, ["answers", "dimension", "deterministic", "similarity", "batch"]),
        ({0: answered([0.0] * 16)}, ["answers", "dimension", "deterministic", "similarity", "batch"]),
        ({3: answered([1.0] * 8)}, ["dimension"]),
        ({1: answered([1.0, -9.0] * 8)}, ["deterministic"]),
        ({4: Hit(400, 0, 0, answer="no")}, ["batch"]),
        ({4: answered([1.0] * 16, [1.0, -1.0] * 8)}, ["batch"]),
        ({4: answered([1.0] * 16)}, ["batch"]),
    ],
)
def test_what_is_not_well_is_told_by_its_name(changed: dict[int, Hit], names: list[str]) -> None:
    assert failed(changed) == names


def test_vectors_that_say_nothing_of_what_is_meant() -> None:
    """Each text is as near to each other."""
    alike = [answered([1.0] * 16)] * 4
    found = judged([*alike, answered([1.0] * 16, [1.0] * 16)])
    assert [one.name for one in found if one.verdict == "Failed"] == ["similarity"]


def test_two_at_once_may_not_be_mixed_up() -> None:
    said = json.loads(hits()[4].answer)["data"]
    assert failed({4: answered(said[0]["embedding"], said[1]["embedding"], index=(1, 0))}) == ["batch"]
    assert failed({4: answered(said[1]["embedding"], said[0]["embedding"], index=(1, 0))}) == []


def packed(numbers: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


@pytest.mark.parametrize("answer", ["", "[", "[1]", '{"data": 7}', '{"data": [{"index": 0}]}', "{}"])
def test_answers_that_are_none(answer: str) -> None:
    assert vectors_of(Hit(200, 0, 0, answer=answer), 1) == ()


@pytest.mark.parametrize("wild", ["***", "AAA=", [1.0, "x"], [[1.0]], {"a": 1}, None, 7, ["1e999"], [1e308 * 10]])
def test_vectors_that_are_none(wild: Any) -> None:
    assert vectors_of(answered(wild), 1) == ()
    assert judged([answered(wild)] * 5)[0].verdict == "Failed"


@pytest.mark.parametrize("form", [list, packed])
def test_both_forms_are_read(form: Callable[[Sequence[float]], Any]) -> None:
    assert [list(one) for one in vectors_of(answered(form([1.0, 0.5]), form([0.25, -1.0])), 2)] == [
        [1.0, 0.5],
        [0.25, -1.0],
    ]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), st.floats(0.001, 1000))
def test_a_cosine_is_of_the_angle_alone(numbers: list[float], factor: float) -> None:
    if math.hypot(*numbers) > 1e-3:
        assert cosine(numbers, [number * factor for number in numbers]) == pytest.approx(1.0)
        assert cosine(numbers, [-number for number in numbers]) == pytest.approx(-1.0)
    assert cosine(numbers, [0.0] * len(numbers)) == 0.0
    assert cosine(numbers, [*numbers, 1.0]) == 0.0


# --- memory -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ubatch", "said"), [(512, 103.65), (2048, 414.61)])
def test_what_is_computed_in_is_near_what_llamacpp_says(ubatch: int, said: float) -> None:
    """``CPU compute buffer size`` of SmolLM2-135M with slots of 2,048 tokens, embedding; its cache is there, too."""
    found = footprint(SMALL, engine="llamacpp", arguments={"ubatch-size": ubatch}, task="embed")
    assert found is not None
    assert (found.batch + 2048 * found.batch_token) / (1 << 20) == pytest.approx(said, rel=0.01)
    assert found.cache(8192) == 180 << 20


def test_an_encoder_keeps_nothing_of_what_it_read() -> None:
    encoder = SMALL.model_copy(update={"architecture": "nomic-bert"})
    found = footprint(encoder, engine="llamacpp", arguments={}, task="embed")
    assert found is not None
    assert found.cache(8192) == 0
    assert found.batch < 16 << 20, "nor has it numbers for a vocabulary"
    nameless = encoder.model_copy(update={"vocabulary": 0})
    model = {"metadata": {"name": "m"}, "status": {"format": "gguf", "facts": nameless.dump()}}
    flavors = [{"metadata": {"name": "f"}, "spec": {"cores": 1, "memory": "2Gi"}}]
    table = fit_table(model, flavors, devices={}, choice=_auto(), task="embed")
    assert table.flavors[0].fits[0].slots == 256, "what takes nothing is held as often as is asked"


def test_what_fits_is_told_for_texts_as_long_as_its_memory_bears() -> None:
    flavor = FlavorSpec.model_validate({"cores": 1, "memory": "4Gi"})
    assert told({}, flavor, engine="llamacpp", task="embed", context=8192) == {"ubatch-size": 2048}
    assert told({}, flavor, engine="llamacpp", task="generate", context=8192) == {}
    assert told({"ubatch-size": 64}, flavor, engine="llamacpp", task="embed", context=8192) == {"ubatch-size": 64}
    model = {"metadata": {"name": "m"}, "status": {"format": "gguf", "facts": SMALL.dump()}}
    flavors = [{"metadata": {"name": "f"}, "spec": {"cores": 1, "memory": size}} for size in ("256Mi", "1Gi")]
    chats, embeds = (fit_table(model, flavors, devices={}, choice=_auto(), task=task) for task in ("generate", "embed"))
    assert [row.fits[0].slots for row in embeds.flavors] < [row.fits[0].slots for row in chats.flavors]


def _auto() -> Any:
    from bessemer.kinds.inference.endpoint.spec import EngineChoice

    return EngineChoice()
