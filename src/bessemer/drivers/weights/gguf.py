"""The header of a GGUF file, versions 2 and 3, little-endian.

As the format's specification says (``docs/gguf.md`` of ggml), and no laxer than its reference reader: keys and tensors
have different names, arrays hold no arrays, each tensor lies where the one before it ends, padded, and all of them
within the file. Values that nobody asks for are gone past, not kept. It blocks.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from bessemer.drivers.weights.ggml import TYPES, Stored
from bessemer.drivers.weights.protocol import refused, shown
from bessemer.drivers.weights.tensors import TENSORS_MAX, Tensors, elements
from bessemer.drivers.weights.window import Window

MAGIC = b"GGUF"
HEADER_BYTES_MAX = 128 << 20
KEYS_MAX = 4096
STRINGS_MAX = 4_000_000
"""In arrays: the words of a vocabulary, and how they merge."""
KEPT_NUMBERS_MAX = 4096
KEPT_TEXT_MAX = 64 << 10
KEPT_BYTES_MAX = 1 << 20
"""Of all texts and arrays together: a header of the largest size would be 600 MB of numbers."""

_KEY_BYTES_MAX, _NAME_BYTES_MAX, _DIMENSIONS_MAX, _ALIGNMENT_MAX = 1024, 64, 4, 1 << 16
_STRING, _ARRAY, _BOOL = 8, 9, 7
_NUMBER_BYTES = 32
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_SCALARS: Mapping[int, struct.Struct] = {
    kind: struct.Struct("<" + form)
    for kind, form in {
        0: "B",
        1: "b",
        2: "H",
        3: "h",
        4: "I",
        5: "i",
        6: "f",
        7: "B",
        10: "Q",
        11: "q",
        12: "d",
    }.items()
}


@dataclass(slots=True)
class Header:
    """What was kept: numbers, short texts and short arrays of numbers by key, and lengths of all arrays. ``long`` are
    the keys of texts that are too long to be kept, or for which no room was left."""

    values: dict[str, Any] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)
    long: set[str] = field(default_factory=set)
    kept_bytes: int = 0

    def take(self, size_bytes: int) -> bool:
        """Whether there is room for so much more to be kept; it is taken then."""
        fits = self.kept_bytes + size_bytes <= KEPT_BYTES_MAX
        self.kept_bytes += size_bytes if fits else 0
        return fits

    def has(self, key: str) -> bool:
        """Whether the file has a text that is not empty under this key."""
        return key in self.long or bool(self.values.get(key))


def read(stream: BinaryIO, size_bytes: int, *, tensors: Tensors) -> Header:
    """The header, with its tensors counted. Raises DriverError ``WeightsRefused``, and OSError."""
    window = Window(stream, size_bytes, bytes_max=HEADER_BYTES_MAX)
    if window.take(4) != MAGIC:
        raise refused("it does not begin as GGUF does")
    version = window.number(_U32)
    if version not in (2, 3):
        raise refused(f"GGUF of version {version} is not read; take one of version 3, little-endian")
    count, keys = window.number(_U64), window.number(_U64)
    if count > TENSORS_MAX or keys > KEYS_MAX:
        raise refused(f"it says that it has {count} tensors and {keys} keys; {TENSORS_MAX} and {KEYS_MAX} are read")
    header = _keys(window, keys)
    places = [_tensor(window, tensors) for _ in range(count)]
    _laid_out(places, header, size_bytes=size_bytes, begin=window.place)
    return header


def _keys(window: Window, count: int) -> Header:
    header, strings = Header(), 0
    for _ in range(count):
        key = _text(window, _KEY_BYTES_MAX)
        if not key or key in header.values or key in header.lengths or key in header.long:
            raise refused(f"its key {shown(key)} is empty or stands twice")
        kind = window.number(_U32)
        if kind == _STRING:
            _keep_text(window, header, key=key)
        elif kind == _ARRAY:
            strings += _array(window, header, key=key, strings=strings)
        else:
            header.values[key] = _scalar(window, kind)
    return header


def _keep_text(window: Window, header: Header, *, key: str) -> None:
    length = window.number(_U64)
    if length > KEPT_TEXT_MAX or not header.take(length):
        window.skip(length)
        header.long.add(key)
    else:
        header.values[key] = window.take(length).decode("utf-8", "replace")


def _array(window: Window, header: Header, *, key: str, strings: int) -> int:
    """Go past an array, keeping it where it is short and of numbers. Returns how many strings it holds."""
    kind, length = window.number(_U32), window.number(_U64)
    header.lengths[key] = length
    if kind == _STRING:
        if strings + length > STRINGS_MAX:
            raise refused(f"it has more than {STRINGS_MAX} strings")
        window.skip_strings(length)
        return length
    form = _SCALARS.get(kind)
    if form is None:
        raise refused(f"array {shown(key)} holds what arrays of GGUF do not hold")
    if length > KEPT_NUMBERS_MAX or not header.take(length * _NUMBER_BYTES):
        window.skip(length * form.size)
    else:
        header.values[key] = [_scalar(window, kind) for _ in range(length)]
    return 0


def _scalar(window: Window, kind: int) -> int | float | bool:
    form = _SCALARS.get(kind)
    if form is None:
        raise refused(f"type {kind} of a value is none of GGUF's")
    value = window.number(form)
    return value != 0 if kind == _BOOL else value


def _text(window: Window, bytes_max: int) -> str:
    length = window.number(_U64)
    if length > bytes_max:
        raise refused(f"a name in it is longer than {bytes_max} bytes")
    try:
        return window.take(length).decode()
    except UnicodeDecodeError:
        raise refused("a name in it is no text") from None


def _tensor(window: Window, tensors: Tensors) -> tuple[str, int, int]:
    """Name, offset and size of the next one."""
    name = _text(window, _NAME_BYTES_MAX)
    dimensions = window.number(_U32)
    if dimensions > _DIMENSIONS_MAX:
        raise refused(f"tensor {shown(name)} has {dimensions} dimensions")
    shape = [window.number(_U64) for _ in range(dimensions)]
    stored = TYPES.get(window.number(_U32))
    if stored is None:
        raise refused(f"tensor {shown(name)} is stored in a way that is not known here")
    size = _size(name, shape, stored=stored)
    tensors.add(name, shape, kind=stored.name, size_bytes=size)
    if name.endswith(".lora_a") and len(shape) > 1:
        tensors.rank = max(tensors.rank, shape[1])
    return name, window.number(_U64), size


def _size(name: str, shape: list[int], *, stored: Stored) -> int:
    row = shape[0] if shape else 1
    if row % stored.elements:
        raise refused(f"a row of tensor {shown(name)} is no whole number of blocks")
    return elements(shape, name=name) // stored.elements * stored.size_bytes


def _laid_out(places: list[tuple[str, int, int]], header: Header, *, size_bytes: int, begin: int) -> None:
    """Each tensor begins where the one before it ends, so that none lies over another, and the last one in the file."""
    alignment = header.values.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= _ALIGNMENT_MAX or alignment & (alignment - 1):
        raise refused("its alignment is no power of two")
    at, end = 0, 0
    for name, offset, size in places:
        if offset != at:
            raise refused(f"tensor {shown(name)} does not begin where the one before it ends")
        end = at + size
        at = end + -end % alignment
    if places and begin + -begin % alignment + end > size_bytes:
        raise refused("its tensors end past the end of the file: it is cut short, or says what is not so")
