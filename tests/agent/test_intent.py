"""The Claims of a host, as the follower, the loop and the reporter see them."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from bessemer.agent.intent import IntentObjects, Intents
from bessemer.agent.intentfile import Intent, IntentMemory
from bessemer.agent.outbox import Outbox
from bessemer.core.clock import FakeClock
from bessemer.core.errors import Conflict, DriverError, Expired, Forbidden, NotFound
from bessemer.core.ports import Bookmark, Scope, Writer
from bessemer.core.resource import Change, Key
from tests.agent.standin import HOST, claim

KEY = Key("Claim", "acme--demo", "instance-vm-0")
AGENT = Writer("agent", HOST)
CLAIMS = Scope(kind="Claim")


class Files(IntentMemory):
    """Files on a disk that can be full."""

    def __init__(self) -> None:
        self.full = False
        self.kept: dict[str, Intent] = {}

    async def load(self) -> list[Intent]:
        return list(self.kept.values())

    async def write(self, intent: Intent) -> None:
        await asyncio.sleep(0)
        if self.full:
            raise DriverError("DiskFull", "no space is left on the host to keep the intent")
        self.kept[intent.uid] = intent

    async def remove(self, uid: str) -> None:
        self.kept.pop(uid, None)


class Kept:
    """Intents over `Files`, and all that belongs to them."""

    def __init__(self, files: Files | None = None) -> None:
        self.files = files or Files()
        self.outbox = Outbox()
        self.intents = Intents(self.files, outbox=self.outbox, clock=FakeClock())
        self.objects = IntentObjects(self.intents, HOST)

    async def body(self) -> dict[str, Any]:
        found: dict[str, Any] = orjson.loads((await self.objects.get(KEY)).body)
        return found

    async def say(self, phase: str) -> None:
        """What the loop writes."""
        now = await self.body()
        who = {name: now["metadata"][name] for name in ("name", "namespace", "uid", "resourceVersion")}
        body = {"apiVersion": now["apiVersion"], "kind": "Claim", "metadata": who, "status": {"phase": phase}}
        await self.objects.replace(body, AGENT, part="status")

    def due(self) -> list[tuple[str, str]]:
        return [(uid, body["status"]["phase"]) for uid, body in self.outbox.due()]


@pytest.fixture
def kept() -> Kept:
    return Kept()


async def test_a_claim_is_seen_once_it_is_durable(kept: Kept) -> None:
    await kept.intents.accept(claim())
    assert kept.files.kept["uid-1"].claim["spec"]["host"] == HOST
    body = await kept.body()
    assert body["metadata"]["finalizers"] == [], "finalizers are not an agent's to remove"
    assert body["status"] == {}


async def test_a_full_disk_keeps_a_claim_from_beginning_and_says_so(kept: Kept) -> None:
    kept.files.full = True
    await kept.intents.accept(claim())
    with pytest.raises(NotFound):
        await kept.objects.get(KEY)
    [(uid, body)] = kept.outbox.due()
    assert (uid, body["status"]["reason"]) == ("uid-1", "DiskFull")
    assert body["status"]["conditions"][0]["reason"] == "DiskFull"
    assert kept.intents.known() == {"uid-1"}
    assert kept.intents.refused.is_set()
    assert not await kept.intents.retry()
    kept.files.full = False
    assert await kept.intents.retry()
    assert not kept.intents.refused.is_set()
    assert (await kept.body())["spec"]["host"] == HOST


async def test_a_full_disk_leaves_the_old_intent_in_force(kept: Kept) -> None:
    await kept.intents.accept(claim())
    await kept.say("Running")
    newer = claim(running=False)
    newer["metadata"]["generation"] = 2
    kept.files.full = True
    await kept.intents.accept(newer)
    assert (await kept.body())["metadata"]["generation"] == 1
    assert kept.due() == [("uid-1", "Running")]
    assert kept.outbox.due()[0][1]["status"]["reason"] == "DiskFull"
    kept.files.full = False
    await kept.intents.retry()
    assert (await kept.body())["spec"]["intent"]["running"] is False


async def test_a_full_disk_does_not_keep_an_end_from_coming(kept: Kept) -> None:
    await kept.intents.accept(claim())
    kept.files.full = True
    ending = claim()
    ending["metadata"]["deletionTimestamp"] = "2025-06-15T15:10:00Z"
    await kept.intents.accept(ending)
    assert (await kept.body())["metadata"]["deletionTimestamp"]
    await kept.say("Gone")
    assert kept.due() == [("uid-1", "Gone")]


async def test_a_waiting_claim_that_is_given_up_is_forgotten(kept: Kept) -> None:
    kept.files.full = True
    await kept.intents.accept(claim())
    await kept.intents.absent("uid-1")
    assert kept.intents.known() == frozenset()
    assert kept.due() == []
    assert await kept.intents.retry()


async def test_statuses_coalesce_until_they_are_heard(kept: Kept) -> None:
    await kept.intents.accept(claim())
    for phase in ("Preparing", "Starting", "Running"):
        await kept.say(phase)
    assert kept.due() == [("uid-1", "Running")]
    [(uid, body)] = kept.outbox.due()
    await kept.say("Lost")
    kept.outbox.said(uid, body)
    assert kept.due() == [("uid-1", "Lost")], "an answer to an older word does not stand for a newer"
    kept.outbox.said(*kept.outbox.due()[0])
    assert kept.due() == []


async def test_after_a_start_each_last_word_is_said_once_more(kept: Kept) -> None:
    await kept.intents.accept(claim())
    await kept.say("Running")
    again = Kept(kept.files)
    await again.intents.load()
    assert again.due() == [("uid-1", "Running")]
    assert (await again.body())["status"] == {"phase": "Running"}


async def test_gone_is_kept_until_the_api_has_let_go(kept: Kept) -> None:
    await kept.intents.accept(claim())
    await kept.say("Gone")
    kept.outbox.said(*kept.outbox.due()[0])
    assert (await kept.body())["status"]["phase"] == "Gone"
    again = Kept(kept.files)
    await again.intents.load()
    await again.intents.complete([])
    assert again.intents.known() == frozenset()
    assert again.files.kept == {}


async def test_absent_from_a_list_and_running_is_released(kept: Kept) -> None:
    await kept.intents.accept(claim())
    await kept.say("Running")
    await kept.intents.complete([])
    assert (await kept.body())["metadata"]["deletionTimestamp"]
    assert kept.due() == []
    again = Kept(kept.files)
    await again.intents.load()
    assert again.due() == [], "of what was released nobody is told, after a start neither"
    await again.say("Gone")
    assert again.files.kept == {}
    assert again.due() == []


async def test_what_the_api_takes_back_is_wanted_again(kept: Kept) -> None:
    await kept.intents.accept(claim())
    await kept.say("Running")
    await kept.intents.complete([])
    await kept.intents.complete([claim()])
    assert "deletionTimestamp" not in (await kept.body())["metadata"]
    assert (await kept.body())["status"] == {"phase": "Running"}


async def test_our_own_status_coming_back_is_no_news(kept: Kept) -> None:
    await kept.intents.accept(claim())
    await kept.say("Running")
    before = kept.intents.revision
    echo = {**claim(), "status": {"phase": "Running"}}
    echo["metadata"]["resourceVersion"] = "99"
    await kept.intents.accept(echo)
    assert kept.intents.revision == before


async def test_an_older_word_that_comes_after_a_newer_one_is_answered_with_the_newer(kept: Kept) -> None:
    await kept.intents.accept(claim())
    await kept.say("Starting")
    await kept.say("Running")
    await kept.intents.accept({**claim(), "status": {"phase": "Starting"}})
    assert kept.due() == [("uid-1", "Running")], "what is still to be said stays as it is"
    kept.outbox.said(*kept.outbox.due()[0])
    await kept.intents.accept({**claim(), "status": {"phase": "Running"}})
    assert kept.due() == []
    await kept.intents.accept({**claim(), "status": {"phase": "Starting"}})
    assert kept.due() == [("uid-1", "Running")]


async def test_a_watch_tells_of_intent_and_not_of_our_own_words(kept: Kept) -> None:
    await kept.intents.accept(claim())
    feed = kept.objects.watch(CLAIMS)
    first, mark = await anext(feed), await anext(feed)
    assert isinstance(first, Change)
    assert (first.type, first.key) == ("ADDED", KEY)
    assert isinstance(mark, Bookmark)
    await kept.say("Running")
    newer = claim(running=False)
    newer["metadata"]["generation"] = 2
    await kept.intents.accept(newer)
    await kept.intents.absent("uid-1")
    await kept.say("Gone")
    seen = [await anext(feed) for _ in range(3)]
    assert [change.type for change in seen if isinstance(change, Change)] == ["MODIFIED", "MODIFIED", "DELETED"]
    await feed.aclose()  # type: ignore[attr-defined]
    assert kept.intents.watchers == set()
    with pytest.raises(Expired):
        await anext(kept.objects.watch(CLAIMS, since=1))


async def test_a_status_for_what_has_changed_is_refused(kept: Kept) -> None:
    await kept.intents.accept(claim())
    old = await kept.body()
    newer = claim(running=False)
    newer["metadata"]["generation"] = 2
    await kept.intents.accept(newer)
    with pytest.raises(Conflict):
        await kept.objects.replace({**old, "status": {"phase": "Running"}}, AGENT, part="status")
    old["metadata"]["uid"] = "uid-0"
    with pytest.raises(Conflict):
        await kept.objects.replace({**old, "status": {"phase": "Running"}}, AGENT, part="status")


async def test_an_agent_writes_statuses_and_nothing_else(kept: Kept) -> None:
    await kept.intents.accept(claim())
    body = await kept.body()
    for attempt in (
        kept.objects.create(body, AGENT),
        kept.objects.delete(KEY, AGENT),
        kept.objects.replace(body, AGENT),
        kept.objects.replace(body, Writer("user", "eve"), part="status"),
    ):
        with pytest.raises(Forbidden):
            await attempt


async def test_lists_by_scope(kept: Kept) -> None:
    await kept.intents.accept(claim())
    await kept.intents.accept(claim("instance-other-0", "uid-2"))
    assert [s.key.name for s in (await kept.objects.list(CLAIMS)).items] == ["instance-other-0", "instance-vm-0"]
    assert len((await kept.objects.list(Scope(kind="Claim", name="instance-vm-0"))).items) == 1
    assert (await kept.objects.list(Scope(kind="Host"))).items == []
