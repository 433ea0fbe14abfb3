"""People who ask with a token of their issuer: in which project, for how long, and what one costs who is nobody."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import Mapping
from typing import Any

import aiohttp
import openai
import orjson
import pytest

from bessemer.api.ca import Peer
from bessemer.core.errors import Unavailable
from bessemer.gateway import CutOff
from bessemer.gateway.people import ASKED_OF_ONE_MAX, FRESH_SECONDS
from tests.api.test_oidc import Site, site
from tests.api.world import BASE, named, tenant
from tests.gateway.harness import Rig, endpoint, rig

ASK: Any = [{"role": "user", "content": "What is a converter?"}]
GATEWAY = Peer("system:gateway", (), "")


def token(subject: str, *, expires: float = 4e9) -> str:
    """Of the right shape; whether it is anybody's the api says."""
    parts = ({"alg": "none"}, {"sub": subject, "exp": expires})
    return ".".join(base64.urlsafe_b64encode(orjson.dumps(one)).rstrip(b"=").decode() for one in parts) + ".c2ln"


class Api:
    """Says who is whom; ``asked`` counts. It may be away, or hang until ``go``."""

    def __init__(self, **people: list[str]) -> None:
        self.people = {token(name): (name, projects) for name, projects in people.items()}
        self.asked = Counter[str]()
        self.away = False
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, token: str, *, project: str) -> Mapping[str, Any]:
        self.asked[token] += 1
        await self.go.wait()
        if self.away:
            raise Unavailable("the api is away")
        name, projects = self.people.get(token, ("", []))
        return {"user": name, "projects": [one for one in projects if one == project] if project else projects}


def client(to: Rig, key: str, project: str | None = None) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=to.url, api_key=key, project=project, max_retries=0)


async def furnish(to: Rig) -> None:
    """Endpoints of two projects; only the one has a replica."""
    to.tables.apply(endpoint("words", adapters=["poems"]))
    to.tables.apply(endpoint("words", project="other--lab"))
    await to.replica("r0", of="words", intent={"adapters": [{"name": "poems", "digest": "a"}]})


async def test_a_person_asks_in_the_project_that_is_meant() -> None:
    api = Api(mia=["acme--lab", "other--lab"], rob=["acme--lab"])
    async with rig(vouch=api) as to:
        await furnish(to)
        for who, project, model in (
            ("mia", "acme--lab", "words"),
            ("mia", None, "acme--lab/words"),
            ("mia", None, "acme--lab/words:poems"),
            ("rob", None, "words"),
            ("rob", "acme--lab", "words:poems"),
        ):
            async with client(to, token(who), project) as ai:
                answer = await ai.chat.completions.create(model=model, messages=ASK, max_tokens=2)
                assert answer.usage is not None
        body = to.engine.models["uid-acme--lab-r0"].asked
        assert body["model"] == "words:poems", "the name that its replica knows"
        pending = to.spool.pending()
        assert pending is not None
        assert Counter((r.project, r.api_key, r.owner) for r in pending.records) == {
            ("acme--lab", "", "mia"): 3,
            ("acme--lab", "", "rob"): 2,
        }


async def test_what_is_not_theirs_is_nobodys() -> None:
    api = Api(mia=["acme--lab", "other--lab"], eve=[], rob=["acme--lab"])
    async with rig(vouch=api) as to:
        await furnish(to)
        for who, project, model in (
            ("mia", None, "words"),
            ("mia", "third--lab", "words"),
            ("mia", None, "third--lab/words"),
            ("eve", None, "acme--lab/words"),
            ("eve", "acme--lab", "words"),
            ("rob", None, "other--lab/words"),
            ("rob", "other--lab", "acme--lab/words"),
        ):
            async with client(to, token(who), project) as ai:
                with pytest.raises(openai.NotFoundError) as refused:
                    await ai.chat.completions.create(model=model, messages=ASK, max_tokens=2)
                assert refused.value.code == "model_not_found"
        lists = {}
        for who in ("mia", "rob", "eve"):
            async with client(to, token(who)) as ai:
                lists[who] = [model.id async for model in ai.models.list()]
        assert lists == {
            "mia": ["acme--lab/words", "acme--lab/words:poems", "other--lab/words"],
            "rob": ["words", "words:poems"],
            "eve": [],
        }


async def test_who_is_nobody_is_told_as_one_with_a_wrong_key_is() -> None:
    api = Api()
    async with rig(vouch=api) as to, rig() as without:
        for one in (to, without):
            await furnish(one)
            async with client(one, token("mallory")) as ai:
                for _ in range(3):
                    with pytest.raises(openai.AuthenticationError) as refused:
                        await ai.chat.completions.create(model="words", messages=ASK)
                    assert refused.value.code == "invalid_api_key"
        assert api.asked.total() == 1, "for a moment that is known, too"


