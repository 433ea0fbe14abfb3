"""What is special about one sort of engine on this machine: how it is put behind its walls, and how its words are read.

Everything else (`real`) is the same for all of them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from bessemer.core.errors import DriverError
from bessemer.drivers.engine.doors import SOCKET
from bessemer.drivers.engine.protocol import EngineMetrics, EngineSpec, Sort
from bessemer.drivers.process.protocol import Confined

PYTHON, LIBRARIES, MODEL, ADAPTERS, DOOR = "/opt/python", "/opt/engine", "/opt/model", "/opt/adapters", "/run/door"
"""Where things are behind the walls."""

DOOR_SOCKET = f"{DOOR}/{SOCKET}"


class Recipe(Protocol):
    """One sort of engine as this machine has it."""

    @property
    def sort(self) -> Sort:
        """What it is called, serves and takes."""
        ...

    @property
    def runner(self) -> str:
        """The program's path behind the walls, by which a process is known to be of this sort."""
        ...

    def installed(self) -> bool:
        """Whether it is here."""
        ...

    def confined(self, spec: EngineSpec, *, door: Path, adapters: Path | None) -> Confined:
        """The engine's walls, and what it is told behind them. ``door`` is the folder of its socket; ``adapters`` holds
        those of the spec, where its sort loads more while it runs. Raises DriverError ``EngineMissing``."""
        ...

    def counters(self, numbers: Mapping[str, float]) -> EngineMetrics:
        """Out of the sums of its series, by name. Raises KeyError for one that is not there."""
        ...

    @property
    def listing(self) -> str:
        """Where it lists its adapters."""
        ...

    def names(self, listed: Any) -> Sequence[str]:
        """The adapters in that list. Raises KeyError, TypeError or ValueError for one that is none."""
        ...


@runtime_checkable
class LoadingRecipe(Recipe, Protocol):
    """A sort whose adapters come and go while it runs: the path and the body of the request that has it do so."""

    def loading(self, listed: Any, name: str) -> tuple[str, dict[str, Any]]: ...

    def unloading(self, listed: Any, name: str) -> tuple[str, dict[str, Any]]: ...


def interpreter(python: Path | None = None) -> tuple[str, tuple[Path, str]]:
    """The interpreter behind the walls, and the bind that brings it there: a whole prefix, or one file of ``/usr``.

    ``python`` is that of another environment; without it our own.
    """
    real = (python or Path(sys.executable)).resolve()
    base = Path(sys.base_prefix).resolve() if python is None else real.parent.parent
    if base == Path("/usr") or not real.is_relative_to(base):
        return str(real), (real, str(real))
    return f"{PYTHON}/{real.relative_to(base)}", (base, PYTHON)


def present(spec: EngineSpec) -> None:
    """Raises DriverError ``ContentMissing`` where a file of the model or of an adapter is not there."""
    for path in (*spec.files.values(), *(() if spec.files else (spec.model_path,))):
        if not path.exists():
            raise DriverError("ContentMissing", "the model's file is not on this host", internal=str(path))
    for adapter in spec.adapters:
        for path in adapter.files.values() if adapter.files else (adapter.path,):
            if not path.exists():
                message = f"adapter {adapter.name} is not on this host"
                raise DriverError("ContentMissing", message, internal=str(path))
