"""Which replica has read the beginning of a prompt before: what is known of that without asking. Pure.

A prompt is told by its **marks**: checksums of its first 512, 1024, 1536, 2048, 3072 … bytes, each of all before
it. Two prompts that begin alike have the first marks in common, and a longer conversation has those of the shorter one.
As the steps grow, a prompt has at most `MARKS_MAX` of them, and two thirds of what two have in common is seen.
They are of bytes as the client wrote them, not of tokens: no tokenizer is needed, and all gateways agree.

A mark is 32 bits of CRC. Two that collide send a request to a replica that answers it as well, only not sooner.

Sources: vLLM's automatic prefix caching (a hash of each block and all before it); the prefix scorers of llm-d and
AIBrix (such hashes of text, and who was sent them lately).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from zlib import crc32

HOLDERS_MAX = 4
"""Replicas that are remembered of one mark: what more of them have is no reason to prefer any."""
MARKS_KEPT = 4096
"""Of each replica; twice as many for a while."""
READ_BYTES = 1 << 16
"""Of a prompt: those that have so much in common are one conversation."""


def _steps() -> Iterator[int]:
    size = 512
    while size < READ_BYTES:
        yield size
        if size > 512:
            yield size + size // 2
        size *= 2
    yield READ_BYTES


STEPS = tuple(_steps())
MARKS_MAX = len(STEPS)

Marks = tuple[int, ...]


def marks(text: memoryview, seed: int = 0) -> Marks:
    """Of a prompt; none where it is shorter than 512 bytes, which are soon read. ``seed`` tells prompts apart that have
    no cache in common: another tenant's, another adapter's."""
    found, size, start, value = [], len(text), 0, seed
    for end in STEPS:
        if end > size:
            break
        value = crc32(text[start:end], value)
        found.append(value)
        start = end
    return tuple(found)


class Trail:
    """Who was sent which marks lately: two generations, of which the older one is forgotten at once. Never more than
    ``2 * most`` marks, ``most`` those of one generation, which is no less than `MARKS_MAX`."""

    __slots__ = ("_old", "_young", "most")

    def __init__(self, most: int = MARKS_KEPT) -> None:
        self.most = most
        self._young: dict[int, tuple[str, ...]] = {}
        self._old: dict[int, tuple[str, ...]] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def find(self, sought: Sequence[int]) -> tuple[int, tuple[str, ...]]:
        """How many of the marks are known, and who has the last of those: the latest stands last."""
        young, old = self._young, self._old
        depth = len(sought)
        for mark in reversed(sought):
            if (holders := young.get(mark) or old.get(mark)) is not None:
                return depth, holders
            depth -= 1
        return 0, ()

    def keep(self, sent: Sequence[int], uid: str) -> None:
        """Remember that a replica was sent a prompt."""
        young, old = self._young, self._old
        if len(young) + len(sent) > self.most:
            old = self._old = young
            young = self._young = {}
        alone = (uid,)
        for mark in sent:
            holders = young.get(mark) or old.get(mark)
            if holders is None:
                young[mark] = alone
            elif holders[-1] != uid or mark not in young:
                others = [one for one in holders if one != uid]
                young[mark] = (*others[1 - HOLDERS_MAX :], uid)
