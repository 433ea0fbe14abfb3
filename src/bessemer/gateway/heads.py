"""A head of HTTP that came before, byte for byte but for the length that it says: who has read it once need not read it
again. Pure.

A client says the same with each request, and a replica with each answer. Only a head whose message was read by the
parser, whole and alone, becomes one: what is told apart by it is its length and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping

BYTES_MAX = 2 << 10
"""Of a head that a connection remembers."""
_LENGTH, _DIGITS_MAX = b"\r\ncontent-length:", 9
_END = b"\r\n\r\n"


class Head:
    """``at`` is where its length stands."""

    __slots__ = ("_behind", "_hash", "_said", "at")

    def __init__(self, said: bytes, *, at: int, behind: int) -> None:
        self._said = said
        self._hash = hash(said)
        self._behind = behind
        """Bytes from behind the length to the body."""
        self.at = at

    @classmethod
    def read(cls, data: bytes, length: bytes) -> Head | None:
        """That of a whole message, of which nothing else came, and whose ``content-length`` was read as ``length``."""
        end = data.find(_END) + len(_END)
        if not len(_END) <= end <= BYTES_MAX or not length.isdigit() or len(data) != end + int(length):
            return None
        named = data[:end].lower().find(_LENGTH)
        at = data.find(length, named + len(_LENGTH))
        stop = at + len(length)
        if named < 0 or not data.startswith(b"\r\n", stop):
            return None
        return cls(data[:at] + data[stop:end], at=at, behind=end - stop)

    def body(self, data: bytes) -> bytes | None:
        """The body of a whole message that has this head; None where it has another, or is not whole or not alone."""
        at = self.at
        stop = data.find(b"\r", at, at + _DIGITS_MAX + 1)
        length = data[at:stop]
        if stop < 0 or not length.isdigit():
            return None
        end = stop + self._behind
        said = data[:at] + data[stop:end]
        # By their hashes first: how much of a head is right takes no other time than that it is wrong.
        if len(data) != end + int(length) or hash(said) != self._hash or said != self._said:
            return None
        return data[end:]


def plain(headers: Mapping[bytes, bytes]) -> bool:
    """Whether nothing of a head asks for more than that its body is taken."""
    return _UNUSUAL.isdisjoint(headers)


_UNUSUAL = frozenset((b"content-encoding", b"expect", b"transfer-encoding", b"upgrade"))
