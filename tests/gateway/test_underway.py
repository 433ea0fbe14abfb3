"""What a gateway writes down of requests under way, and what each of them pays however it ends."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import orjson
import pytest

from bessemer.gateway import Spool
from bessemer.gateway.exchange import UNTOLD_MAX
from bessemer.gateway.journal import Journal, Progress, Start
from tests.gateway.harness import Rig, rig
from tests.gateway.test_spool import ENVIRONMENT, ROOT

HEADERS = {"Authorization": "Bearer bsk_good"}
BODY = {
    "model": "words",
    "messages": [{"role": "user", "content": "why is it"}],
    "max_tokens": 2000,
    "ignore_eos": True,
}
SECONDS_PER_TOKEN = 0.002


@asynccontextmanager
async def streaming(url: str) -> AsyncIterator[aiohttp.ClientResponse]:
    """An answer of 2,000 tokens, as it comes."""
    async with (
        asyncio.timeout(30),
        aiohttp.ClientSession() as session,
        session.post(f"{url}/chat/completions", json=BODY | {"stream": True}, headers=HEADERS) as got,
    ):
        yield got


async def seen(got: aiohttp.ClientResponse, tokens: int) -> int:
    """Read until so many have come; how many then."""
    count = 0
    while count < tokens:
        line = await got.content.readline()
        assert line, f"it ended after {count}"
        count += line.startswith(b"data: {") and b'"content":"' in line
    return count


def under_way(folder: Path) -> list[tuple[int, Start, Progress | None]]:
    """What a gateway that was killed now would leave."""
    journal = Journal(folder / "journal")
    os.close(journal._fd)
    return journal.unfinished


async def recorded(to: Rig) -> list[tuple[int, int, str | None]]:
    """What the requests that are over came to."""
    async with asyncio.timeout(30):
        while any(r.busy for e in to.tables.endpoints.values() for r in e.replicas.values()):
            await asyncio.sleep(0.005)
    pending = to.spool.pending()
    records = pending.records if pending is not None else ()
    return [(one.input_tokens, one.output_tokens, one.ended) for one in records]


async def test_a_client_that_leaves_pays_for_the_last_count_that_arrived() -> None:
    async with rig() as to:
        uid = await to.replica("r0", of="words")
        model = to.engine.models[uid]
        model.behaviour.seconds_per_token = SECONDS_PER_TOKEN
        async with streaming(to.url) as got:
            at_least = await seen(got, UNTOLD_MAX + 9)
            ((_, start, progress),) = under_way(to.spool._directory)
            assert (start.replica, start.api_key) == (uid, "good")
            assert progress is not None
            assert progress.output_tokens > at_least - UNTOLD_MAX
            assert progress.input_tokens > 0
            got.close()
        ((read, wrote, ended),) = await recorded(to)
        assert (read, ended) == (model.counters.prompt_tokens, "cancelled")
        assert at_least <= wrote <= model.counters.tokens_predicted


@pytest.mark.parametrize("tokens", [0, 3])
async def test_a_stream_that_is_cut_pays_for_what_was_sent(tokens: int) -> None:
    async with rig() as to:
        uid = await to.replica("r0", of="words")
        to.engine.models[uid].behaviour.cut_after_tokens = tokens
        async with streaming(to.url) as got:
            assert b"answer_cut" in await got.read()
        ((read, wrote, ended),) = await recorded(to)
        assert (wrote, bool(read), ended) == (tokens, bool(tokens), "cut")


async def test_a_request_that_failed_pays_nothing() -> None:
    async with rig() as to, aiohttp.ClientSession() as session:
        uid = await to.replica("r0", of="words")
        for many, status in enumerate((500, 401), 1):
            to.engine.models[uid].behaviour.status = status
            async with session.post(f"{to.url}/chat/completions", json=BODY, headers=HEADERS) as got:
                assert got.status == (500 if status == 500 else 502)
            assert await recorded(to) == [(0, 0, "unpaid")] * many, "what its engine counted is known to be unpaid"


async def test_no_engine_is_asked_where_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> int:
        raise OSError(5, "Input/output error")

    async with rig() as to, aiohttp.ClientSession() as session:
        uid = await to.replica("r0", of="words")
        to.spool.reserve()
        to.spool.release()
        monkeypatch.setattr("os.pwrite", fails)
        async with session.post(f"{to.url}/chat/completions", json=BODY, headers=HEADERS) as got:
            assert got.status == 503
            assert (await got.json())["error"]["code"] == "usage_not_recordable"
        assert to.engine.models[uid].counters.requests == 0
        monkeypatch.undo()
        async with session.post(f"{to.url}/chat/completions", json=BODY, headers=HEADERS) as got:
            assert got.status == 200
        assert [wrote for _, wrote, _ in await recorded(to)] == [2000]


VICTIM = """
import asyncio, sys
import orjson
from tests.gateway.harness import rig
from tests.gateway.test_underway import SECONDS_PER_TOKEN

async def main():
    async with rig() as to:
        uid = await to.replica("r0", of="words")
        to.engine.models[uid].behaviour.seconds_per_token = SECONDS_PER_TOKEN
        print(orjson.dumps([to.url, str(to.spool._directory)]).decode(), flush=True)
        async with asyncio.timeout(60):
            await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_gateway_that_is_killed_bills_what_it_had_sent_but_for_the_last_tokens() -> None:
    """A process of its own; three streams, and a request that had sent nothing."""
    with subprocess.Popen(  # noqa: ASYNC220 - it begins, and nothing waits for that
        [sys.executable, "-c", VICTIM], cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE
    ) as victim:
        try:
            assert victim.stdout is not None
            url, folder = orjson.loads(await asyncio.to_thread(victim.stdout.readline))
            async with streaming(url) as one, streaming(url) as two, streaming(url) as three:
                got = sorted([await seen(one, 20), await seen(two, UNTOLD_MAX + 20), await seen(three, 100)])
                session = aiohttp.ClientSession()
                whole = asyncio.ensure_future(session.post(f"{url}/chat/completions", json=BODY, headers=HEADERS))
                while len(under_way(Path(folder))) < 4:
                    await asyncio.sleep(0.01)
                victim.send_signal(signal.SIGKILL)
                await asyncio.to_thread(victim.wait)
                await asyncio.gather(whole, return_exceptions=True)
                await session.close()
        finally:
            victim.kill()
    spool = Spool(Path(folder))
    pending = spool.pending()
    assert pending is not None
    billed = sorted(one.output_tokens for one in pending.records if one.ended != "unpaid")
    assert sorted(one.ended or "" for one in pending.records) == ["killed"] * 3 + ["unpaid"]
    assert len(billed) == 3, "whoever had sent nothing pays nothing"
    assert all(wrote > saw - UNTOLD_MAX for wrote, saw in zip(billed, got, strict=True))
    killed = [one.request_id for one in pending.records]
    spool.close()
    again = Spool(Path(folder))  # the api knows these sequences by now
    pending = again.pending()
    assert pending is not None
    assert [one.request_id for one in pending.records] == killed
    again.close()
    shutil.rmtree(Path(folder).parent)
