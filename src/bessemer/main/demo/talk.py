"""Applications at the gateway: keys, the official client, who is refused, and whether bill and engine count alike."""

from __future__ import annotations

import asyncio
import secrets
import ssl
import time
from dataclasses import dataclass

import openai

from bessemer.core.resource import Key
from bessemer.main import identities
from bessemer.main.demo import checks, scene
from bessemer.main.demo.checks import failed
from bessemer.main.demo.stage import Stage

QUESTION = "In one sentence: what did the Bessemer process make?"
_REVOCATION_SECONDS = 1.0


@dataclass(slots=True)
class Tokens:
    """Tokens in and out, as the client was told."""

    input: int = 0
    output: int = 0

    def add(self, usage: object) -> None:
        """Count the usage of one answer."""
        self.input += int(getattr(usage, "prompt_tokens", 0))
        self.output += int(getattr(usage, "completion_tokens", 0))


class Talk:
    """The step in which tokens flow."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._names: dict[str, str] = {}

    async def take(self) -> None:
        """Make keys, ask, be refused, and compare the bill with the engine's counters. Raises DriverError."""
        stage = self._stage
        endpoint = await stage.read(Key("Endpoint", scene.PROJECT, scene.ENDPOINT))
        claim = await stage.read(Key("Claim", scene.PROJECT, endpoint["status"]["replicas"][0]["claim"]))
        with stage.steps.step("Keys: one for acme, one for rival, one to revoke"):
            projects = (scene.PROJECT, scene.RIVAL, scene.PROJECT)
            token, rivals, spare = [await self._key(project) for project in projects]
            await self._known(token)
        key = identities.key_of(stage.factory.paths, identities.GATEWAY_KEY)
        uid = claim["metadata"]["uid"]
        before = await checks.counters(stage.drivers, uid, gateway_key=key)
        told = await self._answers(token)
        await self._refusals(rivals, spare)
        with stage.steps.step("Tokens: billed against counted") as step:
            after = await checks.counters(stage.drivers, uid, gateway_key=key)
            counted_in = after.prompt_tokens_total - before.prompt_tokens_total
            counted_in += after.prompt_tokens_cached_total - before.prompt_tokens_cached_total
            counted_out = after.tokens_predicted_total - before.tokens_predicted_total
            billed = await self._billed(told)
            difference = billed.input - counted_in + billed.output - counted_out
            step.note = (
                f"input {billed.input} billed, {counted_in} counted; "
                f"output {billed.output} billed, {counted_out} counted; difference {difference}"
            )
            if (billed.input, billed.output) != (counted_in, counted_out):
                raise failed(step.note)

    def _client(self, token: str) -> openai.AsyncOpenAI:
        # The client trusts the system's authorities alone; SSL_CERT_FILE would do the same for a program of one's own.
        trust = ssl.create_default_context(cafile=str(self._stage.factory.paths.ca_certificate))
        url = identities.urls(self._stage.factory.settings)["gateway"]
        http = openai.DefaultAsyncHttpxClient(verify=trust)
        return openai.AsyncOpenAI(base_url=url, api_key=token, max_retries=0, http_client=http)

    async def _key(self, project: str) -> str:
        name = f"demo-{secrets.token_hex(3)}"
        await self._stage.client.create(scene.an_object("ApiKey", name, spec={"description": "demo"}, project=project))
        token = await self._stage.client.account.key_token(project, name)
        self._names[token] = name
        return token

    async def _known(self, token: str) -> None:
        """Until the gateway knows the key and the endpoint: its watches bring them within a moment."""
        async with asyncio.timeout(10), self._client(token) as ai:
            while scene.ENDPOINT not in await _models(ai):
                await self._stage.factory.clock.sleep(0.05)

    async def _answers(self, token: str) -> Tokens:
        tokens = Tokens()
        with self._stage.steps.step("The official openai client: an answer that streams, and three more") as step:
            async with self._client(token) as ai:
                text, first = await _stream(ai, tokens)
                for _ in range(3):
                    answer = await ai.chat.completions.create(
                        model=scene.ENDPOINT, messages=[{"role": "user", "content": QUESTION}], max_tokens=16
                    )
                    tokens.add(answer.usage)
            step.note = f"first token after {first * 1000:.0f} ms"
        self._stage.steps.say(f"    {QUESTION}\n    {text}")
        return tokens

    async def _refusals(self, rivals: str, spare: str) -> None:
        with self._stage.steps.step("Who may not: wrong key, rival's key, unknown model, revoked key") as step:
            await self._stage.client.delete(Key("ApiKey", scene.PROJECT, self._names[spare]))
            await asyncio.sleep(_REVOCATION_SECONDS)
            found = []
            for token, what, model in (
                ("bsk_" + "0" * 43, "wrong key", scene.ENDPOINT),
                (rivals, "rival's key", scene.ENDPOINT),
                (rivals, "unknown model", "gpt-unknown"),
                (spare, "revoked key", scene.ENDPOINT),
            ):
                async with self._client(token) as ai:
                    found.append(await checks.refused(ai, what, model=model))
            step.note = ", ".join(f"{r.what} {r.status} {r.code}" for r in found)

    async def _billed(self, told: Tokens) -> Tokens:
        """Tokens of this demo in the ledger, once as many have arrived as the client was told of."""
        began = self._stage.began
        found = Tokens()
        for _ in range(100):
            ledger = await self._stage.client.projects.ledger(scene.PROJECT, began, int(time.time()) + 1)
            rows = [row for row in ledger["rows"] if row["kind"] == "tokens" and row["at"] >= began]
            found = Tokens(sum(r.get("inputTokens", 0) for r in rows), sum(r.get("outputTokens", 0) for r in rows))
            if found.input >= told.input and found.output >= told.output:
                break
            await asyncio.sleep(0.1)
        return found


async def _models(ai: openai.AsyncOpenAI) -> list[str]:
    try:
        return [model.id async for model in ai.models.list()]
    except openai.AuthenticationError:
        return []


async def _stream(ai: openai.AsyncOpenAI, tokens: Tokens) -> tuple[str, float]:
    """The streamed answer, and the seconds until its first token."""
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
            tokens.add(chunk.usage)
    return "".join(said).strip(), first
