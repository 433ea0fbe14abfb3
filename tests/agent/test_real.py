"""Real agents: a process of their own, real guests and engines, the real api over TLS."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from bessemer.api import Limits, listen, make_app, serve, server_tls
from bessemer.core.ports import CONTROLLER, Stored
from bessemer.core.resource import Key
from bessemer.core.tokens import replica_secret
from bessemer.core.units import MIB
from bessemer.core.values import Allocation, ClaimSpec, Inventory, NumaNode, WorkloadRef
from bessemer.drivers.guest.protocol import BuiltImage
from bessemer.gateway.upstream import Ask, ask
from bessemer.kinds.compute.instance.spec import InstanceIntent
from bessemer.kinds.inference.endpoint.spec import EndpointIntent
from bessemer.main.hostdrivers import LocalDrivers, local_drivers
from tests.api.world import World, instance, named, world
from tests.drivers import micro_guest
from tests.drivers.llamacpp.conftest import model_path

__all__ = ["model_path"]

pytestmark = pytest.mark.real
HOST = "real-1"
ROOT = Path(__file__).parents[2]
ROOM = NumaNode(id=0, cores=2, threads=4, memory_bytes=8 << 30)


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    return micro_guest.build(tmp_path_factory.mktemp("image") / "micro-guest.tar")


@dataclass
class Site:
    """A control plane that can be stopped and started on one address, and an agent's process."""

    w: World
    directory: Path
    address: str
    prefix: tuple[str, ...] = ()
    door_host: str = ""
    port: int = 0
    serving: asyncio.Task[None] | None = None
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    agent: subprocess.Popen[bytes] | None = None

    @property
    def drivers(self) -> LocalDrivers:
        return local_drivers(self.directory)

    @property
    def log(self) -> Path:
        return self.directory.parent / "agent.log"

    def joined(self, starts: int) -> bool:
        """Whether so many starts of the agent have found the api."""
        return self.log.read_text().count(" joined ") >= starts

    async def up(self) -> None:
        """Serve on the address as before."""
        bound = listen(self.address, self.port)
        self.port = bound.getsockname()[1]
        pair = self.w.ca.issue("api", sans=[self.address])
        ready, self.stop = asyncio.Event(), asyncio.Event()
        app = make_app(self.w.api.state.context)
        tls = server_tls(pair, self.w.ca.certificate)
        serving = serve(app, on=bound, tls=tls, stop=self.stop, ready=ready.set, close=app.close)
        self.serving = asyncio.create_task(serving)
        await ready.wait()

    async def down(self) -> None:
        self.stop.set()
        if self.serving is not None:
            await self.serving

    async def token(self) -> str:
        await self.w.create("/apis/bessemer.dev/v1alpha1/hosts", named(HOST))
        return str((await self.w.create(f"/apis/bessemer.dev/v1alpha1/hosts/{HOST}/token", {}))["token"])

    def start(self, token: str = "") -> None:
        """The agent's process; its words are all that it shares with us."""
        ca = self.directory.parent / f"{HOST}-ca.crt"
        ca.write_bytes(self.w.ca.certificate)
        words = {
            "host": HOST,
            "directory": str(self.directory),
            "url": f"https://{self.address}:{self.port}",
            "ca": str(ca),
            "token": token,
            "door_host": self.door_host,
        }
        with self.log.open("ab") as log:
            self.agent = subprocess.Popen(
                [*self.prefix, sys.executable, "-m", "tests.agent.process", json.dumps(words)],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self) -> None:
        """kill -9."""
        if self.agent is not None:
            os.killpg(self.agent.pid, signal.SIGKILL)
            self.agent.wait()
            self.agent = None

    async def clean(self) -> None:
        """Leave nothing of the host on this machine."""
        self.kill()
        drivers = self.drivers
        for engine in await drivers.engine.running():
            await drivers.engine.stop(engine.uid)
        for uid in await drivers.qemu.uids():
            await drivers.qemu.remove(uid)

    async def expect(self, holds: Callable[[], Any], *, seconds: float = 90.0) -> Any:
        end = time.monotonic() + seconds
        while True:
            found = holds()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            assert self.agent is None or self.agent.poll() is None, self.log.read_text()[-4000:]
            assert time.monotonic() < end, "it never came true: " + self.log.read_text()[-4000:]
            await asyncio.sleep(0.1)

    async def status(self, key: Key) -> dict[str, Any]:
        found: dict[str, Any] = orjson.loads((await self.w.store.objects.get(key)).body)["status"]
        return found

    async def in_phase(self, key: Key, phase: str) -> bool:
        return (await self.status(key)).get("phase") == phase

    async def reported(self) -> bool:
        body = orjson.loads((await self.w.store.objects.get(Key("Host", "", HOST))).body)
        return bool(body.get("status", {}).get("report"))

    async def guest(self, image: BuiltImage) -> Stored:
        """A Claim of an Instance."""
        self.w.content[image.digest] = image.path
        await self.w.create("/apis/bessemer.dev/v1alpha1/namespaces/acme--lab/instances", instance("vm"))
        intent = InstanceIntent(image=image.digest, cpus=1, memory_bytes=192 * MIB, disk_bytes=64 * MIB, hostname="vm")
        return await self._take("Instance", "vm", intent.dump(), memory_bytes=192 * MIB)

    async def engine(self, model: Path) -> Stored:
        """A Claim of a replica of an Endpoint."""
        digest = "sha256:" + await asyncio.to_thread(lambda: sha256(model.read_bytes()).hexdigest())
        self.w.content[digest] = model
        body = named("chat", model="smol", flavor="small", replicas=1)
        await self.w.create("/apis/bessemer.dev/v1alpha1/namespaces/acme--lab/endpoints", body)
        intent = EndpointIntent(
            model=digest, alias="chat", slots=1, context_tokens=1024, cores_milli=1000, memory_bytes=700 * MIB
        )
        return await self._take("Endpoint", "chat", intent.dump(), memory_bytes=700 * MIB)

    async def _take(self, kind: str, name: str, intent: dict[str, Any], *, memory_bytes: int) -> Stored:
        await self.w.store.capacity.declare(HOST, Inventory(numa=[ROOM]), overcommit_milli=4000)
        owner = await self.w.store.objects.get(Key(kind, "acme--lab", name))
        spec = ClaimSpec(
            host=HOST,
            tenant="acme",
            workload=WorkloadRef(kind=kind, name=name, uid=owner.uid),
            allocations=[Allocation(numa_node=0, milli_cores=1000, memory_bytes=memory_bytes)],
            intent=intent,
        )
        key = Key("Claim", "acme--lab", f"{kind.lower()}-{name}-0")
        return (await self.w.store.capacity.take([(key, spec, {})], CONTROLLER))[0]


