"""Real agents: `bessemer agent` as a process of its own, real guests and engines, the real api over TLS."""

from __future__ import annotations

import asyncio
import os
import shlex
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import orjson
import pytest

from bessemer.core.ports import CONTROLLER, Stored
from bessemer.drivers.engine.doors import default_folder
from bessemer.drivers.guest.protocol import BuiltImage
from bessemer.gateway import upstream
from bessemer.gateway.tables import Replica
from bessemer.gateway.upstream import Link, Links
from bessemer.main.settings import DEFAULT_STATE
from tests.agent.process import ROOT
from tests.agent.site import HOST, Site, guest, heard_until, replica, secret, site, until_heard_after
from tests.drivers import micro_guest
from tests.drivers.engine.conftest import model_path

__all__ = ["model_path"]

pytestmark = pytest.mark.real
MEMORY = Path("/dev/shm")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    return micro_guest.build(tmp_path_factory.mktemp("image") / "micro-guest.tar")


@pytest.fixture
async def s(state_dir: Path) -> AsyncIterator[Site]:
    async with site(state_dir) as made:
        yield made


async def test_a_guest_is_adopted_after_kill_9(s: Site, image: BuiltImage) -> None:
    s.start(await s.token())
    await s.expect(s.reported)
    claim = await guest(s, image)
    await s.expect(lambda: s.in_phase(claim.key, "Running"), seconds=200)
    process, state, status = (
        await s.drivers.qemu.find(claim.uid),
        await s.drivers.qemu.state(claim.uid),
        await s.status(claim.key),
    )
    assert state is not None
    s.kill()
    await s.expect(lambda: not s.w.api.state.relay.holds(HOST))
    last = await heard_until(s)
    s.start()
    await s.expect(lambda: s.joined(2))
    await until_heard_after(s, last)
    assert await s.status(claim.key) == status, "there was nothing new to say"
    await _until_looked_at(s, claim)
    looked, same = await s.status(claim.key), ("phase", "phaseSince", "pid", "startedAt", "restarts", "detail")
    assert [looked.get(name) for name in same] == [status.get(name) for name in same]
    assert await s.drivers.qemu.find(claim.uid) == process
    after = await s.drivers.qemu.state(claim.uid)
    assert after is not None
    assert after.uptime_seconds > state.uptime_seconds
    await s.w.store.capacity.retire(claim.key, CONTROLLER)
    await s.expect(lambda: s.in_phase(claim.key, "Gone"))
    assert await s.drivers.qemu.uids() == frozenset()
    assert await s.drivers.disks.uids() == frozenset()


async def _until_looked_at(s: Site, claim: Stored) -> None:
    """Ask for something that touches no guest, and wait until the agent says that it has looked at this one for it."""
    intent = {**orjson.loads(claim.body)["spec"]["intent"], "restartPolicy": "Never"}
    amended = await s.w.store.capacity.amend(claim.key, intent, CONTROLLER)
    assert amended.generation > claim.generation

    async def observed() -> bool:
        return bool((await s.status(claim.key))["observedGeneration"] == amended.generation)

    await s.expect(observed)


@pytest.mark.parametrize("seconds", [8.0, pytest.param(120.0, marks=pytest.mark.long)])
async def test_guest_and_stream_go_on_without_the_api(
    s: Site, image: BuiltImage, model_path: Path, seconds: float, record_property: Callable[[str, object], None]
) -> None:
    """Guest and stream go on without the api; when it is back nothing was started anew and nothing else is said."""
    s.start(await s.token())
    await s.expect(s.reported)
    machine, engine = await guest(s, image), await replica(s, model_path)
    await s.expect(lambda: s.in_phase(engine.key, "Running"), seconds=200)
    await s.expect(lambda: s.in_phase(machine.key, "Running"), seconds=200)
    drivers, before = s.drivers, (await s.status(machine.key), await s.status(engine.key))
    found = await drivers.qemu.find(machine.uid), await drivers.engine.find(engine.uid)
    state = await drivers.qemu.state(machine.uid)
    await s.down()
    last, began = await heard_until(s), time.monotonic()
    tokens = await _stream(drivers.engine.door(engine.uid), secret(s, engine.uid), seconds=seconds)
    assert time.monotonic() - began >= seconds
    assert tokens > 20
    record_property("seconds away", int(seconds))
    record_property("events of the stream", tokens)
    after = await drivers.qemu.state(machine.uid)
    assert state is not None
    assert after is not None
    assert after.uptime_seconds > state.uptime_seconds + seconds * 0.8
    await s.up()
    await until_heard_after(s, last)
    assert (await drivers.qemu.find(machine.uid), await drivers.engine.find(engine.uid)) == found
    assert (await s.status(machine.key), await s.status(engine.key)) == before


async def _stream(door: str, key: str, *, seconds: float) -> int:
    """Stream completions at the engine's door for so long; the events seen."""
    seen, end = 0, time.monotonic() + seconds
    headers = {"Authorization": f"Bearer {key}"}
    body = {"messages": [{"role": "user", "content": "Count."}], "max_tokens": 400, "ignore_eos": True, "stream": True}
    while time.monotonic() < end:
        connector = aiohttp.UnixConnector(path=door)
        async with (
            aiohttp.ClientSession(connector=connector, headers=headers) as session,
            session.post("http://engine/v1/chat/completions", json=body) as response,
        ):
            assert response.status == 200
            async for line in response.content:
                seen += line.startswith(b"data: {")
    return seen


