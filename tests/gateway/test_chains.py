"""Endpoints that answer for others: by weight, by session, and where one has nobody."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.gateway import Tables
from bessemer.gateway.chains import ENDPOINTS_MAX, Chain, context_of
from bessemer.gateway.splitting import Split, split_of
from tests.gateway.harness import PROJECT, Rig, claim, endpoint, rig

ASK = [{"role": "user", "content": "What is a converter?"}]


def split(**weights: int) -> list[dict[str, Any]]:
    return [{"endpoint": name, "weight": weight} for name, weight in weights.items()]


def tables(**endpoints: dict[str, Any]) -> Tables:
    """One replica of each that has no backends."""
    made = Tables()
    for at, (name, spec) in enumerate(endpoints.items(), start=1):
        made.apply(endpoint(name, **spec))
        if "backends" not in spec:
            made.apply(claim(f"c-{name}", f"https://10.0.0.{at}:8443", of=name))
    return made


def along(of: Tables, name: str, *, adapter: str = "", session: int = 0) -> list[str]:
    """All who are asked, in order."""
    chain = Chain(of.endpoints, of.endpoints[PROJECT, name], adapter=adapter, session=session)
    found = []
    while (entry := chain.next(0.0)) is not None:
        found.append(entry.name)
    return found


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=8).filter(any))
def test_turns_are_exact(weights: list[int]) -> None:
    of, total = Split({str(at): weight for at, weight in enumerate(weights)}), sum(weights)
    asked = Counter[str]()
    for turn in range(1, 2 * total + 1):
        asked[of.pick()] += 1
        for at, weight in enumerate(weights):
            assert abs(asked[str(at)] - turn * weight / total) < len(weights), "never far from what is due"
        if turn % total == 0:
            assert [asked[str(at)] for at in range(len(weights))] == [weight * turn // total for weight in weights]


def test_ninety_and_ten_are_ninety_and_ten_of_any_hundred() -> None:
    of = Split({"old": 900, "new": 100, "none": 0})
    turns = [of.pick() for _ in range(1000)]
    assert {turns[start : start + 100].count("new") for start in range(900)} == {10}


def test_a_session_stays_and_takes_nobodys_turn() -> None:
    of = Split({"old": 90, "new": 10})
    where = {session: of.pick(session) for session in range(1, 5001)}
    assert all(of.pick(session) == name for session, name in where.items())
    assert 400 < Counter(where.values())["new"] < 600
    assert [of.pick() for _ in range(100)].count("new") == 10
    grown = Split({"old": 80, "new": 20})
    assert all(grown.pick(session) == "new" for session, name in where.items() if name == "new"), "only who must moves"


def test_whose_turn_it_is_outlives_a_change_of_something_else() -> None:
    backends = split(old=2, new=1)
    known = split_of(backends, None)
    assert split_of(backends, known) is known
    assert split_of(split(old=1, new=1), known) is not known
    assert split_of(split(old=0), None) is None


def test_a_chain_ends_and_asks_each_once() -> None:
    of = tables(
        a={"fallbacks": ["b", "missing"]}, b={"fallbacks": ["a", "c", "s"]}, c={}, s={"backends": split(t=1, c=0)}, t={}
    )
    assert along(of, "a") == ["a", "b", "c", "t"]
    assert along(of, "s") == ["t"]
    many = {f"e{at}": {"fallbacks": [f"e{at + 1}"]} for at in range(2 * ENDPOINTS_MAX)}
    assert along(tables(**many), "e0") == [f"e{at}" for at in range(ENDPOINTS_MAX)]
    around = tables(x={"backends": split(y=1)}, y={"backends": split(x=1)})
    assert along(around, "x") == []
    of.apply(endpoint("d", project="rival--lab"))
    of.apply(endpoint("c", fallbacks=["d"]))
    assert along(of, "c") == ["c"], "another project's is nobody"


def test_who_has_nobody_or_rests_is_passed_by() -> None:
    of = tables(a={"fallbacks": ["b", "c"]}, b={}, c={})
    of.apply(claim("c-b", "https://10.0.0.2:8443", of="b", gone=True))
    assert along(of, "a") == ["a", "c"]
    pool = of.endpoints[PROJECT, "a"].pool
    pool.lost(next(iter(pool.replicas.values())), 0.0)
    assert along(of, "a") == ["c", "a"], "it may be there again"
    for name in ("a", "c"):
        of.apply(claim(f"c-{name}", "https://10.0.0.1:8443", of=name, gone=True))
    assert along(of, "a") == ["a"], "whoever is asked first says what there is"


def test_only_who_has_the_adapter_stands_in() -> None:
    of = tables(a={"adapters": ["poems"], "fallbacks": ["b", "c"]}, b={}, c={"adapters": ["poems"]})
    assert along(of, "a", adapter="poems") == ["a", "c"]


def test_the_largest_context_is_held() -> None:
    of = tables(
        a={"contextTokens": 512, "fallbacks": ["s"]},
        s={"backends": split(b=1, a=1), "contextTokens": 1 << 20},
        b={"contextTokens": 4096, "fallbacks": ["a"]},
    )
    assert [context_of(of.endpoints, of.endpoints[PROJECT, name]) for name in "asb"] == [4096, 4096, 4096]


async def ask(to: Rig, model: str, **words: Any) -> tuple[int, str | None, str]:
    """Status, who answered, and the model or the code of the error."""
    headers = {"authorization": "Bearer bsk_good", **words.pop("headers", {})}
    body = {"model": model, "messages": ASK, "max_tokens": 2, **words}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{to.url}/chat/completions", json=body, headers=headers) as answer,
    ):
        if body.get("stream"):
            return answer.status, answer.headers.get("x-bessemer-endpoint"), await answer.text()
        said = await answer.json()
        return answer.status, answer.headers.get("x-bessemer-endpoint"), said.get("model") or said["error"]["code"]


async def test_a_split_asks_each_by_its_weight_and_bills_who_answered() -> None:
    async with rig() as to:
        for name in ("old", "new"):
            to.tables.apply(endpoint(name))
            await to.replica(f"r-{name}", of=name, intent={"engine": "vllm"})
        to.tables.apply(endpoint("chat", backends=split(old=3, new=1)))
        answers = [await ask(to, "chat") for _ in range(8)]
        assert Counter(answers) == {(200, "old", "old"): 6, (200, "new", "new"): 2}
        assert to.engine.models[f"uid-{PROJECT}-r-new"].asked["model"] == "new", "the name that its replica knows"
        sticky = {await ask(to, "chat", headers={"x-session-id": "s1"}) for _ in range(5)}
        assert len(sticky) == 1
        assert (await ask(to, "old"))[1] is None, "there was nothing to choose"
        pending = to.spool.pending()
        assert pending is not None
        assert Counter(record.endpoint for record in pending.records)["new"] in (2, 7)
        assert {record.endpoint for record in pending.records} == {"old", "new"}
        assert Counter(record.asked for record in pending.records) == {"chat": 13, "": 1}


async def test_another_stands_in_where_nobody_is() -> None:
    async with rig() as to:
        to.tables.apply(endpoint("spare"))
        to.tables.apply(endpoint("words", fallbacks=["spare"]))
        assert (await ask(to, "words"))[2] == "no_replica_ready"
        await to.replica("r-spare", of="spare")
        assert await ask(to, "words") == (200, "spare", "spare")
        uid = await to.replica("r-words", of="words")
        assert await ask(to, "words") == (200, "words", "words")
        to.engine.models[uid].behaviour.status = 503
        assert (await ask(to, "words"))[0] == 503, "what its only replica says is an answer"
        await to.engine.stop(uid)
        assert await ask(to, "words") == (200, "spare", "spare"), "it was lost before its answer began"
        assert await ask(to, "words") == (200, "spare", "spare"), "and rests"
        status, who, text = await ask(to, "words", stream=True)
        assert (status, who) == (200, "spare")
        assert "[DONE]" in text


@pytest.mark.parametrize("full", [False, True])
async def test_a_full_line_falls_over(monkeypatch: pytest.MonkeyPatch, full: bool) -> None:
    monkeypatch.setattr("bessemer.gateway.waiting.WAITING_MAX", 0 if full else 1)
    monkeypatch.setattr("bessemer.gateway.waiting.WAITING_PER_SLOT", 0)
    async with rig() as to:
        to.tables.apply(endpoint("spare"))
        to.tables.apply(endpoint("words", fallbacks=["spare"], slots=1))
        uid = await to.replica("r-words", of="words")
        await to.replica("r-spare", of="spare")
        to.engine.models[uid].behaviour.seconds_per_token = 0.1
        busy = asyncio.create_task(ask(to, "words"))
        while not to.tables.endpoints[PROJECT, "words"].pool.busy:
            await asyncio.sleep(0.005)
        assert (await ask(to, "words"))[1] == ("spare" if full else "words"), "who may wait waits"
        assert (await busy)[1] == "words"
