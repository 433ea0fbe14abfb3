"""Which application answers a path, and what the path's parameters are.

Every request comes by here, and those about one object of a wide table far down: so candidates are sought by the number
of segments and the first of them, and compared in their order, each by one comparison. The first that fits has it. A
parameter is one segment that is not empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Generic, TypeVar

App = TypeVar("App")


@dataclass(frozen=True, slots=True)
class _Pattern(Generic[App]):
    """``words`` are what ``read`` gives of a path that fits; ``parameters`` are by name where they stand."""

    read: Callable[[list[str]], Any]
    words: Any
    parameters: Mapping[str, int]
    app: App


class Paths(Generic[App]):
    """Of patterns like ``/apis/{group}/{version}``, whose first segment is a word."""

    def __init__(self, patterns: Iterable[tuple[str, App]]) -> None:
        self._patterns: dict[tuple[int, str], list[_Pattern[App]]] = {}
        for path, app in patterns:
            parts = path[1:].split("/")
            words = [place for place, part in enumerate(parts) if not part.startswith("{")]
            read = itemgetter(*words)
            parameters = {part[1:-1]: place for place, part in enumerate(parts) if place not in words}
            pattern = _Pattern(read, read(parts), parameters, app)
            self._patterns.setdefault((len(parts), parts[0]), []).append(pattern)

    def find(self, path: str) -> tuple[App, dict[str, str]] | None:
        """The application and the path's parameters, or None."""
        parts = path[1:].split("/")
        for pattern in self._patterns.get((len(parts), parts[0]), ()):
            if pattern.read(parts) == pattern.words and "" not in parts:
                return pattern.app, {name: parts[place] for name, place in pattern.parameters.items()}
        return None
