"""Content and secrets: what Claims name, from the api, and nothing longer than they need it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from bessemer.agent.content import AgentContent
from bessemer.agent.identity import Identity
from bessemer.agent.intent import Intents
from bessemer.agent.intentfile import IntentMemory
from bessemer.agent.link import Link
from bessemer.agent.metrics import AgentMetrics
from bessemer.agent.outbox import Outbox
from bessemer.agent.secrets import AgentSecrets
from bessemer.core.clock import FakeClock
from bessemer.core.errors import DriverError, NotFound, Unavailable
from bessemer.drivers.fetch.real import HostContent
from tests.agent.standin import HOST, TOKEN, Api, claim

BYTES = bytes(range(256)) * 100


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@pytest.fixture
async def api(clock: FakeClock) -> Api:
    found = Api(clock)
    found.content[digest_of(BYTES)] = BYTES
    return found


@pytest.fixture
async def link(api: Api, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Link]:
    identity = Identity(tmp_path / "identity", HOST)
    link = Link(identity, api.connect, token=TOKEN, clock=clock, metrics=AgentMetrics(CollectorRegistry()))
    await link._renew()
    yield link
    await link.close()


def content(link: Link, tmp_path: Path, *, named: str = "", budget: int = 1 << 30) -> AgentContent:
    wanted = [{"image": named}] if named else []
    cache, metrics = HostContent(tmp_path / "content"), AgentMetrics(CollectorRegistry())
    return AgentContent(cache, link, wanted=lambda: wanted, budget_bytes=budget, metrics=metrics)


async def test_fetched_once_and_checked_each_time(link: Link, api: Api, tmp_path: Path) -> None:
    cache = content(link, tmp_path)
    path = await cache.ensure(digest_of(BYTES))
    assert path.read_bytes() == BYTES
    api.content.clear()
    assert await cache.ensure(digest_of(BYTES)) == path


@pytest.mark.parametrize("broken", [b"short", BYTES + b"!", BYTES[:-1] + b"!"], ids=["cut", "longer", "changed"])
async def test_a_broken_file_is_told_of_and_fetched_anew(link: Link, tmp_path: Path, broken: bytes) -> None:
    cache = content(link, tmp_path)
    path = await cache.ensure(digest_of(BYTES))
    path.chmod(0o600)
    path.write_bytes(broken)
    with pytest.raises(DriverError) as caught:
        await cache.ensure(digest_of(BYTES))
    assert caught.value.reason == "DigestMismatch"
    assert (await cache.ensure(digest_of(BYTES))).read_bytes() == BYTES


async def test_an_api_that_gives_something_else_is_not_believed(link: Link, api: Api, tmp_path: Path) -> None:
    api.content[digest_of(BYTES)] = b"evil"
    with pytest.raises(DriverError) as caught:
        await content(link, tmp_path).ensure(digest_of(BYTES))
    assert caught.value.reason == "DigestMismatch"


async def test_an_api_that_is_away_is_a_reason_to_wait(link: Link, api: Api, tmp_path: Path) -> None:
    api.away = True
    with pytest.raises(DriverError) as caught:
        await content(link, tmp_path).ensure(digest_of(BYTES))
    assert caught.value.reason == "FetchFailed"


async def test_what_a_claim_names_stays_and_the_rest_goes(link: Link, api: Api, tmp_path: Path) -> None:
    other = BYTES[::-1]
    api.content[digest_of(other)] = other
    cache = content(link, tmp_path, named=digest_of(BYTES), budget=len(BYTES))
    kept = await cache.ensure(digest_of(BYTES))
    cache.pin("uid-2", (digest_of(other),))
    pinned = await cache.ensure(digest_of(other))
    assert kept.exists()
    assert pinned.exists()
    cache.pin("uid-2", ())
    await cache._evict(len(BYTES))
    assert kept.exists()
    assert not pinned.exists()
    assert cache._metrics.evictions._value.get() == 1
    assert cache._metrics.content._value.get() == len(BYTES)


async def test_a_smaller_budget_counts_from_the_first_look(link: Link, api: Api, tmp_path: Path) -> None:
    other = BYTES[::-1]
    api.content[digest_of(other)] = other
    before = content(link, tmp_path)
    gone, kept = await before.ensure(digest_of(other)), await before.ensure(digest_of(BYTES))
    after = content(link, tmp_path, named=digest_of(BYTES), budget=1)
    assert await after.ensure(digest_of(BYTES)) == kept
    assert not gone.exists()
    assert after._metrics.content._value.get() == len(BYTES)


async def test_secrets_are_kept_in_memory_while_the_claim_stands(link: Link, api: Api, clock: FakeClock) -> None:
    intents = Intents(IntentMemory(), outbox=Outbox(), clock=clock)
    secrets = AgentSecrets(link, intents)
    with pytest.raises(NotFound):
        await secrets.get("uid-1")
    await intents.accept(claim())
    assert await secrets.get("uid-1") == {"replica": "s3cret"}
    api.away = True
    assert await secrets.get("uid-1") == {"replica": "s3cret"}
    await intents.accept(claim("instance-b-0", "uid-2"))
    with pytest.raises(Unavailable) as caught:
        await secrets.get("uid-2")
    assert caught.value.retry_after_seconds > 1
    await intents.absent("uid-1")
    await intents.say(intents.by_uid["uid-1"], at=intents.revisions["uid-1"])
    assert "s3cret" not in repr(intents.by_uid)