@dataclass(frozen=True)
class Apart:
    """A network namespace joined to this one by a cable, and how a process is started in it."""

    here: str
    there: str
    hidden: tuple[Path, ...]
    """Folders of the control plane and of this machine's own installations, empty for that process."""
    prefix: tuple[str, ...]


@pytest.fixture
def apart(tmp_path_factory: pytest.TempPathFactory, image: BuiltImage, model_path: Path) -> Iterator[Apart]:
    """Own network, own mounts: of all that the control plane has or keeps, nothing is there."""
    name = f"bsm{os.getpid() % 100000}"
    here, there = f"10.231.{os.getpid() % 250}.1", f"10.231.{os.getpid() % 250}.2"
    folders = [tmp_path_factory.getbasetemp(), model_path.parent, MEMORY, micro_guest.package_cache()]
    folders += [DEFAULT_STATE.expanduser(), ROOT / ".state", ROOT / ".cache"]
    hidden = tuple(folder for folder in folders if folder.is_dir())
    assert any(image.path.is_relative_to(folder) for folder in hidden)
    hide = [f"mount -t tmpfs none {shlex.quote(str(folder))}" for folder in hidden]
    _run("ip", "netns", "add", name)
    try:
        _run("ip", "link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b", "netns", name)
        _run("ip", "addr", "add", f"{here}/30", "dev", f"{name}a")
        _run("ip", "link", "set", f"{name}a", "up")
        _run("ip", "-n", name, "addr", "add", f"{there}/30", "dev", f"{name}b")
        for device in (f"{name}b", "lo"):
            _run("ip", "-n", name, "link", "set", device, "up")
        enter = ("nsenter", f"--net=/run/netns/{name}", "unshare", "--mount", "--propagation", "private", "--")
        yield Apart(here, there, hidden, (*enter, "sh", "-c", " && ".join([*hide, 'exec "$@"']), "sh"))
    finally:
        _run("ip", "netns", "del", name)
        subprocess.run(["ip", "link", "del", f"{name}a"], check=False, capture_output=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces of network and mounts need root")
async def test_a_second_host_shares_no_file_and_serves(
    apart: Apart, state_dir: Path, image: BuiltImage, model_path: Path
) -> None:
    """It boots the guest and serves the model there; the gateway reaches it through its doorway."""
    async with site(state_dir, address=apart.here, prefix=apart.prefix, door_host=apart.there) as s:
        s.start(await s.token())
        await s.expect(s.reported)
        assert _shared(s, apart) == []
        engine, machine = await replica(s, model_path), await guest(s, image)
        await s.expect(lambda: s.in_phase(engine.key, "Running"), seconds=200)
        address = (await s.status(engine.key))["address"]
        assert address.startswith(f"https://{apart.there}:")
        body = {"model": "chat", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 4}
        head = upstream.head("/v1/chat/completions", secret(s, engine.uid), stream=False)
        link = await Links(_gateway_tls(s), time.monotonic()).dial(Replica(engine.uid, "there", address))
        asked = Asked(asyncio.get_running_loop().create_future())
        link.ask(upstream.ask(head, b"r-1", body=orjson.dumps(body)), asked)
        async with asyncio.timeout(60):
            assert await asked.status == 200
        link.drop()
        await s.expect(lambda: s.in_phase(machine.key, "Running"), seconds=200)
        assert _shared(s, apart) == [], "what it runs came over the wire"
        for claim in (engine, machine):
            await s.w.store.capacity.retire(claim.key, CONTROLLER)
            await s.expect(lambda key=claim.key: s.in_phase(key, "Gone"))


@dataclass(frozen=True)
class Asked:
    """Hears of an answer."""

    status: asyncio.Future[int]

    def heard(self, link: Link) -> None:
        if not self.status.done():
            self.status.set_result(link.status)

    def lost(self, why: str) -> None:
        self.status.set_exception(ConnectionError(why))


def _shared(s: Site, apart: Apart) -> list[Path]:
    """What the agent sees in the folders that are hidden from it, but for the doors that its own engines have there."""
    assert s.agent is not None
    look = ("nsenter", f"--target={s.agent.pid}", "--mount", "find", *map(str, apart.hidden), "-mindepth", "1")
    found = [Path(line) for line in _run(*look).splitlines()]
    return [path for path in found if not path.is_relative_to(default_folder(s.directory))]


def _gateway_tls(s: Site) -> ssl.SSLContext:
    """As the gateway has it."""
    pair = s.w.ca.issue("system:gateway")
    file = s.state / "gateway.pem"
    file.write_bytes(pair.certificate + pair.key)
    context = ssl.create_default_context(cadata=s.w.ca.certificate.decode())
    context.check_hostname = False
    context.load_cert_chain(file)
    return context


def _run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout
