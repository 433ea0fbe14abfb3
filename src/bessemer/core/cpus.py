"""Sets of hardware threads, written as the kernel writes them: ``2-5,58``."""

from __future__ import annotations

from collections.abc import Iterable

CPUS_MAX = 1 << 13
"""Of one machine, and the highest number of a thread: what Linux can be built for."""


def parse_cpus(words: str) -> tuple[int, ...]:
    """``0-3,8`` → (0, 1, 2, 3, 8), in order. Raises ValueError, also where one is named twice."""
    found: set[int] = set()
    for part in filter(None, words.strip().split(",")):
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if not 0 <= low <= high < CPUS_MAX:
            raise ValueError(f"{part[:32]!r} names no hardware threads")
        before = len(found)
        found.update(range(low, high + 1))
        if len(found) - before <= high - low:
            raise ValueError(f"{part[:32]!r} names hardware threads again")
    return tuple(sorted(found))


def parse_each(sets: Iterable[str]) -> list[tuple[int, ...]]:
    """Several sets of one machine: of more threads than there can be none is read to its end. Raises ValueError."""
    found, left = [], CPUS_MAX
    for words in sets:
        found.append(parse_cpus(words))
        left -= len(found[-1])
        if left < 0:
            raise ValueError(f"more than {CPUS_MAX} hardware threads")
    return found


def show_cpus(cpus: Iterable[int]) -> str:
    """The numbers as a set of the kernel's: (0, 1, 2, 8) → ``0-2,8``."""
    runs: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if runs and runs[-1][1] == cpu - 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)
