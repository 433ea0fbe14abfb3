"""Content and secrets: what Claims name, from the api, and nothing longer than they need it."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry

from bessemer.agent.content import AgentContent, Bounds
from bessemer.agent.identity import Identity
from bessemer.agent.intent import Intents
from bessemer.agent.intentfile import IntentMemory
from bessemer.agent.link import Link
from bessemer.agent.metrics import AgentMetrics
from bessemer.agent.outbox import Outbox
from bessemer.agent.secrets import AgentSecrets
from bessemer.core.clock import FakeClock
from bessemer.core.errors import DriverError, NotFound, Unavailable
from bessemer.drivers.fetch.intake import Intake
from bessemer.drivers.fetch.real import HostContent
from tests.agent.standin import HOST, TOKEN, Api, claim

BYTES = bytes(range(256)) * 100
RESERVE = 1 << 20
_OPEN = Intake.open


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
    return AgentContent(cache, link, wanted=lambda: wanted, bounds=Bounds(budget, RESERVE), metrics=metrics)


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


class Small:
    """A disk of so many bytes, all of which the cache may see."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path, *, size: int) -> None:
        self.size, self.root = size, root
        monkeypatch.setattr(shutil, "disk_usage", self._usage)

    def _usage(self, _: Path) -> SimpleNamespace:
        held = sum(file.stat().st_size for file in self.root.rglob("*") if file.suffix in ("", ".part"))
        return SimpleNamespace(free=max(0, self.size - held))


async def test_room_is_made_before_content_comes(
    link: Link, api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Small(monkeypatch, tmp_path / "content", size=RESERVE + len(BYTES) + 10)
    other = BYTES[::-1]
    api.content[digest_of(other)] = other
    cache = content(link, tmp_path)
    first = await cache.ensure(digest_of(other))
    assert (await cache.ensure(digest_of(BYTES))).read_bytes() == BYTES
    assert not first.exists()


async def test_what_does_not_fit_beside_what_runs_is_refused_before_it_comes(
    link: Link, api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Small(monkeypatch, tmp_path / "content", size=RESERVE + len(BYTES) + 10)
    other = BYTES[::-1]
    api.content[digest_of(other)] = other
    cache = content(link, tmp_path, named=digest_of(other), budget=1)
    runs = await cache.ensure(digest_of(other))
    with pytest.raises(DriverError, match=r"of which 1 MiB stay free for guests.*larger disk") as caught:
        await cache.ensure(digest_of(BYTES))
    assert caught.value.reason == "DiskFull"
    assert runs.exists()
    assert len(os.listdir(tmp_path / "content")) == 2


async def test_a_disk_that_guests_fill_meanwhile_stops_it(
    link: Link, api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Small(monkeypatch, tmp_path / "content", size=1 << 30)
    monkeypatch.setattr("bessemer.agent.content.LOOK_BYTES", 5000)
    given = api.content[digest_of(BYTES)]

    def fill(*_: object) -> None:
        disk.size = 0

    cache = content(link, tmp_path)
    monkeypatch.setattr(Intake, "open", lambda self, resume: (fill(), _OPEN(self, resume=resume))[1])
    with pytest.raises(DriverError, match="cannot come to its end"):
        await cache.ensure(digest_of(given))
    disk.size = 1 << 30
    monkeypatch.undo()
    assert (await cache.ensure(digest_of(given))).read_bytes() == BYTES


async def test_an_api_that_says_no_size_is_watched(
    link: Link, api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unknown(self: object, digest: str) -> int:
        raise NotFound("the server could not find the requested resource")

    monkeypatch.setattr(type(link.client.agents), "content_size", unknown)
    assert (await content(link, tmp_path).ensure(digest_of(BYTES))).read_bytes() == BYTES


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
