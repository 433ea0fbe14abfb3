"""Which hardware threads an agent may use, and of which physical cores they are."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from bessemer.core.cpus import parse_cpus, show_cpus
from bessemer.drivers.inspect.files import text


class Cores:
    """The hardware threads below ``base`` (``/sys/devices/system/cpu``), those ``allowed`` alone where that is said."""

    def __init__(self, base: Path, *, allowed: Collection[int] | None) -> None:
        self._base = base
        self._allowed = allowed

    def listed(self, path: Path) -> Sequence[int]:
        """Those that a file names, as far as they are allowed."""
        return [thread for thread in parse_cpus(text(path)) if self._allowed is None or thread in self._allowed]

    def online(self) -> Sequence[int]:
        """All of them, of whatever node."""
        return self.listed(self._base / "online")

    def count(self, threads: Sequence[int]) -> int:
        """Physical cores: threads that name the same siblings are one."""
        return len({self._core(thread) for thread in threads})

    def siblings(self, threads: Sequence[int]) -> list[str]:
        """The threads of each physical core, of those that there are; none where the kernel does not say."""
        cores = {core: set(parse_cpus(core)) & set(threads) for core in dict.fromkeys(map(self._core, threads))}
        whole = sum(map(len, cores.values())) == len(threads)
        return [show_cpus(core) for core in cores.values()] if whole else []

    def _core(self, thread: int) -> str:
        return text(self._base / f"cpu{thread}/topology/thread_siblings_list") or str(thread)
