"""Run as a process that wipes what is owed, and says before and after each thing that it does; it waits for a line
then, so that it can be killed right there."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from bessemer.drivers.wipe.records import FolderRecords
from bessemer.drivers.wipe.wipes import Wipes
from tests.drivers.wipe.loops import media


def said(name: str) -> None:
    sys.stdout.write(f"{name}\n")
    sys.stdout.flush()
    sys.stdin.readline()


async def main(folder: str, name: str) -> None:
    wipes = Wipes(FolderRecords(Path(folder) / "wipes"), media(name), on_call=said)
    while await wipes.step():
        pass
    sys.stdout.write("over\n")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
