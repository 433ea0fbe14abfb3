"""Applications at the gateway: keys, the official client, who is refused, and whether bill and engine count alike."""

from __future__ import annotations

import asyncio
import secrets
import ssl
import time
from typing import Any

import openai

from bessemer.client import an_object
from bessemer.core.resource import Key
from bessemer.main import identities
from bessemer.main.demo import checks, scene
from bessemer.main.demo.checks import Refusal, failed
from bessemer.main.demo.stage import Stage
from bessemer.main.demo.tokens import Meter, Tokens, timed, verdict

QUESTION = "In one sentence: what did the Bessemer process make?"
_REVOCATION_SECONDS = 1.0
_TIMED = {"timings_per_token": True}
"""Asks llama.cpp to say with the answer what it counted."""


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
        meter = Meter(stage, claim_uid=claim["metadata"]["uid"], api_key=self._names[token])
        await self._answers(token, meter)
        await self._refusals(rivals, spare, meter=meter)
        with stage.steps.step("Tokens: billed against counted, request by request") as step:
            step.note = verdict(meter.requests)

    def _client(self, token: str) -> openai.AsyncOpenAI:
        # The client trusts the system's authorities alone; SSL_CERT_FILE would do the same for a program of one's own.
        trust = ssl.create_default_context(cafile=str(self._stage.factory.paths.ca_certificate))
        url = identities.urls(self._stage.factory.settings)["gateway"]
        http = openai.DefaultAsyncHttpxClient(verify=trust)
        return openai.AsyncOpenAI(base_url=url, api_key=token, max_retries=0, http_client=http)

    async def _key(self, project: str) -> str:
        name = f"demo-{secrets.token_hex(3)}"
        await self._stage.client.create(an_object(Key("ApiKey", project, name), {"description": "demo"}))
        token = await self._stage.client.account.key_token(project, name)
        self._names[token] = name
        return token

    async def _known(self, token: str) -> None:
        """Until the gateway knows the key and the endpoint: its watches bring them within a moment."""
        async with asyncio.timeout(10), self._client(token) as ai:
            while scene.ENDPOINT not in await _models(ai):
                await self._stage.factory.clock.sleep(0.05)

    async def _answers(self, token: str, meter: Meter) -> None:
        said: list[tuple[float, str]] = []
        with self._stage.steps.step("The official openai client: an answer that streams, and three more") as step:
            async with self._client(token) as ai:
                await meter.measure(lambda: _stream(ai, said))
                for _ in range(3):
                    await meter.measure(lambda: _whole(ai))
            began, first = said[0][0], said[1][0]
            step.note = f"first token after {(first - began) * 1000:.0f} ms"
        self._stage.steps.say(f"    {QUESTION}\n    {''.join(text for _, text in said).strip()}")

    async def _refusals(self, rivals: str, spare: str, *, meter: Meter) -> None:
        with self._stage.steps.step("Who may not: wrong key, rival's key, unknown model, revoked key") as step:
            before = await meter.counted()
            await self._stage.client.delete(Key("ApiKey", scene.PROJECT, self._names[spare]))
            await asyncio.sleep(_REVOCATION_SECONDS)
            refusals = (
                ("bsk_" + "0" * 43, scene.ENDPOINT, Refusal("wrong key", 401, "invalid_api_key")),
                (rivals, scene.ENDPOINT, Refusal("rival's key", 404, "model_not_found")),
                (rivals, "gpt-unknown", Refusal("unknown model", 404, "model_not_found")),
                (spare, scene.ENDPOINT, Refusal("revoked key", 401, "invalid_api_key")),
            )
            for token, model, expected in refusals:
                async with self._client(token) as ai:
                    await checks.refused(ai, expected, model=model)
            if await meter.counted() != before:
                raise failed("a request that was refused reached the engine")
            step.note = ", ".join(str(expected) for _, _, expected in refusals)


async def _models(ai: openai.AsyncOpenAI) -> list[str]:
    try:
        return [model.id async for model in ai.models.list()]
    except openai.AuthenticationError:
        return []


async def _whole(ai: openai.AsyncOpenAI) -> Tokens:
    """An answer in one piece, by its timings."""
    answer = await ai.chat.completions.create(
        model=scene.ENDPOINT, messages=[{"role": "user", "content": QUESTION}], max_tokens=16, extra_body=_TIMED
    )
    return timed(answer.model_extra)


async def _stream(ai: openai.AsyncOpenAI, said: list[tuple[float, str]]) -> Tokens:
    """A streamed answer, by the timings of its last event, which comes to those who ask for usage. When it was asked
    for, and when its pieces came, goes into ``said``."""
    said.append((time.monotonic(), ""))
    last: dict[str, Any] | None = None
    stream = await ai.chat.completions.create(
        model=scene.ENDPOINT,
        messages=[{"role": "user", "content": QUESTION}],
        max_tokens=48,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
        extra_body=_TIMED,
    )
    async for chunk in stream:
        said += [(time.monotonic(), choice.delta.content) for choice in chunk.choices if choice.delta.content]
        if chunk.model_extra and "timings" in chunk.model_extra:
            last = chunk.model_extra
    if len(said) < 2:
        raise failed("the answer that streamed is empty")
    return timed(last)
