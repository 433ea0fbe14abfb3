"""The control plane's content: what objects name stays, the rest goes."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from bessemer.core.clock import FakeClock, settle
from bessemer.core.errors import Unavailable
from bessemer.core.ports import Page, Scope, Stored
from bessemer.core.resource import Key
from bessemer.drivers.fetch import sweeping
from bessemer.drivers.fetch.real import HostContent
from bessemer.kinds import KINDS, contents
from bessemer.kinds.imports import ContentStatus
from bessemer.main.contents import LOOK_SECONDS, Contents
from tests.drivers.fetch.test_contract import digest_of, source

DAY = 86_400.0
FILES = {name: name.encode() * 100 for name in ("model", "manifest", "part", "claimed", "image", "nobody")}


class Objects:
    """Bodies by kind, in pages of one."""

    def __init__(self) -> None:
        self.bodies: dict[str, list[bytes]] = {
            "Model": [
                b'{"spec":{"sha256":""},"status":{"digest":"%s"}}' % digest_of(FILES["model"]).encode(),
                b'{"status":{"digest":"%s","files":[{"digest":"%s"}]}}'
                % (digest_of(FILES["manifest"]).encode(), digest_of(FILES["part"]).encode()),
            ],
            "Image": [b'{"spec":{},"status":{"digest":"%s"}}' % digest_of(FILES["image"]).encode()],
            "Claim": [b'{"spec":{"intent":{"deep":[{"x":"%s"}]}}}' % digest_of(FILES["claimed"]).encode()],
        }
        self.fails = ""

    async def list(self, scope: Scope, *, limit: int = 0, after: str = "") -> Page:
        if scope.kind == self.fails:
            raise Unavailable("the database does not answer")
        bodies = self.bodies.get(scope.kind, [])
        at = int(after or 0)
        items = [Stored(Key(scope.kind, "", str(at)), "", 1, 1, "", body) for body in bodies[at : at + 1]]
        return Page(items, 1, next=str(at + 1) if at + 1 < len(bodies) else "")


@pytest.fixture
async def content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HostContent:
    monkeypatch.setattr(sweeping, "_changed", lambda file: 0.0)
    found = HostContent(tmp_path)
    for data in FILES.values():
        await found.ensure(digest_of(data), [source(data)])
    return found


def age(content: HostContent) -> None:
    then = time.time() - DAY - 1
    for file in content.root.iterdir():
        os.utime(file, (then, then))


async def test_what_models_images_and_claims_name_stays(content: HostContent) -> None:
    swept = Contents(content, Objects(), clock=FakeClock(), grace_seconds=DAY)
    await swept.sweep()
    age(content)
    gone = await swept.sweep()
    assert gone.digests == (digest_of(FILES["nobody"]),)
    told = {
        sample.name + sample.labels.get("of", ""): sample.value for one in swept.collect() for sample in one.samples
    }
    assert told["bessemer_content_removed_total"] == 1
    assert told["bessemer_content_freed_bytes_total"] == len(FILES["nobody"])
    assert told["bessemer_content_bytesused"] == sum(map(len, FILES.values())) - len(FILES["nobody"])


@pytest.mark.parametrize("kind", ["Model", "Claim"])
async def test_where_names_cannot_be_read_nothing_goes(content: HostContent, kind: str) -> None:
    objects, clock = Objects(), FakeClock()
    swept = Contents(content, objects, clock=clock, grace_seconds=DAY)
    await swept.sweep()
    age(content)
    objects.fails = kind
    with pytest.raises(Unavailable):
        await swept.sweep()
    assert len(await content.stored()) == len(FILES)


async def test_it_goes_on_after_a_database_that_was_away(content: HostContent) -> None:
    objects, clock = Objects(), FakeClock()
    swept = Contents(content, objects, clock=clock, grace_seconds=DAY)
    await swept.sweep()
    age(content)
    objects.fails = "Claim"
    running = asyncio.create_task(swept.run())
    await settle()
    await clock.advance(LOOK_SECONDS)
    assert swept.removed == 0
    objects.fails = ""
    for _ in range(100):
        await clock.advance(LOOK_SECONDS)
        await asyncio.sleep(0.01)  # the folder is looked through in a thread
        if swept.removed:
            break
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert swept.removed == 1


def test_every_kind_that_holds_content_is_asked() -> None:
    statuses = {kind.name: kind.resource.model_fields.get("status") for kind in KINDS}
    holders = {
        name
        for name, status in statuses.items()
        if status is not None and isinstance(status.annotation, type) and issubclass(status.annotation, ContentStatus)
    }
    assert holders == set(contents.HOLDERS)