@asynccontextmanager
async def site(directory: Path, *, address: str = "127.0.0.1", **how: Any) -> AsyncIterator[Site]:
    async with world(limits=Limits(login_burst=100)) as w:
        made = Site(w, directory, address, **how)
        await made.up()
        try:
            yield made
        finally:
            await made.clean()
            await made.down()


@pytest.fixture
async def s(state_dir: Path) -> AsyncIterator[Site]:
    async with site(state_dir / "agent") as made:
        yield made


async def test_a_guest_is_adopted_after_kill_9(s: Site, image: BuiltImage) -> None:
    s.start(await s.token())
    await s.expect(s.reported)
    claim = await s.guest(image)
    await s.expect(lambda: s.in_phase(claim.key, "Running"), seconds=200)
    process, state, status = (
        await s.drivers.qemu.find(claim.uid),
        await s.drivers.qemu.state(claim.uid),
        await s.status(claim.key),
    )
    assert state is not None
    s.kill()
    s.start()
    await s.expect(lambda: s.joined(2))
    await s.expect(lambda: _beats(s, time.time()))
    assert await s.drivers.qemu.find(claim.uid) == process
    after = await s.drivers.qemu.state(claim.uid)
    assert after is not None
    assert after.uptime_seconds > state.uptime_seconds
    assert await s.status(claim.key) == status
    await s.w.store.capacity.retire(claim.key, CONTROLLER)
    await s.expect(lambda: s.in_phase(claim.key, "Gone"))
    assert await s.drivers.qemu.uids() == frozenset()
    assert await s.drivers.disks.uids() == frozenset()


@pytest.mark.parametrize("seconds", [20.0, pytest.param(120.0, marks=pytest.mark.long)])
async def test_guest_and_stream_go_on_without_the_api(
    s: Site, image: BuiltImage, model_path: Path, seconds: float, record_property: Callable[[str, object], None]
) -> None:
    """Guest and stream go on without the api; when it is back nothing was started anew and nothing else is said."""
    s.start(await s.token())
    await s.expect(s.reported)
    guest, replica = await s.guest(image), await s.engine(model_path)
    await s.expect(lambda: s.in_phase(replica.key, "Running"), seconds=200)
    await s.expect(lambda: s.in_phase(guest.key, "Running"), seconds=200)
    drivers, before = s.drivers, (await s.status(guest.key), await s.status(replica.key))
    found = await drivers.qemu.find(guest.uid), await drivers.engine.find(replica.uid)
    state = await drivers.qemu.state(guest.uid)
    await s.down()
    began = time.monotonic()
    tokens = await _stream(drivers.engine.door(replica.uid), _secret(s, replica.uid), seconds=seconds)
    assert time.monotonic() - began >= seconds
    assert tokens > 20
    record_property("seconds away", int(seconds))
    record_property("events of the stream", tokens)
    after = await drivers.qemu.state(guest.uid)
    assert state is not None
    assert after is not None
    assert after.uptime_seconds > state.uptime_seconds + seconds * 0.8
    await s.up()
    await s.expect(lambda: _beats(s, time.time()))
    assert (await drivers.qemu.find(guest.uid), await drivers.engine.find(replica.uid)) == found
    assert (await s.status(guest.key), await s.status(replica.key)) == before