async def test_an_answer_is_asked_for_again_and_many_wait_for_one() -> None:
    api = Api(rob=["acme--lab"])
    async with rig(vouch=api) as to, client(to, token("rob")) as ai:
        await furnish(to)
        api.go.clear()
        asked = [asyncio.ensure_future(ai.models.list()) for _ in range(5)]
        while not api.asked:
            await asyncio.sleep(0.005)
        api.go.set()
        await asyncio.gather(*asked)
        assert api.asked.total() == 1
        to.clock.skipped += FRESH_SECONDS
        api.people.clear()
        with pytest.raises(openai.AuthenticationError):
            await ai.chat.completions.create(model="words", messages=ASK)


async def test_while_the_api_is_away_the_last_word_stands_until_it_is_too_old() -> None:
    api = Api(rob=["acme--lab"])
    api.people[token("old", expires=1.0)] = ("old", ["acme--lab"])
    async with rig(vouch=api, cut_off=CutOff(most=100.0)) as to, client(to, token("rob")) as ai:
        await furnish(to)
        async with client(to, token("old", expires=1.0)) as other:
            await other.models.list()
        await ai.models.list()
        api.away = True
        for _ in range(3):
            to.clock.skipped += 30.0
            await ai.chat.completions.create(model="words", messages=ASK, max_tokens=2)
        async with client(to, token("old", expires=1.0)) as other:
            with pytest.raises(openai.InternalServerError) as ended:
                await other.models.list()
        to.clock.skipped += 30.0
        with pytest.raises(openai.InternalServerError) as refused:
            await ai.chat.completions.create(model="words", messages=ASK)
        assert ended.value.code == refused.value.code == "bearer_unknown"
        api.away = False
        await ai.models.list()


async def test_a_flood_of_tokens_is_bounded_and_bodies_of_nobody_are_not_read() -> None:
    api = Api()
    async with rig(vouch=api) as to, aiohttp.ClientSession() as session:

        async def shown(subject: str, body: bytes) -> tuple[int, str]:
            headers = {"authorization": f"Bearer {token(subject)}", "content-type": "application/json"}
            async with session.post(f"{to.url}/chat/completions", data=body, headers=headers) as answer:
                return answer.status, (await answer.json())["error"]["code"]

        api.go.clear()
        asked = [asyncio.ensure_future(shown(f"m{at}", b"{}")) for at in range(3 * ASKED_OF_ONE_MAX)]
        async with asyncio.timeout(10):
            while sum(one.done() for one in asked) < 2 * ASKED_OF_ONE_MAX:
                await asyncio.sleep(0.01)
        assert {one.result() for one in asked if one.done()} == {(503, "gateway_busy")}
        assert len(api.asked) == ASKED_OF_ONE_MAX
        api.go.set()
        assert Counter(await asyncio.gather(*asked))[401, "invalid_api_key"] == ASKED_OF_ONE_MAX
        reader, writer = await asyncio.open_connection("127.0.0.1", int(to.url.rsplit(":", 1)[1][:-3]))
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token('big')}\r\n"
        writer.write(f"{head}content-length: 33000000\r\n\r\n".encode() + b"x" * 100_000)
        async with asyncio.timeout(10):
            assert b" 401 " in await reader.readline()
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("how", ["disabled", "no member"])
async def test_what_is_withdrawn_is_refused_within_a_second(how: str) -> None:
    async with site() as s:
        await s.w.create(f"{BASE}/tenants", tenant("acme", **{"corp.ada": "member"}))
        await s.w.create(f"{BASE}/projects", named("acme--lab"))
        async with rig(vouch=lambda token, *, project: _vouch(s, token, project)) as to:
            await furnish(to)
            bearer = s.token()
            async with client(to, bearer, "acme--lab") as ai:
                await ai.chat.completions.create(model="words", messages=ASK, max_tokens=2)
                if how == "disabled":
                    await s.patch("users/corp.ada", disabled=True)
                    await s.check_until(bearer, 401)
                else:
                    await s.patch("tenants/acme", members=[])
                    while (await s.whoami(bearer))[1]["tenants"]:
                        await asyncio.sleep(0.005)
                to.clock.skipped += FRESH_SECONDS
                with pytest.raises(openai.APIStatusError) as refused:
                    await ai.chat.completions.create(model="words", messages=ASK, max_tokens=2)
                assert refused.value.status_code == (401 if how == "disabled" else 404)


async def _vouch(s: Site, token: str, project: str) -> Mapping[str, Any]:
    reply = await s.w.call("POST", f"{BASE}/bearers", {"token": token, "project": project}, peer=GATEWAY)
    assert reply.code == 200
    said: Mapping[str, Any] = reply.json
    return said
