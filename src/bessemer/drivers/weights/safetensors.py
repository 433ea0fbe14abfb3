"""The header of a safetensors file.

As the format's description says, and as strictly as its reference reader: tensors lie one after another without a hole
from the header's end to the file's, each as long as its shape and type ask for. It blocks.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

from bessemer.drivers.weights import texts
from bessemer.drivers.weights.protocol import refused, shown
from bessemer.drivers.weights.tensors import TENSORS_MAX, Tensors, elements

HEADER_BYTES_MAX = 16 << 20
"""The reference reader takes 100 MB; what a model of a terabyte says of its tensors in one file is 1 MB."""

_LENGTH = struct.Struct("<Q")
_LENGTH_BYTES = 8
_NAME_LENGTH_MAX, _DIMENSIONS_MAX = 512, 8

_OF_BITS: Mapping[int, str] = {
    4: "F4",
    6: "F6_E2M3 F6_E3M2",
    8: "BOOL U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ",
    16: "I16 U16 F16 BF16",
    32: "I32 U32 F32",
    64: "I64 U64 F64 C64",
}
BITS: Mapping[str, int] = {name: bits for bits, names in _OF_BITS.items() for name in names.split()}
"""Of one element, by the format's name for its type."""


def begins(first: bytes, size_bytes: int) -> bool:
    """Whether a file of this size may be one, by its first nine bytes."""
    if len(first) <= _LENGTH_BYTES:
        return False
    return 2 <= _LENGTH.unpack(first[:_LENGTH_BYTES])[0] <= size_bytes and first[_LENGTH_BYTES:9] == b"{"


def read(stream: BinaryIO, size_bytes: int, *, tensors: Tensors) -> Mapping[str, str]:
    """What the file says beside its tensors, which are counted. Raises DriverError ``WeightsRefused``, and OSError."""
    first = stream.read(_LENGTH_BYTES)
    length = _LENGTH.unpack(first)[0] if len(first) == _LENGTH_BYTES else 0
    if length < 2 or length > size_bytes - _LENGTH_BYTES:
        raise refused("it is cut short, or no safetensors file")
    if length > HEADER_BYTES_MAX:
        raise refused(f"its header is longer than {HEADER_BYTES_MAX} bytes")
    raw = stream.read(length)
    if len(raw) != length or not raw.startswith(b"{"):
        raise refused("it is cut short, or no safetensors file")
    said = texts.parse(raw, what="its header")
    beside = said.pop("__metadata__", {})
    if len(said) > TENSORS_MAX:
        raise refused(f"it has more than {TENSORS_MAX} tensors")
    places = sorted(_tensor(name, info, tensors=tensors) for name, info in said.items())
    _laid_out(places, size_bytes=size_bytes - _LENGTH_BYTES - length)
    if not isinstance(beside, dict):
        raise refused("its __metadata__ is no object")
    return {key: value for key, value in beside.items() if isinstance(value, str)}


def _tensor(name: str, info: Any, *, tensors: Tensors) -> tuple[int, int, str]:
    """Where it begins and ends, and its name."""
    if len(name) > _NAME_LENGTH_MAX or not isinstance(info, dict) or info.keys() != {"dtype", "shape", "data_offsets"}:
        raise refused(f"tensor {shown(name)} is not described as the format says")
    kind, shape, place = info["dtype"], _lengths(info["shape"]), _lengths(info["data_offsets"])
    bits = BITS.get(kind) if isinstance(kind, str) else None
    if bits is None or shape is None or place is None or len(place) != 2 or len(shape) > _DIMENSIONS_MAX:
        raise refused(f"tensor {shown(name)} is not described as the format says")
    begin, end = place
    if (end - begin) * 8 != elements(shape, name=name) * bits:
        raise refused(f"tensor {shown(name)} is not as long as its shape and type ask for")
    tensors.add(name, shape, kind=kind, size_bytes=end - begin)
    if ".lora_A." in name and shape:
        tensors.rank = max(tensors.rank, shape[0])
    return begin, end, name


def _lengths(value: Any) -> list[int] | None:
    """A list of whole numbers, none below 0."""
    if not isinstance(value, list) or not all(type(one) is int and one >= 0 for one in value):
        return None
    return value


def _laid_out(places: list[tuple[int, int, str]], *, size_bytes: int) -> None:
    at = 0
    for begin, end, name in places:
        if begin != at:
            raise refused(f"tensor {shown(name)} does not begin where another ends")
        at = end
    if at != size_bytes:
        raise refused("its tensors end elsewhere than the file: it is cut short, or says what is not so")
