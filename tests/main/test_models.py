"""What models are brought and read by, as the settings have it, against a hub on loopback."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path

import orjson
import pytest

from bessemer.core.errors import DriverError, Invalid
from bessemer.core.kept import SealedKeys
from bessemer.drivers.fetch.pip import PipImporter
from bessemer.drivers.fetch.protocol import HttpPlace, HubPlace, PathPlace, Place, S3Place
from bessemer.drivers.fetch.real import HostContent
from bessemer.drivers.fetch.telling import bound
from bessemer.drivers.guest.fake import FakeGuest
from bessemer.kinds.context import Imported
from bessemer.main.importer import ControlImporter
from bessemer.main.models import model_drivers
from bessemer.main.settings import Settings
from tests.drivers.weights import made
from tests.hub.server import LOOPBACK, Hub

FILES = {
    "model.safetensors": made.safetensors(made.TWO, made.TWO_BYTES),
    "config.json": orjson.dumps(made.CONFIG),
    "tokenizer_config.json": b'{"chat_template": "{{ messages }}"}',
}
PLACE = HubPlace(repository="tiny/llama")


class Kept:
    """Sealed values of one object."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], bytes] = {}

    async def put(self, uid: str, field: str, secret: bytes) -> None:
        self.values[uid, field] = secret

    async def get(self, uid: str, field: str) -> bytes | None:
        return self.values.get((uid, field))

    async def keys(self) -> SealedKeys:
        return SealedKeys("", {}, {})

    async def rotate(self, *, values: bool = False) -> SealedKeys:
        return await self.keys()

    async def tidy(self) -> None: ...


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


async def brought(importer: ControlImporter) -> Imported:
    while (found := await importer.model("u-1", PLACE)) is None:
        await asyncio.sleep(0.005)
    return found


async def test_a_gated_model_comes_with_what_was_sealed_with_it(tmp_path: Path) -> None:
    async with Hub() as hub:
        hub.add(PLACE.repository, FILES, token="hf_sesame")
        content, sealed = HostContent(tmp_path / "content"), Kept()
        settings = Settings(hub_endpoint=hub.url, sources_allowed=LOOPBACK)
        drivers = model_drivers(settings, content, sealed=sealed)
        importer = ControlImporter(
            FakeGuest(), PipImporter(content), content=content, cache=tmp_path / "cache", models=drivers
        )
        with pytest.raises(DriverError) as refusal:
            await brought(importer)
        assert refusal.value.reason == "SourceGated"
        await sealed.put("u-1", "source", b'{"token": "hf_sesame", "audience": "hub:tiny/llama"}')
        found = await brought(importer)
        assert [file.path for file in found.files] == sorted(FILES)
        assert found.facts is not None
        assert (found.facts.architecture, found.facts.layers, found.facts.chat_template) == (
            "LlamaForCausalLM",
            30,
            True,
        )
        assert (found.labels["format"], found.revision) == ("safetensors", "a" * 40)
        assert importer.progress("model/u-1").percent == 99
        # The same files are one model, whenever and from wherever they come: its digest is of canonical JSON.
        files = [{"path": path, "digest": sha256(FILES[path]), "sizeBytes": len(FILES[path])} for path in sorted(FILES)]
        canonical = json.dumps({"files": files, "version": 1}, sort_keys=True, separators=(",", ":"))
        assert found.digest == sha256(canonical.encode())


async def test_an_import_that_nobody_looks_at_any_more_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its Model was deleted, or names another source. Asked for again it goes on."""
    async with Hub() as hub:
        big = made.safetensors({"a": made.tensor("F32", (1 << 20,), 0, 4 << 20)}, 4 << 20)
        hub.add(PLACE.repository, {"model.safetensors": big})
        content = HostContent(tmp_path / "content")
        drivers = model_drivers(Settings(hub_endpoint=hub.url, sources_allowed=LOOPBACK), content, sealed=Kept())
        importer = ControlImporter(
            FakeGuest(), PipImporter(content), content=content, cache=tmp_path / "cache", models=drivers
        )
        monkeypatch.setattr("bessemer.main.importer.UNSEEN_SECONDS", -1.0)
        assert await importer.model("u-1", PLACE) is None
        (task,) = importer._tasks.values()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert importer._tasks == {}
        monkeypatch.undo()
        hub.asked.clear()
        found = await brought(importer)
        assert found.size_bytes == len(big)
        assert [headers.get("Range", "")[:6] for server, _, headers in hub.asked if server == "storage"] == ["bytes="]


async def test_a_setting_that_is_none_is_said() -> None:
    with pytest.raises(Invalid, match="no name, address or network"):
        model_drivers(Settings(sources_allowed="10.0.0.0/99"), HostContent(Path("/none")), sealed=Kept())


SET_FOR = (
    HubPlace(repository="tiny/llama", revision="v1"),
    S3Place(bucket="models", prefix="a", endpoint="https://s3.example"),
    HttpPlace(url="https://Files.example:8443/a.gguf"),
)


@pytest.mark.parametrize("place", SET_FOR, ids=str)
def test_a_secret_is_told_to_the_place_that_it_was_set_for_alone(place: Place) -> None:
    kept = {"token": "hf_sesame", "audience": place.audience}
    others = (
        HubPlace(repository="mine/mirror"),
        S3Place(bucket="models", prefix="a", endpoint="https://mine.example"),
        S3Place(bucket="mine", prefix="a", endpoint="https://s3.example"),
        HttpPlace(url="https://mine.example:8443/a.gguf"),
        HttpPlace(url="http://files.example:8443/a.gguf"),
        HttpPlace(url="https://files.example/a.gguf"),
        PathPlace(path="/srv"),
        *(other for other in SET_FOR if other is not place),
    )
    assert bound(kept, place) == {"token": "hf_sesame"}
    for other in others:
        with pytest.raises(DriverError, match="was set for") as caught:
            bound(kept, other)
        assert caught.value.reason == "SecretOfAnother"
        assert "hf_sesame" not in str(caught.value)


def test_a_secret_follows_its_place_within_it() -> None:
    for here, there in (
        (HubPlace(repository="tiny/llama"), HubPlace(repository="tiny/llama", revision="v2", files=("*",))),
        (S3Place(bucket="models", prefix="a"), S3Place(bucket="models", prefix="b")),
        (HttpPlace(url="https://files.example/a"), HttpPlace(url="https://FILES.example/b?download=1")),
    ):
        assert bound({"token": "x", "audience": here.audience}, there) == {"token": "x"}


def test_one_that_does_not_say_whom_it_is_for_is_told_to_nobody() -> None:
    assert bound({}, PLACE) == {}
    with pytest.raises(DriverError, match="set it anew"):
        bound({"token": "hf_sesame"}, PLACE)