async def _beats(s: Site, now: float) -> bool:
    """Whether the host has been heard in the last second."""
    leases = await s.w.store.leases.held(f"host/{HOST}")
    return any(lease.expires_at > now + 44.0 for lease in leases)


def _secret(s: Site, uid: str) -> str:
    return replica_secret(s.w.api.state.context.gateway_key, uid)


async def _stream(door: str, secret: str, *, seconds: float) -> int:
    """Stream completions at the engine's door for so long; the events seen."""
    seen, end = 0, time.monotonic() + seconds
    headers = {"Authorization": f"Bearer {secret}"}
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
    hidden: Path
    prefix: tuple[str, ...]


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[Apart]:
    """Own network, own mounts; the control plane's files are out of sight there."""
    name = f"bsm{os.getpid() % 100000}"
    here, there = f"10.231.{os.getpid() % 250}.1", f"10.231.{os.getpid() % 250}.2"
    hidden = tmp_path / "control"
    hidden.mkdir()
    hide = f'mount -t tmpfs none {hidden} && mount -t tmpfs none /dev/shm && exec "$@"'
    _run("ip", "netns", "add", name)
    try:
        _run("ip", "link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b", "netns", name)
        _run("ip", "addr", "add", f"{here}/30", "dev", f"{name}a")
        _run("ip", "link", "set", f"{name}a", "up")
        _run("ip", "-n", name, "addr", "add", f"{there}/30", "dev", f"{name}b")
        for device in (f"{name}b", "lo"):
            _run("ip", "-n", name, "link", "set", device, "up")
        enter = ("nsenter", f"--net=/run/netns/{name}", "unshare", "--mount", "--propagation", "private", "--")
        yield Apart(here, there, hidden, (*enter, "sh", "-c", hide, "sh"))
    finally:
        _run("ip", "netns", "del", name)
        subprocess.run(["ip", "link", "del", f"{name}a"], check=False, capture_output=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces of network and mounts need root")
async def test_a_second_host_shares_no_file_and_serves(
    apart: Apart, state_dir: Path, image: BuiltImage, model_path: Path
) -> None:
    """It boots the guest and serves the model there; the gateway reaches it through its doorway."""
    model = apart.hidden / "model.gguf"
    await asyncio.to_thread(shutil.copyfile, model_path, model)
    directory = state_dir / "agent"
    async with site(directory, address=apart.here, prefix=apart.prefix, door_host=apart.there) as s:
        s.start(await s.token())
        await s.expect(s.reported)
        assert s.agent is not None
        seen = _run("nsenter", f"--target={s.agent.pid}", "--mount", "ls", str(apart.hidden), "/dev/shm")
        assert "model.gguf" not in seen
        assert "bessemer-store" not in seen
        replica, guest = await s.engine(model), await s.guest(image)
        await s.expect(lambda: s.in_phase(replica.key, "Running"), seconds=200)
        address = (await s.status(replica.key))["address"]
        assert address.startswith(f"https://{apart.there}:")
        body = {"model": "chat", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 4}
        request = Ask(
            path="/v1/chat/completions",
            body=orjson.dumps(body),
            secret=_secret(s, replica.uid),
            request_id="r-1",
        )
        answer = await ask(address, request, tls=_gateway_tls(s, directory.parent))
        assert answer.status == 200
        answer.close()
        await s.expect(lambda: s.in_phase(guest.key, "Running"), seconds=200)
        for claim in (replica, guest):
            await s.w.store.capacity.retire(claim.key, CONTROLLER)
            await s.expect(lambda key=claim.key: s.in_phase(key, "Gone"))


def _gateway_tls(s: Site, directory: Path) -> ssl.SSLContext:
    """As the gateway has it."""
    pair = s.w.ca.issue("system:gateway")
    file = directory / "gateway.pem"
    file.write_bytes(pair.certificate + pair.key)
    context = ssl.create_default_context(cadata=s.w.ca.certificate.decode())
    context.check_hostname = False
    context.load_cert_chain(file)
    return context


def _run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout
