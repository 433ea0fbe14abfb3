"""Models of projects: nobody gets bytes by naming them, goes on with another's, or has more than was counted."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from bessemer.core.errors import DriverError
from bessemer.drivers.fetch.bringing import STEP_BYTES, SourceModels
from bessemer.drivers.fetch.protocol import HttpPlace, HubPlace, Model, Own, PathPlace, Place, RoomWanted
from bessemer.drivers.fetch.reach import Reach
from tests.drivers.fetch.test_models import FILES, REPO, TAKEN, WEIGHTS, Bench, contents
from tests.hub.server import LOOPBACK, Hub

ALL = 1 << 30
DIGEST = "sha256:" + hashlib.sha256(WEIGHTS).hexdigest()
TOTAL = sum(len(FILES[path]) for path in TAKEN)


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    async with Hub() as hub:
        hub.add(REPO, FILES)
        yield hub


class Owned(Bench):
    """The same, for owners."""

    async def give(self, place: Place, owner: str, *, room: int = ALL) -> Model:
        models = SourceModels(self.store, self.limits)
        return await models.bring(place, revision="", secrets={}, progress=lambda had, size: None, own=Own(owner, room))

    async def refused(self, place: Place, owner: str, *, room: int = ALL) -> DriverError:
        with pytest.raises(DriverError) as found:
            await self.give(place, owner, room=room)
        return found.value

    def held(self) -> int:
        return sum(file.stat().st_size for file in self.store.root.iterdir() if file.suffix in ("", ".part"))


async def test_who_names_a_digest_gets_only_what_their_own_source_gives(hub: Hub, tmp_path: Path) -> None:
    bench = Owned(tmp_path, hub.url)
    await bench.bring(HubPlace(repository=REPO))  # it is here, of somebody else
    hub.add("eve/claims", FILES)
    hub.asked.clear()
    model = await bench.give(HubPlace(repository="eve/claims"), "eve")
    assert contents(model) == {path: FILES[path] for path in TAKEN}
    assert [server for server, path, _ in hub.gets("model.safetensors")] == ["hub", "storage"]  # they had to show it


async def test_a_source_that_names_a_digest_and_gives_something_else_gives_nothing(hub: Hub, tmp_path: Path) -> None:
    bench = Owned(tmp_path, hub.url)
    await bench.bring(HubPlace(repository=REPO))
    hub.faults.spoilt = {"model.safetensors"}  # its list names the digest of what is here
    refusal = await bench.refused(HubPlace(repository=REPO), "eve")
    assert refusal.reason == "DigestMismatch"
    assert (await bench.store.verify(DIGEST)).read_bytes() == WEIGHTS  # and whose it was has it still


async def test_nobody_goes_on_with_what_came_for_another(hub: Hub, tmp_path: Path) -> None:
    bench = Owned(tmp_path, hub.url)
    for bring in (bench.give(HubPlace(repository=REPO), "ann"), bench.bring(HubPlace(repository=REPO))):
        hub.faults.cut, hub.faults.cuts = 10_000, 50
        with pytest.raises(DriverError):
            await bring
        hub.faults.cuts = 0
    hub.asked.clear()
    await bench.give(HubPlace(repository=REPO), "eve")
    assert [headers.get("Range") for _, _, headers in hub.gets("model.safetensors")] == [None, None]
    hub.asked.clear()
    await bench.give(HubPlace(repository=REPO), "ann")
    assert all(headers.get("Range") for server, _, headers in hub.gets("model.safetensors") if server == "storage")


async def test_nothing_comes_before_there_is_room_for_all_of_it(hub: Hub, tmp_path: Path) -> None:
    bench = Owned(tmp_path, hub.url)
    for room in (0, TOTAL - 1):
        refusal = await bench.refused(HubPlace(repository=REPO), "ann", room=room)
        assert isinstance(refusal, RoomWanted)
        assert (refusal.needs_bytes, refusal.exact) == (TOTAL, True)
    assert not hub.gets("resolve")
    assert (await bench.give(HubPlace(repository=REPO), "ann", room=TOTAL)).parts


async def test_a_hub_that_says_too_little_gives_no_more_than_it_said(hub: Hub, tmp_path: Path) -> None:
    bench = Owned(tmp_path, hub.url)
    hub.faults.lies = {"model.safetensors": 1000}
    refusal = await bench.refused(HubPlace(repository=REPO), "ann", room=TOTAL)
    assert refusal.reason in ("FetchFailed", "DigestMismatch", "ImportFailed")
    assert bench.held() <= TOTAL - len(WEIGHTS) + 1000


async def test_a_source_that_says_no_size_stops_at_the_room(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Owned(tmp_path, hub.url)
    bench.limits = replace(bench.limits, own_reach=Reach.of(LOOPBACK))
    place = HttpPlace(url=f"{hub.url}/{REPO}/resolve/{'a' * 40}/tokenizer.json")

    async def unsaid(self: object, asking: object) -> tuple[int, str]:
        return -1, '"one"'

    monkeypatch.setattr("bessemer.drivers.fetch.web.Web.likeness", unsaid)
    for room, wants in ((0, STEP_BYTES), (50, STEP_BYTES)):
        refusal = await bench.refused(place, "ann", room=room)
        assert isinstance(refusal, RoomWanted)
        assert (refusal.needs_bytes, refusal.exact) == (wants, False)
        assert bench.held() <= room
    assert contents(await bench.give(place, "ann")) == {"tokenizer.json": FILES["tokenizer.json"]}


async def test_the_operators_inner_places_are_not_a_projects(hub: Hub, tmp_path: Path) -> None:
    bench = Owned(tmp_path, hub.url)
    place = HttpPlace(url=f"{hub.url}/{REPO}/resolve/{'a' * 40}/config.json")
    assert (await bench.bring(place)).parts
    assert (await bench.refused(place, "eve")).reason == "AddressRefused"
    (tmp_path / "models").mkdir()
    assert (await bench.refused(PathPlace(path=str(tmp_path / "models")), "eve")).reason == "AddressRefused"


async def test_what_came_for_an_owner_goes_with_it_but_for_what_others_name(hub: Hub, tmp_path: Path) -> None:
    bench = Owned(tmp_path, hub.url)
    await bench.give(HubPlace(repository=REPO), "ann")
    config = "sha256:" + hashlib.sha256(FILES["config.json"]).hexdigest()
    gone = await bench.store.release("ann", named=[config])
    assert DIGEST in gone
    assert [item.digest for item in await bench.store.stored()] == [config]
    assert await bench.store.release("ann", named=[]) == ()  # once more, after a crash: it is nobody's now


async def test_what_another_has_brought_and_does_not_name_yet_stays(hub: Hub, tmp_path: Path) -> None:
    """A model of many files names them when the last has come."""
    bench = Owned(tmp_path, hub.url)
    await bench.give(HubPlace(repository=REPO), "ann")
    await bench.give(HubPlace(repository=REPO), "bob")
    assert await bench.store.release("ann", named=[]) == ()
    assert bench.held() >= TOTAL
    assert DIGEST in await bench.store.release("bob", named=[])
    assert os.listdir(bench.store.root) == []


async def test_what_was_cut_short_or_refused_goes_with_its_owner_too(hub: Hub, tmp_path: Path) -> None:
    bench = Owned(tmp_path, hub.url)
    hub.faults.cut, hub.faults.cuts = 10_000, 50
    await bench.refused(HubPlace(repository=REPO), "ann")
    hub.faults.cuts, hub.faults.spoilt = 0, {"model.safetensors"}
    await bench.refused(HubPlace(repository=REPO), "ann")
    await bench.store.release("ann", named=[])
    assert os.listdir(bench.store.root) == []
