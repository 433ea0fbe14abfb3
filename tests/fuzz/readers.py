"""The readers that a fuzzer feeds: ``python -m tests.fuzz.readers NAME FOLDER [libFuzzer's options]``.

Each takes any bytes and must answer with a value or with an error of ours, within the bounds that it states. What it
raises else ends the run, with the bytes in a file ``crash-…`` of the working directory. What was found of use is kept
in FOLDER, which begins with the seeds written here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import atheris
import orjson

with atheris.instrument_imports(include=["bessemer.api", "bessemer.drivers.weights", "jsonpatch", "jsonpointer"]):
    from bessemer.api import body, jsonpatch, protobuf, selectors
    from bessemer.drivers.weights import gguf, safetensors, texts
    from bessemer.drivers.weights.tensors import Tensors
    from tests.fuzz import objects

from bessemer.core.errors import BessemerError
from tests.drivers.weights import made

DEPTH = 64
MESSAGE_MAX = 4096
POINTERS = [
    "",
    "/",
    "/a",
    "/a/0",
    "/a/-",
    "/a/1/b",
    "/a/01",
    "/metadata/labels/x~1y",
    "/metadata",
    "//~0~1",
    "a",
    None,
    3,
]
OPERATION: Mapping[str, list[Any]] = {
    "op": ["add", "remove", "replace", "move", "copy", "test", "spawn", None],
    "path": POINTERS,
    "from": POINTERS,
    "value": [1, None, "b", [], {"c": [[]]}, {"x": {}}],
}
OBJECT = {"a": [1, {"b": "c"}, None], "metadata": {"labels": {"x/y": "z"}}, "": {"~/": True}}


def read_protobuf(raw: bytes) -> None:
    value = protobuf.parse(protobuf.MAGIC + raw)
    assert isinstance(value, dict)


def read_json(raw: bytes) -> None:
    body.parse_json(raw, DEPTH)


def read_yaml(raw: bytes) -> None:
    body.parse_yaml(raw, DEPTH)


def read_json_patch(raw: bytes) -> None:
    """Operations drawn from the bytes: few bytes are JSON by chance."""
    data = atheris.FuzzedDataProvider(raw)

    def drawn() -> dict[str, Any]:
        operation = {key: data.PickValueInList(values) for key, values in OPERATION.items() if data.ConsumeBool()}
        if data.ConsumeProbability() < 0.2:
            operation["path"] = data.ConsumeUnicodeNoSurrogates(12)
        return operation

    before = orjson.dumps(OBJECT)
    try:
        jsonpatch.apply(OBJECT, [drawn() for _ in range(data.ConsumeIntInRange(0, 12))])
    finally:
        assert orjson.dumps(OBJECT) == before, "a patch changed what it was given"


def read_merge_patch(raw: bytes) -> None:
    patch = body.parse_json(raw, DEPTH)
    merged = body.merge(OBJECT, patch)
    assert body.merge(merged, patch) == merged, "a merge patch that is sent twice changes nothing more"


def read_strategic_patch(raw: bytes) -> None:
    objects.check_strategic(objects.Draw(atheris.FuzzedDataProvider(raw)))


def read_applied(raw: bytes) -> None:
    objects.check_applying(objects.Draw(atheris.FuzzedDataProvider(raw)))


def read_managed_fields(raw: bytes) -> None:
    objects.check_entries(objects.Draw(atheris.FuzzedDataProvider(raw)))


def read_selectors(raw: bytes) -> None:
    text = raw.decode(errors="replace")
    selectors.parse_labels(text)
    selectors.parse_fields(text, ("metadata.name",))


def read_gguf(raw: bytes) -> None:
    tensors = Tensors()
    gguf.read(BytesIO(raw), len(raw), tensors=tensors)
    assert tensors.size_bytes <= len(raw), "tensors outside their file"


def read_safetensors(raw: bytes) -> None:
    tensors = Tensors()
    safetensors.read(BytesIO(raw), len(raw), tensors=tensors)
    assert tensors.size_bytes <= len(raw), "tensors outside their file"


def read_model_text(raw: bytes) -> None:
    texts.parse(raw, what="a file")


def broken(raw: bytes) -> None:
    """None of ours: that a run finds it is what tells of the others."""
    _ = 1 // len(raw[:0])


READERS: Mapping[str, Callable[[bytes], None]] = {
    "protobuf": read_protobuf,
    "json": read_json,
    "yaml": read_yaml,
    "json-patch": read_json_patch,
    "merge-patch": read_merge_patch,
    "strategic-patch": read_strategic_patch,
    "apply": read_applied,
    "managed-fields": read_managed_fields,
    "selectors": read_selectors,
    "gguf": read_gguf,
    "safetensors": read_safetensors,
    "model-text": read_model_text,
    "broken": broken,
}

SEEDS: Mapping[str, tuple[bytes, ...]] = {
    "protobuf": (b'\n\x0e\n\x02v1\x12\x08ConfigMap\x12\x07\n\x05\n\x03abc\x1a\x00"\x00',),
    "json": (b'{"a": [1, 2.5e3, "\\u00e9"], "b": {"c": null}}',),
    "yaml": (b"a: &x [1, 2]\nb: !t {c: 2026-01-01, d: 1:30}\n",),
    "json-patch": (bytes(range(64)),),
    "merge-patch": (b'{"a": null, "metadata": {"labels": {"x/y": null, "n": {}}}}',),
    "strategic-patch": (bytes(range(128)), bytes(range(255, 127, -1))),
    "apply": (bytes(range(128)), bytes(range(255, 127, -1)), bytes(range(0, 256, 3))),
    "managed-fields": (bytes(range(128)), bytes(range(255, 127, -1))),
    "gguf": (made.gguf(), made.gguf({}, made.TENSORS[:1])),
    "safetensors": (made.safetensors(made.TWO, made.TWO_BYTES),),
    "model-text": (b'{"a": [1, {"b": "\\\\"}], "c": null}',),
    "broken": (b"",),
    "selectors": (b"a=b,!c,d in (e,f),g notin (h)", b"metadata.name!=a"),
}


def main() -> None:
    """Feed one of them until libFuzzer is through. Ends the process."""
    name = sys.argv.pop(1)
    read = READERS[name]
    for n, seed in enumerate(SEEDS[name]):
        Path(sys.argv[1], f"seed-{n}").write_bytes(seed)

    def one(raw: bytes) -> None:
        try:
            read(raw)
        except BessemerError as error:
            if len(error.message) > MESSAGE_MAX:
                raise AssertionError("a message repeats what it was given") from error

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
