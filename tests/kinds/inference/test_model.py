"""Model: imported once, with the digest that its spec names."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from bessemer.core.errors import DriverError
from bessemer.core.inference import AdapterFacts, ModelFile
from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import Metadata
from bessemer.drivers.fetch.protocol import HubPlace
from bessemer.drivers.weights.fake import SMALL
from bessemer.kinds.context import Progress
from bessemer.kinds.inference.model import KIND, Model, ModelSpec, validate
from bessemer.kinds.inference.sources import ModelSource
from tests.kinds.five import (
    Case,
    check_converges,
    check_converges_after_a_crash_at_every_call,
    check_converges_when_run_twice,
    check_deletes_cleanly,
    check_is_denied_to_another_tenant,
)
from tests.kinds.world import MODEL_SHA, World

SPEC = {"source": {"wheel": {"package": "m", "version": "1.0", "member": "m/m.gguf"}}, "sha256": MODEL_SHA}
CASE = Case("Model", "other", SPEC, namespace="")


async def test_converges() -> None:
    found = await check_converges(CASE)
    assert found["status"]["digest"] == f"sha256:{MODEL_SHA}"
    assert (found["status"]["format"], found["status"]["progressPercent"]) == ("gguf", 100)
    assert found["status"]["facts"] == SMALL.dump()


async def test_converges_when_run_twice() -> None:
    await check_converges_when_run_twice(CASE)


async def test_converges_after_a_crash_at_every_driver_call() -> None:
    await check_converges_after_a_crash_at_every_call(CASE)


async def test_deletes_cleanly() -> None:
    await check_deletes_cleanly(CASE)


async def test_is_denied_to_another_tenant() -> None:
    await check_is_denied_to_another_tenant(CASE)


async def test_another_file_than_was_named_is_refused_until_the_spec_is_corrected() -> None:
    async with World() as world:
        world.importer.digest = "sha256:" + "ee" * 32
        await world.create("Model", "odd", SPEC, namespace="")
        said = await world.until_reason("Model", "odd", "DigestMismatch", namespace="")
        assert "ee" * 32 in said["message"]
        found = await world.object("Model", "odd", namespace="")
        assert found is not None
        assert (found["status"]["phase"], found["status"]["digest"]) == ("Failed", "")
        await world.patch("Model", "odd", namespace="", sha256="ee" * 32)
        await world.until_ready("Model", "odd", namespace="", seconds=60)


@pytest.mark.parametrize("reason", ["WeightsRefused", "PickleRefused"])
async def test_what_is_not_safe_to_read_is_no_model(reason: str) -> None:
    async with World() as world:
        world.importer.refuse = DriverError(reason, "it is cut short")
        await world.create("Model", "odd", SPEC, namespace="")
        said = await world.until_reason("Model", "odd", reason, namespace="")
        assert "cut short" in said["message"]
        found = await world.object("Model", "odd", namespace="")
        assert found is not None
        assert found["status"]["phase"] == "Failed"


async def test_a_model_of_before_is_read_once() -> None:
    """One that was imported when nobody read what its files say: it stays, and they are read now."""
    async with World() as world:
        body = await world.object("Model", "smol", namespace="")
        assert body is not None
        del body["status"]["facts"], body["metadata"]["resourceVersion"]
        assert Model.model_validate(body).dump()["status"].keys() == body["status"].keys()
        calls = world.importer.calls
        await world.store.objects.replace(body, CONTROLLER, part="status")

        async def read() -> bool:
            found = await world.object("Model", "smol", namespace="")
            return bool(found and found["status"].get("facts") == SMALL.dump())

        await world.until(read, seconds=KIND.resync_seconds + 10)
        assert world.importer.calls == calls + 1


async def test_an_import_that_fails_is_tried_again() -> None:
    async with World() as world:
        world.importer.refuse = DriverError("ImportFailed", "the index cannot be reached")
        await world.create("Model", "odd", SPEC, namespace="")
        await world.until_reason("Model", "odd", "ImportFailed", namespace="")
        calls, world.importer.refuse = world.importer.calls, None
        await world.until_ready("Model", "odd", namespace="", seconds=60)
        assert world.importer.calls == calls + 1


async def test_what_is_here_is_not_fetched_again() -> None:
    async with World() as world:
        calls = world.importer.calls
        await world.crash()
        await world.until_ready("Model", "smol", namespace="")
        assert world.importer.calls == calls


async def test_an_import_shows_how_far_it_is() -> None:
    async with World() as world:
        world.importer.steps = [Progress(), Progress(42, "41 MB of 98 MB"), Progress(None, "99 MB")] * 3
        await world.create("Model", "odd", SPEC, namespace="")
        seen: list[tuple[str, int]] = []

        async def ready() -> bool:
            status = (await world.object("Model", "odd", namespace="") or {}).get("status", {})
            if status.get("message"):
                assert (status["phase"], status["conditions"][0]["reason"]) == ("Importing", "Importing")
                seen.append((status["message"], status["progressPercent"]))
            return bool(status.get("phase") == "Ready")

        await world.until(ready)
        assert set(seen) == {("fetches m 1.0", 0), ("42 %: 41 MB of 98 MB", 42), ("99 MB", 0)}


async def test_content_that_vanished_is_fetched_again_and_its_size_is_known() -> None:
    async with World() as world:
        world.importer.lost.add(f"sha256:{MODEL_SHA}")
        calls = world.importer.calls

        async def fetched() -> bool:
            return world.importer.calls > calls

        await world.until(fetched, seconds=KIND.resync_seconds + 10)
        assert world.importer.sizes[-1] == 98_000_000
        await world.until_ready("Model", "smol", namespace="")
        assert world.importer.lost == set()


@pytest.mark.parametrize("member", ["", "/etc/passwd", "../x", "a/../../x", "a\x00b"])
def test_a_member_is_a_path_inside_the_wheel(member: str) -> None:
    wheel = {**SPEC["source"]["wheel"], "member": member}  # type: ignore[index]
    model = Model(metadata=Metadata(name="m"), spec=ModelSpec.model_validate({**SPEC, "source": {"wheel": wheel}}))
    assert [cause.field for cause in validate(model, None)] == ["spec.source.wheel.member"]


# --- from elsewhere than a wheel ------------------------------------------------------------------------------------

HUB = {"source": {"hub": {"repository": "tiny/llama", "revision": "main"}}}
PLACE = HubPlace(repository="tiny/llama")
PARTS = (ModelFile(path="config.json", digest="sha256:" + "1" * 64, size_bytes=2),)


async def test_what_came_first_is_what_counts() -> None:
    """The commit and the digest of the first import are asked for again when content is lost; a branch may move."""
    async with World() as world:
        world.importer.files[HubPlace] = PARTS
        await world.create("Model", "hubbed", HUB, namespace="")
        await world.until_ready("Model", "hubbed", namespace="")
        found = await world.object("Model", "hubbed", namespace="")
        assert found is not None
        status = found["status"]
        assert (status["origin"], status["revision"]) == ("hub:tiny/llama@main", "c" * 40)
        assert status["files"] == [PARTS[0].dump()]
        assert status["facts"] == SMALL.dump()
        assert world.importer.places == [(PLACE, "")]
        world.importer.lost.add(PARTS[0].digest)

        async def again() -> bool:
            return len(world.importer.places) > 1

        await world.until(again, seconds=KIND.resync_seconds + 10)
        assert world.importer.places[1:] == [(PLACE, "c" * 40)]
        world.importer.digest = "sha256:" + "ee" * 32
        world.importer.lost.add(PARTS[0].digest)
        await world.until_reason("Model", "hubbed", "DigestMismatch", namespace="")


async def test_another_source_is_another_content() -> None:
    async with World() as world:
        await world.create("Model", "hubbed", HUB, namespace="")
        await world.until_ready("Model", "hubbed", namespace="")
        world.importer.digest = "sha256:" + "ee" * 32
        source = {"hub": {"repository": "tiny/llama", "revision": "v2"}}
        await world.patch("Model", "hubbed", namespace="", source=source)

        async def other() -> bool:
            status = (await world.object("Model", "hubbed", namespace="") or {}).get("status", {})
            return bool(status.get("phase") == "Ready" and status["digest"] == world.importer.digest)

        await world.until(other, seconds=30)
        assert world.importer.places[-1] == (HubPlace(repository="tiny/llama", revision="v2"), "")


async def test_an_adapter_says_of_which_model() -> None:
    async with World() as world:
        world.importer.adapter = AdapterFacts(rank=8, base="SmolLM2")
        await world.create("Model", "tuned", HUB, namespace="")
        said = await world.until_reason("Model", "tuned", "AdapterUnclear", namespace="")
        assert "adapter" in said["message"]
        await world.patch("Model", "tuned", namespace="", adapterOf="smol")
        await world.until_ready("Model", "tuned", namespace="", seconds=30)
        await world.create("Model", "whole", {**SPEC, "adapterOf": "smol"}, namespace="")
        await world.until_reason("Model", "whole", "AdapterUnclear", namespace="")


@pytest.mark.parametrize("reason", ["SourceGated", "SourceNotFound", "FetchFailed", "DiskFull"])
async def test_what_may_come_later_is_tried_again(reason: str) -> None:
    async with World() as world:
        world.importer.refuse = DriverError(reason, "not now")
        await world.create("Model", "hubbed", HUB, namespace="")
        said = await world.until_reason("Model", "hubbed", reason, namespace="")
        assert said["phase"] == "Importing"
        world.importer.refuse = None
        await world.until_ready("Model", "hubbed", namespace="", seconds=60)


async def test_a_gated_model_waits_for_who_accepts_its_terms() -> None:
    async with World() as world:
        world.importer.gated = True
        await world.create("Model", "gated", HUB, namespace="")
        said = await world.until_reason("Model", "gated", "TermsNotAccepted", namespace="")
        assert said["phase"] == "Pending"
        await world.patch("Model", "gated", namespace="", accepted={"licence": "llama3.1", "by": "mia", "at": "now"})
        await world.until_ready("Model", "gated", namespace="", seconds=30)
        assert len(world.importer.places) == 1


async def test_from_a_hub_it_converges_after_a_crash_at_every_call() -> None:
    await check_converges_after_a_crash_at_every_call(Case("Model", "hubbed", HUB, namespace=""))


def causes(spec: dict[str, Any], name: str = "m") -> list[str]:
    return [cause.field for cause in validate(Model(metadata=Metadata(name=name), spec=ModelSpec(**spec)), None)]


@pytest.mark.parametrize(
    ("source", "sha256", "field"),
    [
        ({}, "", "spec.source"),
        ({**SPEC["source"], **HUB["source"]}, MODEL_SHA, "spec.source"),  # type: ignore[dict-item]
        (SPEC["source"], "", "spec.sha256"),
        ({"hub": {"repository": "a/b", "revision": "a/../../b"}}, "", "spec.source.hub.revision"),
        ({"path": {"path": "/a/../b"}}, "", "spec.source.path.path"),
        ({"http": {"url": "file:///etc/passwd"}}, "", "spec.source.http.url"),
        ({"http": {"url": "http://a.example/m.gguf"}}, "", "spec.sha256"),
        ({"s3": {"bucket": "abc", "endpoint": "s3.example"}}, "", "spec.source.s3.endpoint"),
    ],
)
def test_a_source_that_is_none_is_refused(source: dict[str, Any], sha256: str, field: str) -> None:
    assert causes({"source": source, "sha256": sha256}) == [field]


@pytest.mark.parametrize(
    "source",
    [
        {"hub": {"repository": "a"}},
        {"hub": {"repository": "a/../b"}},
        {"hub": {"repository": "a/b", "files": ["a b"]}},
        {"s3": {"bucket": "A"}},
        {"path": {"path": "relative"}},
        {"git": {"url": "https://x"}},
    ],
)
def test_a_source_of_another_shape_is_no_source(source: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ModelSpec.model_validate({"source": source})


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ({"hub": {"repository": "a/b"}}, "hub:a/b@main"),
        ({"hub": {"repository": "a/b", "files": ["*.gguf"]}}, "hub:a/b@main [*.gguf]"),
        ({"s3": {"bucket": "abc", "prefix": "m/x"}}, "s3://abc/m/x"),
        ({"http": {"url": "https://a.example/m.gguf"}}, "https://a.example/m.gguf"),
        ({"path": {"path": "/srv/m"}}, "/srv/m"),
    ],
)
def test_a_source_in_words(source: dict[str, Any], text: str) -> None:
    assert str(ModelSource.model_validate(source)) == text
    assert causes({"source": source}) == []


def test_an_adapter_is_not_its_own_base() -> None:
    assert causes({**HUB, "adapterOf": "m"}) == ["spec.adapterOf"]


def test_what_was_stored_before_is_stored_as_it_was() -> None:
    body = {**SPEC, "contextTokens": 2048, "description": "", "licence": "", "memory": "512Mi"}
    assert ModelSpec.model_validate(body).dump() == body
