"""An endpoint whose replicas are made, replaced and taken away by a controller and by the agent of a fake host, for a
`Plant`: what is changed of it, how far that is, and which engines run.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from bessemer.client import Client, an_object
from bessemer.core.errors import BessemerError
from bessemer.core.resource import Key
from bessemer.kinds.fleet.host import FAKE_TAINT
from tests.kinds.world import MODEL_SHA
from tests.store.make import PROJECT

ENDPOINT = Key("Endpoint", PROJECT, "chat")
SLOTS = (16, 14, 15)
"""What replicas are made of, one after the other."""
DRAIN_SECONDS = 2
TOLERATIONS = [{"key": FAKE_TAINT}]
_WHEEL = {"package": "m", "version": "1.0", "member": "m/m.gguf"}


@dataclass
class Rolling:
    """``admin`` is an administrator's client; ``logs`` is where engines say which processes they are."""

    admin: Client
    logs: Path
    replicas: int
    begun: int = 0

    async def want(self, *, context: int) -> None:
        """Make what an endpoint wants, and the endpoint."""
        spec = {
            "model": "smol",
            "flavor": "serve",
            "replicas": self.replicas,
            "slots": SLOTS[0],
            "contextTokens": context,
            "update": {"drainSeconds": DRAIN_SECONDS},
            "tolerations": TOLERATIONS,
        }
        for key, of in (
            (Key("Flavor", "", "serve"), {"cores": 1, "memory": "1Gi"}),
            (Key("Model", "", "smol"), {"source": {"wheel": _WHEEL}, "sha256": MODEL_SHA}),
            (ENDPOINT, spec),
        ):
            await self.admin.create(an_object(key, of))

    async def roll(self) -> None:
        """Change what replicas are made of; where nobody hears of it, they stay."""
        with suppress(BessemerError, OSError):
            await self.admin.patch(ENDPOINT, {"spec": {"slots": SLOTS[(self.begun + 1) % len(SLOTS)]}})
            self.begun += 1

    async def whole(self) -> bool:
        """Whether all replicas answer, are of the revision that is wanted, and no other is there; not where nobody
        says."""
        try:
            said: Mapping[str, Any] = orjson.loads((await self.admin.get(ENDPOINT)).body)
        except (BessemerError, OSError):
            return False
        status = said.get("status", {})
        there = status.get("replicas", ())
        new = status.get("updatedReplicas", 0) == self.replicas or not self.begun
        current = status.get("observedGeneration") == said["metadata"]["generation"]
        return current and new and len(there) == self.replicas and all(one["ready"] for one in there)

    def pids(self) -> list[int]:
        """Of the engines that run."""
        found = []
        for file in sorted(self.logs.glob("*.pid")):
            with suppress(FileNotFoundError):
                found.append(int(file.read_text() or "0"))
        return [pid for pid in found if pid and _is_engine(pid)]

    def kill(self, dice: random.Random) -> bool:
        """Kill one of them, where there is one."""
        pids = self.pids()
        if pids:
            os.kill(dice.choice(pids), signal.SIGKILL)
        return bool(pids)

    async def close(self) -> None:
        """Whatever runs still is nobody's any more."""
        for pid in self.pids():
            os.kill(pid, signal.SIGKILL)
        await self.admin.close()


def _is_engine(pid: int) -> bool:
    """Whether it is one still: a number comes back."""
    try:
        return b"tests.soak.engined" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
