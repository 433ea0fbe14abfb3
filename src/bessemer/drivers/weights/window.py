"""A file read from its beginning, a piece at a time: no more of it in memory than one piece, and never past a bound."""

from __future__ import annotations

import struct
from typing import BinaryIO

from bessemer.drivers.weights.protocol import refused

PIECE_BYTES = 1 << 20
_LENGTH = struct.Struct("<Q")
_LENGTH_BYTES = 8


class Window:
    """``bytes_max`` bounds how far it goes, be it read or skipped. All methods raise DriverError ``WeightsRefused``
    past that bound and past the file's end. It blocks."""

    def __init__(self, stream: BinaryIO, size_bytes: int, *, bytes_max: int) -> None:
        self._stream = stream
        self._end = min(size_bytes, bytes_max)
        self._cut = "the file is cut short" if size_bytes <= bytes_max else f"its header passes {bytes_max} bytes"
        self._piece = b""
        self._at = 0
        self._before = 0

    @property
    def place(self) -> int:
        """The offset of the next byte."""
        return self._before + self._at

    def take(self, count: int) -> bytes:
        """The next bytes; ``count`` is bounded by whoever asks."""
        if self._at + count > len(self._piece):
            self._fill(count)
        taken = self._piece[self._at : self._at + count]
        self._at += count
        return taken

    def skip(self, count: int) -> None:
        """Go past the next bytes, without reading what lies past this piece."""
        if count <= len(self._piece) - self._at:
            self._at += count
            return
        place = self.place + count
        if place > self._end:
            raise refused(self._cut)
        self._piece, self._at, self._before = b"", 0, place

    def number(self, form: struct.Struct) -> int:
        """One number."""
        value: int = form.unpack(self.take(form.size))[0]
        return value

    def skip_strings(self, count: int) -> None:
        """Go past so many strings, each with its length of 64 bits before it."""
        while count:
            piece, at, room = self._piece, self._at, len(self._piece) - _LENGTH_BYTES
            while count and at <= room:
                length = _LENGTH.unpack_from(piece, at)[0]
                if length > len(piece) - at - _LENGTH_BYTES:
                    break
                at += _LENGTH_BYTES + length
                count -= 1
            self._at = at
            if count:
                self.skip(self.number(_LENGTH))
                count -= 1

    def _fill(self, count: int) -> None:
        place = self.place
        if place + count > self._end:
            raise refused(self._cut)
        self._stream.seek(place)
        piece = self._stream.read(min(max(count, PIECE_BYTES), self._end - place))
        if len(piece) < count:
            raise refused("the file is cut short")
        self._piece, self._at, self._before = piece, 0, place
