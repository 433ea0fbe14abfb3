"""``bessemer server`` as it is, but for what brings images: these are there at once, and no network is needed; and for
the address at which the others find it, which is that of a wire before it.

``python -m tests.failover.replica PARTS STATE ADDRESS`` runs until it is told to stop.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from bessemer.cli.outcome import status_of
from bessemer.cli.verbs import ServerOptions
from bessemer.main import control, identities
from bessemer.main.server import serve_parts
from tests.kinds.world import WorldImporter


class _Importer(WorldImporter):
    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    async def close(self) -> None:
        """There is nothing at work."""


def main(parts: str, state: str, address: str) -> int:
    control.ControlImporter = _Importer  # type: ignore[assignment,misc]
    identities.own_url = lambda _: address
    return status_of(lambda: serve_parts(ServerOptions(state=Path(state), parts=tuple(parts.split(",")))))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
