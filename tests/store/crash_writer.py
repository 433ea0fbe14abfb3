"""A process that writes until it is killed. It prints a line for each write that was acknowledged, once it was."""

from __future__ import annotations

import asyncio
import os
import sys

from bessemer.core.clock import SystemClock
from bessemer.core.errors import Taken
from bessemer.core.ports import CONTROLLER
from bessemer.store import Store, open_store
from tests.store.conftest import KEY, KINDS
from tests.store.make import ALICE, agent, body, claim, inventory, read

PARTS = ((1000, "", 0), (250, "", 0), (125, "1g.10gb", 6))
"""Whole devices, shares and instances."""


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def objects(store: Store, run: str, worker: int) -> None:
    for number in range(1_000_000):
        name = f"{run}-{worker}-{number}"
        stored = await store.objects.create(body("Thing", name, labels={"worker": str(worker)}), ALICE)
        say("put", name, stored.revision)
        stored = await store.objects.replace(body("Thing", name, spec={"size": number + 2}), ALICE)
        say("put", name, stored.revision)
        if number % 3 == 0:
            await store.objects.delete(stored.key, ALICE)
            say("gone", name, stored.revision)


async def claims(store: Store, run: str, worker: int) -> None:
    for number in range(1_000_000):
        try:
            part = PARTS[number // 8 % len(PARTS)]
            wanted = claim(f"{run}-{worker}-{number}", devices=(f"gpu-{number % 8}",), cores=1, part=part)
            (taken,) = await store.capacity.take([wanted], CONTROLLER)
        except Taken:
            continue
        say("claim", taken.uid, taken.revision)
        for phase in ("Running", "Gone"):
            said = read(await store.objects.get(taken.key)) | {"status": {"phase": phase}}
            await store.objects.replace(said, agent("h1"), part="status")
        await store.capacity.release(taken.key, CONTROLLER)
        say("released", taken.uid, taken.revision)


async def main(path: str, run: str) -> None:
    store = open_store(path, clock=SystemClock(), kinds=KINDS, seal_key=KEY)
    await store.capacity.declare("h1", inventory())
    work = [objects(store, run, worker) for worker in range(8)] + [claims(store, run, worker) for worker in range(4)]
    await asyncio.gather(*work)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
