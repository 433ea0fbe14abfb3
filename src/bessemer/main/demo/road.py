"""The road itself, step by step. Every wait has a bound, and what fails says where to look."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import orjson

from bessemer.cli import render
from bessemer.cli.money import invoice_text
from bessemer.core.ports import Scope
from bessemer.core.resource import Key
from bessemer.core.units import show_bytes, show_duration, show_money
from bessemer.main.addresses import addresses
from bessemer.main.demo import checks, scene
from bessemer.main.demo.checks import failed
from bessemer.main.demo.stage import Body, Stage, is_ready
from bessemer.main.demo.talk import Talk
from bessemer.main.factory import Factory
from bessemer.main.steps import Step

_IMPORT_SECONDS = 3600.0
"""An import that makes no progress says that it is stuck long before."""

_INSTANCE = Key("Instance", scene.PROJECT, scene.INSTANCE)
_ENDPOINT = Key("Endpoint", scene.PROJECT, scene.ENDPOINT)
_FLEET_ENDPOINT = Key("Endpoint", scene.SHOW, scene.FLEET_ENDPOINT)


class Road:
    """One walk. It holds what later steps need of earlier ones."""

    def __init__(self, factory: Factory) -> None:
        self._stage = Stage(factory)
        self._steps = factory.steps
        self._costs: dict[str, str] = {}
        self._links: dict[str, str] = {}
        self._pids: dict[str, int] = {}
        self._since = 0
        """From when on the invoices are: what an earlier demo left is gone by then."""

    async def take(self) -> None:
        """Take it. Raises BessemerError where a step or a check fails."""
        await self._stage.factory.start()
        await self._fleet()
        await self._tenants()
        self._since = await self._stage.clear(_INSTANCE, _ENDPOINT, _FLEET_ENDPOINT)
        await self._content()
        await self._instance()
        await self._endpoint()
        await self._fleet_endpoint()
        await Talk(self._stage).take()
        await self._bill()
        await self._summary()

    async def close(self) -> None:
        """Let go of the client, and supervise no more."""
        await self._stage.factory.close()

    async def _fleet(self) -> None:
        wanted = self._stage.factory.settings.fake_hosts
        if not wanted:
            return
        with self._steps.step(f"{wanted} fake hosts, marked and tainted, are Ready") as step:
            async with asyncio.timeout(120):
                await self._joined(wanted, step)

    async def _joined(self, wanted: int, step: Step) -> None:
        ready: set[str] = set()
        async for change, body in self._stage.bodies(Scope(kind="Host")):
            if is_ready(body) and body["status"].get("report", {}).get("fake"):
                ready.add(change.key.name)
                step.update(100 * len(ready) / wanted, f"{len(ready)} of {wanted}")
            if len(ready) >= wanted:
                return

    async def _tenants(self) -> None:
        client = self._stage.client
        with self._steps.step("Two tenants with quotas, projects, people") as step:
            for body in [*scene.people(), *scene.tenants()]:
                await self._stage.factory.create(body)
            for name in scene.EVERYBODY:
                await client.account.set_password(name, secrets.token_urlsafe(18))
            self._links = {name: (await client.account.sign_in_link(name))[0] for name in scene.EVERYBODY}
            step.note = "acme (ada, alan) and rival (rosa, rune)"

    async def _content(self) -> None:
        for kind, name, title in (
            ("Image", scene.IMAGE, "Image: the distribution's kernel and busybox, built"),
            ("Model", scene.MODEL, "Model: SmolLM2-135M-Instruct, fetched, digest checked"),
        ):
            with self._steps.step(title) as step:
                body = await self._stage.until(Key(kind, "", name), is_ready, step=step, seconds=_IMPORT_SECONDS)
                status = body["status"]
                step.note = f"{status['digest'][:19]}…, {show_bytes(status['sizeBytes'])}"

    async def _instance(self) -> None:
        with self._steps.step("Instance: a guest with 2 processors boots and reports") as step:
            await self._stage.factory.create(scene.instance())
            body = await self._stage.until(_INSTANCE, is_ready, step=step, seconds=120)
            guest = body["status"]["guest"]
            pid = await self._pid(body["status"]["claim"])
            step.note = (
                f"QEMU pid {pid} on {body['status']['host']}; the guest says: Linux {guest['kernel']}, "
                f"{guest['cpus']} CPUs, {show_bytes(guest['memoryBytes'])}, {', '.join(guest['addresses'])}"
            )
        with self._steps.step("Its serial console answers, through the agent's own stream") as step:
            step.note = await self._console(_INSTANCE)

    async def _console(self, key: Key) -> str:
        seen = b""
        async with asyncio.timeout(30), self._stage.client.workloads.console(key) as socket:
            await socket.send(b"\necho $((6*7)) is the answer of $(uname -s)\n")
            async for data in socket:
                seen += data
                if b"42 is the answer of Linux" in seen:
                    return "42 is the answer of Linux"
        raise failed("the console was closed")

    async def _pid(self, claim: str) -> int:
        """The process of a claim, looked at now. Raises DriverError where it is not the one that was shown before."""
        body = await self._stage.read(Key("Claim", scene.PROJECT, claim))
        pid = await checks.process_of(self._stage.drivers.for_agent().host, body)
        if pid != self._pids.setdefault(claim, pid):
            raise failed(f"claim {claim} has pid {pid}, and pid {self._pids[claim]} was shown: it was started anew")
        return pid

    async def _endpoint(self) -> None:
        with self._steps.step("Endpoint: llama.cpp in its own walls answers a probe") as step:
            await self._stage.factory.create(scene.endpoint())
            body = await self._stage.until(_ENDPOINT, is_ready, step=step, seconds=120)
            replica = body["status"]["replicas"][0]
            step.note = f"engine pid {await self._pid(replica['claim'])} on {replica['host']}"

    async def _fleet_endpoint(self) -> None:
        if not self._stage.factory.settings.fake_hosts:
            return
        replicas = min(8, self._stage.factory.settings.fake_hosts)
        title = f"Endpoint of {replicas} replicas × 8 GPUs on fake hosts, in a project of its own"
        with self._steps.step(title) as step:
            await self._stage.factory.create(scene.fleet_endpoint(replicas))
            body = await self._stage.until(_FLEET_ENDPOINT, is_ready, step=step, seconds=120)
            step.note = f"{body['status']['readyReplicas']} replicas ready, all of them fake"

    async def _bill(self) -> None:
        end = int(time.time()) + 1  # an invoice ends before its end: the second that runs belongs to it
        for project in (scene.PROJECT, scene.SHOW):
            bill = await self._stage.client.projects.invoice(project, self._since, end)
            self._costs |= costs(bill)
            with self._steps.step(f"Invoice of {project}, and what a second implementation makes of the rows") as step:
                path = self._stage.factory.paths.state / f"invoice-{project}.json"
                checks.write_export(path, await self._stage.client.projects.ledger(project, self._since, end))
                step.note = checks.same_total(bill, path)
                if project == scene.SHOW and self._stage.factory.settings.fake_hosts and not bill["fake"]:
                    raise failed("the invoice of fake hosts does not say so")
            if project == scene.PROJECT:
                text = invoice_text(bill, within=max(40, render.width() - 4) if render.width() else 0)
                self._steps.say("\n" + "\n".join("    " + line for line in text.splitlines()) + "\n")

    async def _summary(self) -> None:
        for claim in self._pids:
            await self._pid(claim)
        client = self._stage.client
        rows: list[list[str]] = []
        for kind in ("Instance", "Endpoint"):
            for stored in (await client.list(Scope(kind=kind))).items:
                rows.append(self._row(orjson.loads(stored.body)))
        hosts = [orjson.loads(stored.body) for stored in (await client.list(Scope(kind="Host"))).items]
        fake = sum(bool(h.get("status", {}).get("report", {}).get("fake")) for h in hosts)
        head = ["WHAT", "PROJECT", "PHASE", "HOST", "PID", "COST"]
        self._steps.say("\nWhat exists now\n")
        self._steps.say(render.columns(head, rows, within=render.width(), spare=["HOST", "PHASE"]))
        self._steps.say(f"\nHosts: {len(hosts) - fake} real, {fake} fake")
        self._steps.say(addresses(self._stage.factory.paths, self._stage.factory.settings))
        for name, link in self._links.items():
            self._steps.say(f"  Sign in     {link}   (once, as {name}: {scene.EVERYBODY[name]})")
        self._steps.say("")
        self._steps.say(f"The road took {show_duration(time.time() - self._stage.began)}.")

    def _row(self, body: Body) -> list[str]:
        status, metadata = body["status"], body["metadata"]
        cost = self._costs.get(metadata["uid"], "") + (" (fake)" if status.get("fake") else "")
        hosts = sorted({r["host"] for r in status.get("replicas", []) if r.get("host")})
        host = status.get("host") or (hosts[0] if len(hosts) == 1 else f"{len(hosts)} hosts")
        claims = [status.get("claim"), *(r.get("claim") for r in status.get("replicas", []))]
        own = self._pids if metadata["namespace"] == scene.PROJECT else {}
        pids = [str(own[claim]) for claim in claims if claim in own]
        name = f"{body['kind'].lower()}/{metadata['name']}"
        return [name, metadata["namespace"], status["phase"], host, ",".join(pids), cost]


def costs(bill: Mapping[str, Any]) -> dict[str, str]:
    """What each workload of an invoice costs, by its uid: the sum of its own lines."""
    sums: Counter[str] = Counter()
    for line in bill["lines"]:
        sums[line["workloadUid"]] += line["amountMicro"]
    return {uid: show_money(micro, bill["currency"]) for uid, micro in sums.items()}
