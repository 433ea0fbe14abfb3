"""A real agent as a process of its own, which knows nothing but its words (JSON, the one argument)."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from prometheus_client import CollectorRegistry

from bessemer.agent.agent import Agent, AgentSettings
from bessemer.agent.identity import Identity
from bessemer.agent.metrics import AgentMetrics
from bessemer.client import Client, connect
from bessemer.core.clock import SystemClock
from bessemer.drivers.llamacpp.doors import default_folder
from bessemer.drivers.llamacpp.doorway import HostDoorway
from bessemer.kinds import HOST_SIDES
from bessemer.main.hostdrivers import local_drivers


@dataclass
class Words:
    """What the process is told."""

    host: str
    directory: str
    url: str
    ca: str
    token: str = ""
    door_host: str = ""


def connector(url: str, ca: Path):  # type: ignore[no-untyped-def]
    def made(identity: Identity, *, anonymous: bool = False) -> Client:
        joined = not anonymous and identity.life() is not None
        return connect(url, ca=ca, cert=(identity.certificate_path, identity.key_path) if joined else None)

    return made


async def main(words: Words) -> None:
    directory = Path(words.directory)
    local = local_drivers(directory)
    doorway = HostDoorway(local.processes, default_folder(directory))
    await Agent(
        AgentSettings(
            host=words.host,
            directory=directory,
            token=words.token,
            heartbeat_seconds=1.0,
            door_host=words.door_host,
        ),
        connect=connector(words.url, Path(words.ca)),
        drivers=replace(local.for_agent(), doorway=doorway),
        sides=HOST_SIDES,
        clock=SystemClock(),
        metrics=AgentMetrics(CollectorRegistry()),
    ).run()


if __name__ == "__main__":
    asyncio.run(main(Words(**json.loads(sys.argv[1]))))
