"""A real host under test: `bessemer agent` as a process of its own, against a control plane in this one, over TLS."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson

from bessemer.api import Limits, listen, make_app, serve, server_tls
from bessemer.core.asking import Allocation
from bessemer.core.hosts import Inventory, NumaNode
from bessemer.core.ports import CONTROLLER, Stored
from bessemer.core.resource import Key
from bessemer.core.tokens import replica_secret
from bessemer.core.units import MIB
from bessemer.core.values import ClaimSpec, WorkloadRef
from bessemer.drivers.guest.protocol import BuiltImage
from bessemer.kinds.compute.instance.spec import InstanceIntent
from bessemer.kinds.inference.endpoint.spec import EndpointIntent
from tests.agent.process import RealAgent
from tests.api.world import World, instance, named, world
from tests.ports import keeper

HOST = "real-1"
ROOM = NumaNode(id=0, cores=2, threads=4, memory_bytes=8 << 30)


@dataclass
class Site(RealAgent):
    """A control plane that can be stopped and started on one address, and an agent that knows nothing but its words:
    where the api is, whom to trust, its name and its token."""

    w: World
    address: str
    door_host: str = ""
    port: int = 0
    kept: socket.socket | None = None
    serving: asyncio.Task[None] | None = None
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def server(self) -> str:
        return f"https://{self.address}:{self.port}"

    def joined(self, starts: int) -> bool:
        """Whether so many starts of the agent have found the api."""
        return sum(b'"event":"joined"' in line for line in self.log.read_bytes().splitlines()) >= starts

    async def up(self) -> None:
        """Serve on the address as before."""
        if self.kept is None:
            # While nobody listens there, the kernel would give the port to whoever asks for a free one.
            self.kept = keeper(self.address)
            self.port = self.kept.getsockname()[1]
        bound = listen(self.address, self.port)
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

    async def end(self) -> None:
        """Let go of the address."""
        await self.down()
        if self.kept is not None:
            self.kept.close()

    async def token(self) -> str:
        await self.w.create("/apis/bessemer.dev/v1alpha1/hosts", named(HOST))
        return str((await self.w.create(f"/apis/bessemer.dev/v1alpha1/hosts/{HOST}/token", {}))["token"])

    def start(self, token: str = "") -> None:
        """`bessemer agent` on the one host."""
        words = f"--token={token}", f"--door-host={self.door_host}"
        self.run(*words, name=HOST, server=self.server, ca=self.w.ca.certificate)

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


async def heard_until(s: Site) -> float:
    """Until when the host's last beat holds, seconds since the epoch; 0 before the first."""
    leases = await s.w.store.leases.held(f"host/{HOST}")
    return max((lease.expires_at for lease in leases), default=0.0)


async def until_heard_after(s: Site, last: float) -> None:
    """Wait for a beat that came after the one that held until ``last``."""

    async def later() -> bool:
        return await heard_until(s) > last + 0.1  # what is answered is off by the time that the two clocks are read in

    await s.expect(later)


def secret(s: Site, uid: str) -> str:
    """What a replica's engine asks of the gateway."""
    return replica_secret(s.w.api.state.context.gateway_key, uid)


async def guest(s: Site, image: BuiltImage) -> Stored:
    """A Claim of an Instance."""
    s.w.content[image.digest] = image.path
    await s.w.create("/apis/bessemer.dev/v1alpha1/namespaces/acme--lab/instances", instance("vm"))
    intent = InstanceIntent(image=image.digest, cpus=1, memory_bytes=192 * MIB, disk_bytes=64 * MIB, hostname="vm")
    return await _take(s, "Instance", name="vm", intent=intent.dump(), memory_bytes=192 * MIB)


async def replica(s: Site, model: Path) -> Stored:
    """A Claim of a replica of an Endpoint."""
    digest = "sha256:" + await asyncio.to_thread(lambda: sha256(model.read_bytes()).hexdigest())
    s.w.content[digest] = model
    body = named("chat", model="smol", flavor="small", replicas=1)
    await s.w.create("/apis/bessemer.dev/v1alpha1/namespaces/acme--lab/endpoints", body)
    intent = EndpointIntent(
        model=digest, alias="chat", slots=1, context_tokens=1024, cores_milli=1000, memory_bytes=700 * MIB
    )
    return await _take(s, "Endpoint", name="chat", intent=intent.dump(), memory_bytes=700 * MIB)


async def _take(s: Site, kind: str, *, name: str, intent: dict[str, Any], memory_bytes: int) -> Stored:
    await s.w.store.capacity.declare(HOST, Inventory(numa=[ROOM]), overcommit_milli=4000)
    owner = await s.w.store.objects.get(Key(kind, "acme--lab", name))
    spec = ClaimSpec(
        host=HOST,
        tenant="acme",
        workload=WorkloadRef(kind=kind, name=name, uid=owner.uid),
        allocations=[Allocation(numa_node=0, milli_cores=1000, memory_bytes=memory_bytes)],
        intent=intent,
    )
    key = Key("Claim", "acme--lab", f"{kind.lower()}-{name}-0")
    return (await s.w.store.capacity.take([(key, spec, {})], CONTROLLER))[0]


@asynccontextmanager
async def site(state: Path, *, address: str = "127.0.0.1", **how: Any) -> AsyncIterator[Site]:
    """A control plane that serves; the agent is not started yet."""
    async with world(limits=Limits(login_burst=100)) as w:
        made = Site(state, w, address, **how)
        try:
            await made.up()
            yield made
        finally:
            await made.clean()
            await made.end()
