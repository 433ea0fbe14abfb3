"""The road itself, step by step. Every wait has a bound, and what fails says where to look."""

from __future__ import annotations

import asyncio
import secrets
import ssl
import time
from collections.abc import Callable
from typing import Any

import openai
import orjson
from rich.table import Table

from bessemer.cli.money import invoice_text
from bessemer.core.errors import NotFound
from bessemer.core.ports import Bookmark, Scope
from bessemer.core.resource import Key
from bessemer.core.units import show_bytes, show_duration, show_money
from bessemer.main import identities
from bessemer.main.demo import checks, scene
from bessemer.main.demo.checks import failed
from bessemer.main.steps import Step
from bessemer.main.up import Factory

Body = dict[str, Any]
QUESTION = "In one sentence: what did the Bessemer process make?"


class Road:
    """One walk. It holds what later steps need of earlier ones."""

    def __init__(self, factory: Factory) -> None:
        self._factory = factory
        self._steps = factory.steps
        self._began = time.time()
        self._tokens: dict[str, str] = {}
        self._totals: dict[str, str] = {}
        self._link = ""

    async def take(self) -> None:
        """Take it. Raises BessemerError where a step or a check fails."""
        await self._factory.start()
        await self._fleet()
        await self._tenants()
        await self._content()
        await self._instance()
        await self._endpoint()
        await self._fleet_endpoint()
        await self._talk()
        await self._bill()
        await self._summary()

    async def close(self) -> None:
        """Let go of the client."""
        await self._factory.close()

    async def _wait(
        self, key: Key, good: Callable[[Body], bool], step: Step, *, seconds: float, show: Callable[[Body], str]
    ) -> Body:
        """Follow an object until it is good. Raises DriverError with its last condition when time is up."""
        last: Body = {}
        scope = Scope(kind=key.kind, namespace=key.namespace or None, name=key.name)
        try:
            async with asyncio.timeout(seconds):
                async for change in self._factory.client.watch(scope):
                    if isinstance(change, Bookmark) or change.type == "DELETED":
                        continue
                    last = orjson.loads(change.body)
                    step.update(last.get("status", {}).get("progressPercent", 50), show(last))
                    if good(last):
                        return last
        except TimeoutError:
            raise failed(f"{key} is not there after {seconds:g} s: {_condition(last)}") from None
        raise failed(f"{key} went away")

    async def _fleet(self) -> None:
        wanted = self._factory.settings.fake_hosts
        if not wanted:
            return
        with self._steps.step(f"{wanted} fake hosts, marked and tainted, are Ready") as step:
            ready: set[str] = set()
            async with asyncio.timeout(120):
                async for change in self._factory.client.watch(Scope(kind="Host")):
                    if isinstance(change, Bookmark):
                        continue
                    body = orjson.loads(change.body)
                    if _ready(body) and body.get("status", {}).get("report", {}).get("fake"):
                        ready.add(change.key.name)
                        step.update(100 * len(ready) / wanted, f"{len(ready)} of {wanted}")
                    if len(ready) >= wanted:
                        break

    async def _tenants(self) -> None:
        client = self._factory.client
        with self._steps.step("Two tenants with quotas, projects, people") as step:
            for body in [*scene.people(), *scene.tenants()]:
                await self._factory.create(body)
            for name in ("root", *scene.PEOPLE):
                await client.account.set_password(name, secrets.token_urlsafe(18))
            self._link, _ = await client.account.sign_in_link("root")
            step.note = "acme (ada, alan) and rival (rosa, rune)"

    async def _content(self) -> None:
        for kind, name, title in (
            ("Image", scene.IMAGE, "Image: the distribution's kernel and busybox, built"),
            ("Model", scene.MODEL, "Model: SmolLM2-135M-Instruct, fetched, digest checked"),
        ):
            with self._steps.step(title) as step:
                body = await self._wait(Key(kind, "", name), _ready, step, seconds=600, show=_progress)
                status = body["status"]
                step.note = f"{status['digest'][:19]}…, {show_bytes(status['sizeBytes'])}"

    async def _remove(self, key: Key) -> None:
        """Clear what an earlier demo left."""
        client = self._factory.client
        try:
            await client.delete(key)
        except NotFound:
            return
        async with asyncio.timeout(60):
            while True:
                try:
                    await client.get(key)
                except NotFound:
                    return
                await asyncio.sleep(0.2)

    async def _instance(self) -> None:
        key = Key("Instance", scene.PROJECT, scene.INSTANCE)
        await self._remove(key)
        with self._steps.step("Instance: a guest with 2 processors boots and reports") as step:
            await self._factory.create(scene.instance())
            body = await self._wait(key, _ready, step, seconds=120, show=_phase)
            guest = body["status"]["guest"]
            pid = await checks.process_of(self._factory.paths, await self._claim(body["status"]["claim"]))
            step.note = (
                f"QEMU pid {pid} on {body['status']['host']}; the guest says: Linux {guest['kernel']}, "
                f"{guest['cpus']} CPUs, {show_bytes(guest['memoryBytes'])}, {', '.join(guest['addresses'])}"
            )
        with self._steps.step("Its serial console answers, through the agent's own stream") as step:
            step.note = await self._console(key)

    async def _console(self, key: Key) -> str:
        seen = b""
        async with asyncio.timeout(30), self._factory.client.workloads.console(key) as socket:
            await socket.send(b"\necho $((6*7)) is the answer of $(uname -s)\n")
            async for data in socket:
                seen += data
                if b"42 is the answer of Linux" in seen:
                    return "42 is the answer of Linux"
        raise failed("the console was closed")

    async def _claim(self, name: str) -> Body:
        body: Body = orjson.loads((await self._factory.client.get(Key("Claim", scene.PROJECT, name))).body)
        return body

    async def _endpoint(self) -> None:
        key = Key("Endpoint", scene.PROJECT, scene.ENDPOINT)
        await self._remove(key)
        with self._steps.step("Endpoint: llama.cpp in its own walls answers a probe") as step:
            await self._factory.create(scene.endpoint())
            body = await self._wait(key, _ready, step, seconds=120, show=_phase)
            replica = body["status"]["replicas"][0]
            pid = await checks.process_of(self._factory.paths, await self._claim(replica["claim"]))
            step.note = f"engine pid {pid} on {replica['host']}"

    async def _fleet_endpoint(self) -> None:
        if not self._factory.settings.fake_hosts:
            return
        with self._steps.step("Endpoint of 8 replicas × 8 GPUs on fake hosts, in a project of its own") as step:
            await self._factory.create(scene.fleet_endpoint())
            key = Key("Endpoint", scene.SHOW, scene.FLEET_ENDPOINT)
            body = await self._wait(key, _ready, step, seconds=120, show=_phase)
            step.note = f"{body['status']['readyReplicas']} replicas ready, all of them fake"

    def _openai(self, token: str) -> openai.AsyncOpenAI:
        trust = ssl.create_default_context(cafile=str(self._factory.paths.ca_certificate))
        url = identities.urls(self._factory.settings)["gateway"]
        return openai.AsyncOpenAI(
            base_url=url, api_key=token, max_retries=0, http_client=openai.DefaultAsyncHttpxClient(verify=trust)
        )

    async def _key(self, project: str) -> str:
        name = f"demo-{secrets.token_hex(3)}"
        await self._factory.client.create(scene.an_object("ApiKey", name, {"description": "demo"}, project))
        token = await self._factory.client.account.key_token(project, name)
        self._tokens[token] = name
        return token

    async def _talk(self) -> None:
        claim = (await self._claim_of_endpoint())["metadata"]["uid"]
        with self._steps.step("Keys: one for acme, one for rival, one to revoke"):
            token, rivals, spare = [await self._key(p) for p in (scene.PROJECT, scene.RIVAL, scene.PROJECT)]
            async with self._openai(token) as ai:
                await self._heard(ai)
        before = await checks.counters(self._factory.paths, claim)
        usage = await self._answers(token)
        await self._refusals(rivals, spare)
        with self._steps.step("Tokens: billed against counted") as step:
            after = await checks.counters(self._factory.paths, claim)
            counted_in = after.prompt_tokens_total - before.prompt_tokens_total
            counted_in += after.prompt_tokens_cached_total - before.prompt_tokens_cached_total
            counted_out = after.tokens_predicted_total - before.tokens_predicted_total
            billed_in, billed_out = await self._billed(usage)
            step.note = (
                f"input {billed_in} billed, {counted_in} counted; output {billed_out} billed, {counted_out} counted; "
                f"difference {billed_in - counted_in + billed_out - counted_out}"
            )
            if (billed_in, billed_out) != (counted_in, counted_out):
                raise failed(step.note)

    async def _claim_of_endpoint(self) -> Body:
        key = Key("Endpoint", scene.PROJECT, scene.ENDPOINT)
        body = orjson.loads((await self._factory.client.get(key)).body)
        return await self._claim(body["status"]["replicas"][0]["claim"])

    async def _heard(self, ai: openai.AsyncOpenAI) -> None:
        """Until the gateway knows the key: its watch brings it within a moment."""
        async with asyncio.timeout(10):
            while True:
                try:
                    models = [model.id async for model in ai.models.list()]
                except openai.AuthenticationError:
                    await asyncio.sleep(0.05)
                    continue
                if scene.ENDPOINT in models:
                    return
                await asyncio.sleep(0.05)

    async def _answers(self, token: str) -> tuple[int, int]:
        tokens_in = tokens_out = 0
        with self._steps.step("The official openai client: an answer that streams, and three more") as step:
            async with self._openai(token) as ai:
                said: list[str] = []
                first, began = 0.0, time.monotonic()
                stream = await ai.chat.completions.create(
                    model=scene.ENDPOINT,
                    messages=[{"role": "user", "content": QUESTION}],
                    max_tokens=48,
                    temperature=0,
                    stream=True,
                    stream_options={"include_usage": True},
                )
                async for chunk in stream:
                    first = first or time.monotonic() - began
                    said += [choice.delta.content or "" for choice in chunk.choices]
                    if chunk.usage is not None:
                        tokens_in, tokens_out = chunk.usage.prompt_tokens, chunk.usage.completion_tokens
                for _ in range(3):
                    answer = await ai.chat.completions.create(
                        model=scene.ENDPOINT, messages=[{"role": "user", "content": QUESTION}], max_tokens=16
                    )
                    if answer.usage is not None:
                        tokens_in += answer.usage.prompt_tokens
                        tokens_out += answer.usage.completion_tokens
            step.note = f"first token after {first * 1000:.0f} ms"
        self._steps.say(f"    [dim]{QUESTION}[/dim]\n    {''.join(said).strip()}")
        return tokens_in, tokens_out

    async def _refusals(self, rivals: str, spare: str) -> None:
        with self._steps.step("Who may not: wrong key, rival's key, unknown model, revoked key") as step:
            await self._factory.client.delete(Key("ApiKey", scene.PROJECT, self._tokens[spare]))
            await asyncio.sleep(1.0)  # a revocation reaches the gateway within a second
            found = []
            for token, what, model in (
                ("bsk_" + "0" * 43, "wrong key", scene.ENDPOINT),
                (rivals, "rival's key", scene.ENDPOINT),
                (rivals, "unknown model", "gpt-unknown"),
                (spare, "revoked key", scene.ENDPOINT),
            ):
                async with self._openai(token) as ai:
                    found.append(await checks.refused(ai, what, model))
            step.note = ", ".join(f"{r.what} {r.status} {r.code}" for r in found)

    async def _billed(self, usage: tuple[int, int]) -> tuple[int, int]:
        """Tokens of this demo's endpoint in the ledger, once all of them have arrived."""
        found = (0, 0)
        for _ in range(100):
            ledger = await self._factory.client.projects.ledger(scene.PROJECT, int(self._began), int(time.time()) + 1)
            rows = [r for r in ledger["rows"] if r["kind"] == "tokens" and r["at"] >= int(self._began)]
            found = sum(r.get("inputTokens", 0) for r in rows), sum(r.get("outputTokens", 0) for r in rows)
            if found >= usage:
                break
            await asyncio.sleep(0.1)
        return found

    async def _bill(self) -> None:
        end = int(time.time())
        for project in (scene.PROJECT, scene.SHOW):
            bill = await self._factory.client.projects.invoice(project, int(self._began), end)
            self._totals[project] = show_money(bill["totalMicro"], bill["currency"])
            with self._steps.step(f"Invoice of {project}, and what a second implementation makes of the rows") as step:
                ledger = await self._factory.client.projects.ledger(project, int(self._began), end)
                path = self._factory.paths.state / f"invoice-{project}.json"
                checks.write_export(path, ledger)
                ours = f"{bill['currency']} {bill['totalMicro'] // 10**6}.{bill['totalMicro'] % 10**6:06d}"
                theirs = checks.second_opinion(path)
                step.note = f"ours {ours}, theirs {theirs or 'not in this installation'}"
                if theirs and theirs != ours:
                    raise failed(step.note)
                if project == scene.SHOW and self._factory.settings.fake_hosts and not bill["fake"]:
                    raise failed("the invoice of fake hosts does not say so")
            if project == scene.PROJECT:
                self._steps.say("\n" + "\n".join("    " + line for line in invoice_text(bill).splitlines()) + "\n")

    async def _summary(self) -> None:
        client = self._factory.client
        table = Table(title="What exists now", title_justify="left", box=None, padding=(0, 3, 0, 0))
        for head in ("Kind", "Name", "Project", "Phase", "Host", "Cost so far"):
            table.add_column(head, no_wrap=True)
        for kind in ("Instance", "Endpoint"):
            for stored in (await client.list(Scope(kind=kind))).items:
                body = orjson.loads(stored.body)
                status = body["status"]
                host = status.get("host") or _hosts(status)
                cost = self._totals.get(stored.key.namespace, "") + (" fake" if status.get("fake") else "")
                table.add_row(kind, stored.key.name, stored.key.namespace, status["phase"], host, cost)
        hosts = [orjson.loads(s.body) for s in (await client.list(Scope(kind="Host"))).items]
        fake = sum(bool(h.get("status", {}).get("report", {}).get("fake")) for h in hosts)
        table.add_row("Host", f"{len(hosts) - fake} real, {fake} fake", "", "", "", "")
        self._steps.say("")
        self._steps.table(table)
        for line in self._factory.addresses():
            self._steps.say(line)
        self._steps.say(f"  Sign in     {self._link}   (once)")
        self._steps.say(f"  The road took {show_duration(time.time() - self._began)}.")


def _ready(body: Body) -> bool:
    conditions = body.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _condition(body: Body) -> str:
    status = body.get("status", {})
    for condition in status.get("conditions", []):
        if condition["type"] == "Ready":
            return f"{status.get('phase')}: {condition['reason']}: {condition['message']}"
    return str(status.get("phase", "nothing is known of it"))


def _progress(body: Body) -> str:
    status = body.get("status", {})
    return f"{status.get('phase', 'Pending')} {status.get('progressPercent', 0)} %"


def _phase(body: Body) -> str:
    return str(body.get("status", {}).get("phase", "Pending"))


def _hosts(status: Body) -> str:
    hosts = sorted({r["host"] for r in status.get("replicas", []) if r.get("host")})
    return ", ".join(hosts[:2]) + (f" and {len(hosts) - 2} more" if len(hosts) > 2 else "")
