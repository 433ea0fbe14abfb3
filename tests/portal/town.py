"""A town to look at: the real api over a real store on TLS, the portal before it, a fleet and work written straight
through the ports, and a gateway that answers like a model. What a control plane does by itself, tests do by hand."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from bessemer.api import listen, server_tls
from bessemer.api.ca import Pair, Peer, peer_of
from bessemer.client.paths import api_version
from bessemer.core.asking import Allocation, ReasonView
from bessemer.core.clock import SystemClock, rfc3339
from bessemer.core.frames import Stream
from bessemer.core.hosts import Inventory, NumaNode
from bessemer.core.ports import CONTROLLER, Writer
from bessemer.core.resource import Key
from bessemer.core.units import GIB
from bessemer.core.values import ClaimSpec, Placement, UsageBatch, UsageRecord, WorkloadRef
from bessemer.drivers.engine.fake_server import FakeModel
from bessemer.drivers.inspect.fake import FakeInspect
from bessemer.drivers.weights.fake import SMALL
from bessemer.kinds.fleet.host import FAKE_TAINT
from bessemer.portal import PortalSettings, make_portal
from tests.api.test_streams import dialled
from tests.api.world import BASE, PASSWORD, Served, World, hashed, named, served, tenant, world

AWAY_SECONDS = 3 * 3600.0
REAL = "workshop"
LAB, SHOW = "acme--research", "foundry--showcase"
VM = Key("Instance", LAB, "vm-train-3")
CHAT = Key("Endpoint", LAB, "smol")
TENANTS = ("acme", "rival", "nordlab", "kelvin", "osprey", "foundry")
WHY_REAL = Placement(
    fitting=1, reasons=[ReasonView(code="Tainted", hosts=24, text="tainted bessemer.dev/fake, which is not tolerated")]
)
WHY_FAKE = Placement(
    fitting=19,
    score={"spansNumaNodes": 0, "devicesLeftOnSwitch": 0, "devicesLeft": 0},
    reasons=[ReasonView(code="ShortOfDevices", hosts=6, text="short of 8 H100-SXM5-80GB (at most 6 free)")],
)
ANSWER = (
    "Air blown through molten pig iron burns off its carbon and silicon, and the heat of that burning keeps the iron "
    "liquid without any other fuel. What is left is steel, made in twenty minutes instead of days."
)


BOOT_LOG = """\
[    0.000000] Linux version 6.1.0-31-amd64 (debian-kernel@lists.debian.org)
[    0.000000] Command line: console=ttyS0 panic=1 quiet=0
[    0.104118] smpboot: CPU0: QEMU TCG CPU version 2.5+
[    0.412093] smp: Brought up 1 node, 2 CPUs
[    0.588301] virtio-pci 0000:00:03.0: enabling device (0000 -> 0003)
[    0.906950] virtio_blk virtio2: [vda] 2097152 512-byte logical blocks (1.07 GB/1.00 GiB)
[    1.221870] virtio_net virtio1 eth0: 52:54:00:12:34:56
[    1.618021] Run /init as init process
\x1b[1mbessemer micro-guest\x1b[0m: seed found, host name vm-train-3
udhcpc: lease of 10.0.2.15 obtained from 10.0.2.2
"""


class ShiftedClock(SystemClock):
    """The machine's clock, some seconds behind: a town is furnished in its own past, then caught up. Where that past
    and the next hour lie in two months, of which each has an invoice of its own, it stays behind."""

    behind = 0.0

    def __init__(self) -> None:
        self._always = AWAY_SECONDS if _is_turn_of_month(super().now()) else 0.0

    def now(self) -> float:
        return super().now() - self.behind - self._always


def _is_turn_of_month(now: float) -> bool:
    """Whether a month began in the last two hours, or ends within the next."""
    months = {datetime.fromtimestamp(now + hours * 3600, UTC).month for hours in (-2, 1)}
    return len(months) > 1


class StubGateway:
    """Speaks OpenAI's events for whoever shows a key that the store knows. ``pause`` is between two tokens, ``heads``
    are what it says of its own."""

    def __init__(self, w: World) -> None:
        self.world = w
        self.pause = 0.002
        self.asked: list[dict[str, Any]] = []
        self.stopped = 0
        self.heads: dict[str, str] = {}
        paths = {"/v1/chat/completions": self.answer, "/v1/embeddings": self.embed}
        self.app = Starlette(routes=[Route(path, answer, methods=["POST"]) for path, answer in paths.items()])

    async def answer(self, request: Request) -> Response:
        body, key = await self._known(request)
        if key is None:
            return JSONResponse({"error": {"message": "Incorrect API key provided: bsk_.", "code": "no"}}, 401)
        events = self.tokens(body, key)
        return StreamingResponse(events, media_type="text/event-stream", headers=self.heads)

    async def embed(self, request: Request) -> Response:
        body, key = await self._known(request)
        if key is None:
            return JSONResponse({"error": {"message": "Incorrect API key provided: bsk_.", "code": "no"}}, 401)
        return JSONResponse(self.vectors(body))

    def vectors(self, body: dict[str, Any]) -> dict[str, Any]:
        """What a text becomes."""
        return FakeModel(body["model"], embeds=True).embed(body)

    async def _known(self, request: Request) -> tuple[dict[str, Any], str | None]:
        """What is asked, and by which key; none that the store knows."""
        import hashlib

        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        digest = hashlib.sha256(token.encode()).hexdigest()
        page = await self.world.store.objects.list(_scope("ApiKey"))
        keys = [orjson.loads(item.body) for item in page.items]
        key = next((k for k in keys if k.get("status", {}).get("digest") == digest), None)
        body: dict[str, Any] = await request.json()
        if key is None:
            return body, None
        self.asked.append({**body, "key": key["metadata"]["name"]})
        return body, str(key["metadata"]["name"])

    async def tokens(self, body: Mapping[str, Any], key: str) -> AsyncIterator[bytes]:
        words = ANSWER.split(" ")
        done = False
        try:
            for word in words:
                await asyncio.sleep(self.pause)
                yield _event({"choices": [{"index": 0, "delta": {"content": f"{word} "}, "finish_reason": None}]})
            yield _event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            usage = {"prompt_tokens": 17, "completion_tokens": len(words), "total_tokens": 17 + len(words)}
            yield _event({"choices": [], "usage": usage})
            yield b"data: [DONE]\n\n"
            done = True
        finally:
            self.stopped += not done


class SerialPort:
    """What the guest of every instance writes: a boot's log, then whatever a test lets it ``say``."""

    def __init__(self) -> None:
        self._listeners: set[asyncio.Queue[bytes]] = set()

    def say(self, text: str) -> None:
        for listener in self._listeners:
            listener.put_nowait(text.encode())

    async def accept(self, stream: Stream) -> None:
        """An agent's answer to a reader of the log."""
        lines: asyncio.Queue[bytes] = asyncio.Queue()
        self._listeners.add(lines)
        talking = asyncio.ensure_future(self._talk(stream, lines))
        try:
            await stream.write(BOOT_LOG.replace("\n", "\r\n").encode())
            while await stream.read():
                pass
        finally:
            self._listeners.discard(lines)
            talking.cancel()
            await asyncio.gather(talking, return_exceptions=True)

    async def _talk(self, stream: Stream, lines: asyncio.Queue[bytes]) -> None:
        while True:
            await stream.write(await lines.get())


def _event(body: Mapping[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(body) + b"\n\n"


def _scope(kind: str) -> Any:
    from bessemer.core.ports import Scope

    return Scope(kind=kind)


@dataclass
class Town:
    """``url`` is the portal's. Everything is written through ``w.store`` as a control plane would."""

    w: World
    clock: ShiftedClock
    api: Served
    portal: Starlette
    url: str
    gateway: StubGateway
    serial: SerialPort
    spool: int = 1

    async def put(self, body: Mapping[str, Any], **status: Any) -> str:
        """Make an object, and write its status. Answers its uid."""
        stored = await self.w.store.objects.create({"apiVersion": api_version(body["kind"]), **body}, CONTROLLER)
        if status:
            await self.status(stored.key, **status)
        return stored.uid

    async def status(self, key: Key, **status: Any) -> None:
        """Change fields of an object's status, as its controller does."""
        stored = await self.w.store.objects.get(key)
        body = orjson.loads(stored.body)
        body["status"] = {**body.get("status", {}), **status}
        await self.w.store.objects.replace(body, CONTROLLER, part="status")

    async def phase(self, key: Key, phase: str, *, ready: bool = False, message: str = "", **status: Any) -> None:
        """Move a workload to a phase, with its history, as the loop does."""
        body = orjson.loads((await self.w.store.objects.get(key)).body)
        now = self.w.clock.now()
        old = body.get("status", {})
        mark = {"phase": phase, "at": _milli(now)}
        conditions = [_condition(self, "Ready", ready, reason=phase, message=message or f"The phase is {phase}.")]
        history = [*old.get("history", ()), mark]
        told = {"phase": phase, "phaseSince": rfc3339(now), "conditions": conditions, "history": history}
        await self.status(key, **told, message=message, **status)
        await self.w.store.events.emit(key, body["metadata"]["uid"], phase, message or f"The phase is {phase}.")

    async def claim(self, workload: Key, host: str, *, replica: int = 0, **wants: Any) -> str:
        """Take a part of a host for a workload. ``devices``, ``milli``, ``memory``, ``fake``."""
        owner = await self.w.store.objects.get(workload)
        node = wants.get("node", 0)
        spec = ClaimSpec(
            host=host,
            tenant=workload.namespace.partition("--")[0],
            workload=WorkloadRef(kind=workload.kind, name=workload.name, uid=owner.uid, replica=replica),
            devices=list(wants.get("devices", ())),
            device_model="H100-SXM5-80GB" if wants.get("devices") else "",
            allocations=[
                Allocation(numa_node=node, milli_cores=wants.get("milli", 1000), memory_bytes=wants.get("memory", GIB))
            ],
            fake=wants.get("fake", False),
            placement=WHY_FAKE if wants.get("fake") else WHY_REAL,
        )
        key = Key("Claim", workload.namespace, f"{workload.kind.lower()}-{workload.name}-{replica}")
        await self.w.store.capacity.take([(key, spec, {})], CONTROLLER)
        return key.name

    async def claim_phase(self, project: str, name: str, phase: str, **status: Any) -> None:
        """What a host's agent says of a claim."""
        stored = await self.w.store.objects.get(Key("Claim", project, name))
        body = orjson.loads(stored.body)
        body["status"] = {**body.get("status", {}), "phase": phase, **status}
        agent = Writer("agent", body["spec"]["host"])
        await self.w.store.objects.replace(body, agent, part="status")

    async def used(self, workload: Key, *, tokens: Sequence[tuple[int, int]], key: str = "app") -> None:
        """Requests that the gateway settled: (input, output) tokens each."""
        owner = await self.w.store.objects.get(workload)
        records = [
            UsageRecord(
                at=int(self.w.clock.now()),
                request_id=f"r{self.spool + i}",
                project=workload.namespace,
                endpoint=workload.name,
                endpoint_uid=owner.uid,
                api_key=key,
                model="smollm2-135m",
                status=200,
                input_tokens=put,
                output_tokens=out,
                latency_ms=120 + 9 * put // 10 + 14 * out,
                first_token_ms=120 + 9 * put // 10,
            )
            for i, (put, out) in enumerate(tokens)
        ]
        batch = UsageBatch(gateway_uid="gw", spool_uid="s", first_sequence=self.spool, records=records)
        self.spool = await self.w.store.ledger.settle(batch) + 1


def _milli(seconds: float) -> str:
    whole = rfc3339(seconds).removesuffix("Z")
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"


def _condition(t: Town, kind: str, value: bool, *, reason: str, message: str) -> dict[str, Any]:
    return {
        "type": kind,
        "status": "True" if value else "False",
        "reason": reason,
        "message": message,
        "lastTransitionTime": rfc3339(t.clock.now()),
    }


async def _register(t: Town, host: str) -> Pair:
    """A certificate for the agent of a host that stands there already."""
    pair = t.w.ca.issue(f"system:agent:{host}", groups=["system:agents"])
    found = peer_of(x509.load_pem_x509_certificate(pair.certificate).public_bytes(serialization.Encoding.DER))
    assert isinstance(found, Peer)
    await t.status(Key("Host", "", host), keyFingerprint=found.fingerprint)
    return pair


# --- serving ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def https(app: ASGIApp, tls: ssl.SSLContext, bound: socket.socket | None = None) -> AsyncIterator[str]:
    """Serve an application on a free port of loopback, or on a socket that is bound already."""
    bound = bound or listen("127.0.0.1", 0)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        ssl_context_factory=lambda _config, _default: tls,
        timeout_graceful_shutdown=1,
        lifespan="on",
    )
    server = uvicorn.Server(config)
    task = asyncio.ensure_future(server._serve(sockets=[bound]))
    async with asyncio.timeout(30):
        while not server.started:
            await asyncio.sleep(0.01)
    try:
        yield f"https://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def town(directory: Path, *, fake_hosts: int = 24) -> AsyncIterator[Town]:
    """Built and furnished."""
    async with AsyncExitStack() as stack:
        clock = ShiftedClock()
        clock.behind = 3600.0
        w = await stack.enter_async_context(world(clock))
        api = await stack.enter_async_context(served(w, directory))
        tls = server_tls(w.ca.issue("portal", sans=["127.0.0.1", "localhost"]), w.ca.certificate)
        tls.verify_mode = ssl.CERT_NONE
        portal = w.ca.issue("system:portal")
        gateway = StubGateway(w)
        gateway_url = await stack.enter_async_context(https(gateway.app, tls))
        settings = PortalSettings(
            api_url=api.url,
            gateway_url=gateway_url,
            ca_path=api.path("ca.pem", w.ca.certificate),
            certificate=(api.path("portal.crt", portal.certificate), api.path("portal.key", portal.key)),
            factory="Example Factory",
            version="0.1",
        )
        app = make_portal(settings, clock=clock)
        url = await stack.enter_async_context(https(app, tls))
        made = Town(w, clock, api, app, url, gateway, SerialPort())
        await furnish(made, fake_hosts=fake_hosts)
        clock.behind = 0.0
        await stack.enter_async_context(dialled(api, await _register(made, REAL), REAL, made.serial.accept))
        yield made


# --- what stands in it ------------------------------------------------------------------------------------------


async def furnish(t: Town, *, fake_hosts: int) -> None:
    """People, hosts, offers, and work in every state that a page shows; the clock catches up as it goes."""
    await _people(t)
    await _offers(t)
    await _hosts(t, fake_hosts)
    if fake_hosts >= 24:
        await _crowd(t)
    t.clock.behind = 3300.0
    await _measured(t)
    await _serving(t)
    t.clock.behind = 2520.0
    await _waiting(t)
    t.clock.behind = 380.0
    await _stuck(t)
    if fake_hosts >= 24:
        await _trouble(t)
    t.clock.behind = 14.2
    await _booting(t)


async def _people(t: Town) -> None:
    w = t.w
    for number, name in enumerate(TENANTS, 1):
        if name != "acme":
            body = tenant(name, **({"rita": "member"} if name == "rival" else {}))
            await w.create(f"{BASE}/tenants", {**body, "spec": {**body["spec"], "tolerations": [{"key": FAKE_TAINT}]}})
        await t.status(Key("Tenant", "", name), phase="Active", colour=number)
    acme = orjson.loads((await w.store.objects.get(Key("Tenant", "", "acme"))).body)
    quota = {"instances": 60, "endpoints": 1, "memoryBytes": 4 << 40, "devices": {"*": 512}}
    acme["spec"] |= {"displayName": "Acme Research Ltd", "tolerations": [{"key": FAKE_TAINT}], "quota": quota}
    acme["spec"]["members"].append({"user": "ada", "role": "member"})
    await w.store.objects.replace(acme, CONTROLLER)
    await w.store.objects.delete(Key("Project", "", "acme--lab"), CONTROLLER)
    for project in (LAB, SHOW, "rival--apps", "nordlab--core", "kelvin--train", "osprey--render"):
        await w.create(f"{BASE}/projects", named(project))
        await t.status(Key("Project", "", project), phase="Active")
    for user, admin in (("ada", False), ("rita", False), ("root", True)):
        await w.create(f"{BASE}/users", named(user, admin=admin))
        made = await w.store.objects.get(Key("User", "", user))
        await w.store.sealed.put(made.uid, "password", hashed(PASSWORD))


async def _offers(t: Town) -> None:
    rates = {
        "deviceHour": {"H100-SXM5-80GB": 2_100_000, "*": 1_200_000},
        "coreHour": 11_000,
        "memoryGibHour": 1_400,
        "millionInputTokens": 50_000,
        "millionCachedInputTokens": 12_500,
        "millionOutputTokens": 200_000,
    }
    await t.put({"kind": "PricePlan", "metadata": {"name": "standard"}, "spec": {"currency": "EUR", "rates": rates}})
    for name, spec in (
        ("micro", {"cores": 2, "memory": "256Mi", "disk": "1Gi"}),
        ("serve-small", {"cores": 1, "memory": "1Gi"}),
        ("h100.8", {"cores": 64, "memory": "512Gi", "devices": {"count": 8, "model": "H100-SXM5-80GB"}}),
        ("h100.1", {"cores": 8, "memory": "96Gi", "devices": {"count": 1, "model": "H100-SXM5-80GB"}}),
    ):
        await t.put({"kind": "Flavor", "metadata": {"name": name}, "spec": spec})
    image = {"description": "The distribution's kernel and busybox", "source": {"builtin": "micro-guest"}}
    await t.put({"kind": "Image", "metadata": {"name": "micro-guest"}, "spec": image}, phase="Ready")


async def _hosts(t: Town, fake_hosts: int) -> None:
    inventory = Inventory(
        kernel="6.1.0-31-amd64",
        cpu_model="AMD EPYC 7B13",
        numa=[NumaNode(id=0, cores=1, threads=2, memory_bytes=8 * GIB)],
        virtualization="tcg",
        virtualization_note="no KVM: guests are emulated",
        isolation="strong",
        isolation_note="own user, namespaces, seccomp, cgroup",
        leaf="leaf-00",
        rack="rack-000",
        agent_version="0.1.0",
    )
    await _host(t, REAL, inventory, overcommit_milli=4000)
    for ordinal in range(fake_hosts):
        found = await FakeInspect(ordinal).inventory()
        await _host(t, f"fake-{ordinal:03d}", found.model_copy(update={"agent_version": "0.1.0"}))


async def _trouble(t: Town) -> None:
    """A host that was cordoned and one that is silent."""
    await t.w.store.objects.replace(await _with(t, "fake-014", unschedulable=True), CONTROLLER)
    silent = _condition(t, "Reachable", False, reason="HeartbeatMissed", message="no heartbeat for 90 s")
    key = Key("Host", "", "fake-019")
    await t.status(key, conditions=[silent], phase="Ready", phaseSince=rfc3339(t.clock.now()))
    uid = (await t.w.store.objects.get(key)).uid
    await t.w.store.events.emit(key, uid, "HeartbeatMissed", "no heartbeat for 90 s", warning=True)


async def _with(t: Town, host: str, **spec: Any) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads((await t.w.store.objects.get(Key("Host", "", host))).body)
    body["spec"] |= spec
    return body


async def _host(t: Town, name: str, inventory: Inventory, *, overcommit_milli: int = 1000) -> None:
    spec: dict[str, Any] = {"site": "fakes" if inventory.fake else "local", "overcommitMilli": overcommit_milli}
    if inventory.fake:
        spec["taints"] = [{"key": FAKE_TAINT}]
    ready = _condition(t, "Ready", True, reason="Ready", message="inspected")
    key = Key("Host", "", name)
    await t.put({"kind": "Host", "metadata": {"name": name}, "spec": spec})
    since = rfc3339(t.w.clock.now())
    await t.status(
        key,
        phase="Ready",
        phaseSince=since,
        joinedAt=since,
        conditions=[ready, _condition(t, "Reachable", True, reason="Heartbeat", message="")],
    )
    body = orjson.loads((await t.w.store.objects.get(key)).body)
    body["status"]["report"] = inventory.dump()
    await t.w.store.objects.replace(body, Writer("agent", name), part="report")
    await t.w.store.capacity.declare(name, inventory, overcommit_milli=overcommit_milli)


async def _booting(t: Town) -> None:
    """An instance in the middle of its boot."""
    await t.put(_instance(VM))
    claim = await t.claim(VM, REAL, milli=2000, memory=256 << 20)
    await t.phase(VM, "Pending", message="looking for a place")
    t.clock.behind -= 0.3
    placed = {"host": REAL, "claim": claim}
    await t.phase(VM, "Preparing", message="the disk, the seed and the image are made ready", **placed)
    t.clock.behind -= 2.1
    await t.claim_phase(LAB, claim, "Starting", pid=48121)
    await t.phase(VM, "Booting", message="the guest boots", **placed)


async def _measured(t: Town) -> None:
    """The platform's model, and a vetting of it in the lab's project."""
    wheel = {"package": "smollm2", "version": "1.0", "member": "smollm2.gguf"}
    spec = {"source": {"wheel": wheel}, "sha256": "ab" * 32, "licence": "Apache-2.0", "description": "Small and quick"}
    digest = "sha256:" + "ab" * 32
    facts = {"format": "gguf", "facts": SMALL.dump(), "digest": digest, "sizeBytes": 98 << 20, "phase": "Ready"}
    await t.put({"kind": "Model", "metadata": {"name": "smollm2-135m"}, "spec": spec}, **facts)
    asked = {"model": "smollm2-135m", "flavor": "serve-small", "slots": 2, "target": {"ttftMs": 8000}}
    key = Key("Vetting", LAB, "smol-small")
    await t.put({"kind": "Vetting", "metadata": _meta(key), "spec": asked}, **vetting_status(digest))


def vetting_status(digest: str) -> dict[str, Any]:
    """What a vetting says at its end."""
    rows = ((0.2, 4, 1917, 109, 4756, 20), (0.4, 4, 2376, 143, 3734, 29), (0.8, 11, 14859, 207, 19977, 94))
    points = [
        {
            "rate": rate,
            "requests": sent,
            "failed": 0,
            "held": first < 8000,
            "written": written,
            "ttftP50": first * 0.6,
            "ttftP95": first,
            "interTokenP50": next_ * 0.7,
            "interTokenP95": next_,
            "endP50": end * 0.7,
            "endP95": end,
            "seconds": 10.0,
            "busySeconds": 9.0,
            "read": 160,
            "cached": 8,
        }
        for rate, sent, first, next_, end, written in rows
    ]
    seen = {"answers": "'The rainbow is a celestial masterpiece'", "tools": "no call of the tool that must be called"}
    verdicts = {"answers": "Passed", "template": "Passed", "tools": "Failed", "stop": "Skipped", "target": "Passed"}
    checks = [{"name": name, "verdict": word, "seen": seen.get(name, "")} for name, word in verdicts.items()]
    rates = {"millionInputTokens": 674_636, "millionCachedInputTokens": 28_622, "millionOutputTokens": 1_390_000}
    terms = {"currency": "EUR", "claimHourMicro": 24_000, "hourMicro": 28_800, "marginPercent": 20}
    vetted = {
        "vetting": "smol-small",
        "at": "2026-01-01T00:00:00Z",
        "digest": digest,
        "flavor": "serve-small",
        "engine": "llamacpp",
        "contextTokens": 2048,
        "slots": 2,
        "rate": 0.4,
        "inputPerSecond": 15.5,
        "outputPerSecond": 3.34,
        "ttftMs": 2376.0,
        "interTokenMs": 143.0,
        "memoryBytes": 346 << 20,
        "estimateBytes": 391 << 20,
        "failed": ["tools"],
        "inputSeconds": 84_000.0,
        "cachedSeconds": 3_600.0,
        "outputSeconds": 174_000.0,
    }
    whole = {"checks": checks, "points": points, "prices": {**rates, **terms, "targetLoadPercent": 70}}
    memory = {"memoryBytes": vetted["memoryBytes"], "estimateBytes": vetted["estimateBytes"]}
    return {**whole, **memory, "vetted": vetted, "phase": "Succeeded", "progressPercent": 100}


async def _serving(t: Town) -> None:
    """An endpoint that has served for a while, and a key to it."""
    spec = {"model": "smollm2-135m", "flavor": "serve-small"}
    await t.put({"kind": "Endpoint", "metadata": _meta(CHAT), "spec": spec})
    claim = await t.claim(CHAT, REAL, milli=1000, memory=GIB)
    await t.claim_phase(LAB, claim, "Running", pid=48190, address="unix:/run/x")
    replica = {"replica": 0, "claim": claim, "host": REAL, "phase": "Running", "ready": True}
    made = {"model": "smollm2-135m", "flavor": "serve-small", "slots": 4, "contextTokens": 2048}
    revision = {"revision": "7d9c4b", "number": 1, "since": rfc3339(t.clock.now()), "template": made}
    counts = {"replicas": [replica], "readyReplicas": 1, "wantedReplicas": 1}
    counts |= {"revision": "7d9c4b", "updatedReplicas": 1, "revisions": [revision]}
    await t.phase(CHAT, "Ready", ready=True, message="1 of 1 replicas ready", **counts)
    key = {"kind": "ApiKey", "metadata": {"name": "web-app", "namespace": LAB}, "spec": {"description": "The web app"}}
    key["spec"] |= {
        "endpoints": [CHAT.name],
        "limits": {"requestsPerMinute": 60, "concurrent": 8},
        "budget": {"period": "Month", "micro": 5_800},
        "networks": ["192.0.2.0/24"],
    }
    await t.put(key, phase="Active", hint="bsk_4f1c", digest="0" * 64)
    for minute in range(50):
        t.clock.behind = 3240.0 - 60 * minute
        load = 3 + (minute * 7 + 3) % 5 + (6 if 24 < minute < 33 else 0)
        await t.used(
            CHAT,
            key="web-app" if minute % 3 else "batch",
            tokens=[(38 + 9 * i, 60 + (minute * 13 + i * 29) % 90) for i in range(load)],
        )


async def _stuck(t: Town) -> None:
    """An instance that passed its deadline."""
    stuck = Key("Instance", "osprey--render", "vm-render-2")
    await t.put(_instance(stuck))
    await t.phase(stuck, "Booting", message="the guest boots", host=REAL)
    text = "Booting for longer than 4m0s: the guest has reported nothing. Look at the serial log."
    conditions = [
        _condition(t, "Ready", False, reason="Booting", message="the guest boots"),
        _condition(t, "Stuck", True, reason="GuestSilent", message=text),
    ]
    await t.status(stuck, conditions=conditions, remedy="Start it from an image with virtio-blk.")
    uid = (await t.w.store.objects.get(stuck)).uid
    await t.w.store.events.emit(stuck, uid, "Stuck", text, warning=True)


async def _waiting(t: Town) -> None:
    """An endpoint for which there is no room."""
    waits = Key("Endpoint", "nordlab--core", "chat-70b")
    spec = {"model": "nord-70b", "flavor": "h100.8", "replicas": 2}
    await t.put({"kind": "Endpoint", "metadata": _meta(waits), "spec": spec})
    reasons = [
        {"code": "Tainted", "hosts": 24, "text": "fake, and the spec tolerates no fake host"},
        {"code": "NoDevice", "hosts": 1, "text": "short of 8 × H100"},
    ]
    remedy = "tolerate bessemer.dev/fake: 8 × H100 are free on 9 fake hosts"
    await t.phase(waits, "Pending", message="no host fits", reasons=reasons, remedy=remedy, wantedReplicas=2)


async def _crowd(t: Town) -> None:
    """Tenants on the fake hosts, so that the map has something to show."""
    show = Key("Endpoint", SHOW, "show-70b")
    spec = {"model": "show-70b", "flavor": "h100.8", "replicas": 8, "tolerations": [{"key": FAKE_TAINT}]}
    await t.put({"kind": "Endpoint", "metadata": _meta(show), "spec": spec})
    replicas = []
    for replica in range(8):
        name = await _whole(t, show, f"fake-{replica:03d}", replica)
        replicas.append(
            {"replica": replica, "claim": name, "host": f"fake-{replica:03d}", "phase": "Running", "ready": True}
        )
    await t.phase(show, "Ready", ready=True, fake=True, replicas=replicas, readyReplicas=8, wantedReplicas=8)
    crowd = (
        ("kelvin--train", "pretrain", 9, 3, 8),
        ("rival--apps", "chat-13b", 12, 2, 4),
        ("nordlab--core", "eval", 15, 3, 2),
    )
    for project, name, first, count, gpus in crowd:
        key = Key("Endpoint", project, name)
        spec = {"model": name, "flavor": "h100.8", "replicas": count, "tolerations": [{"key": FAKE_TAINT}]}
        await t.put({"kind": "Endpoint", "metadata": _meta(key), "spec": spec})
        for replica in range(count):
            await _whole(t, key, f"fake-{first + replica:03d}", replica, gpus=gpus)
        await t.phase(key, "Ready", ready=True, fake=True, readyReplicas=count, wantedReplicas=count)
    lone = Key("Endpoint", "rival--apps", "rank")
    await t.put({"kind": "Endpoint", "metadata": _meta(lone), "spec": {"model": "rank", "flavor": "h100.1"}})
    await t.claim(lone, "fake-016", devices=["gpu-5", "nic-5"], milli=8000, memory=96 * GIB, node=1, fake=True)
    await t.phase(lone, "Ready", ready=True, fake=True, readyReplicas=1, wantedReplicas=1)


async def _whole(t: Town, key: Key, host: str, replica: int, *, gpus: int = 8) -> str:
    name = await t.claim(
        key,
        host,
        replica=replica,
        devices=[f"gpu-{i}" for i in range(gpus)],
        milli=8000 * gpus,
        memory=64 * gpus * GIB,
        fake=True,
    )
    await t.claim_phase(key.namespace, name, "Running", pid=1)
    return name


def _instance(key: Key) -> dict[str, Any]:
    return {"kind": "Instance", "metadata": _meta(key), "spec": {"flavor": "micro", "image": "micro-guest"}}


def _meta(key: Key) -> dict[str, str]:
    return {"name": key.name, "namespace": key.namespace}
