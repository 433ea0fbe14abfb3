"""Image: imported once, by whatever detours."""

from __future__ import annotations

from bessemer.core.errors import DriverError
from bessemer.core.resource import READ, Metadata
from bessemer.kinds.fleet import image
from bessemer.kinds.fleet.image import KIND, RETRY_SECONDS, Image, ImageSpec, validate
from tests.kinds.fleet.yard import Yard

FULL = DriverError("DiskFull", "the disk of the control plane is full")


async def test_converges() -> None:
    async with Yard() as yard:
        await yard.create("Image", "micro")
        await yard.advance(1)
        assert await yard.ready("Image", "micro") == ("Ready", "True", "Ready")
        status = (await yard.body("Image", "micro"))["status"]
        assert (status["digest"][:9], status["kernel"], status["progressPercent"]) == ("sha256:ab", "6.1.0", 100)


async def test_converges_when_run_twice() -> None:
    async with Yard() as yard:
        await yard.create("Image", "micro")
        await yard.advance(1)
        before = await yard.body("Image", "micro")
        await yard.crash()
        await yard.advance(20)
        assert await yard.body("Image", "micro") == before
        assert yard.importer.built == 1


async def test_converges_after_a_crash_at_every_driver_call() -> None:
    for sort, index in (("driver", 0), ("commit", 0), ("commit", 1), ("commit", 2), ("commit", 3)):
        for moment in ("before", "after"):
            async with Yard((sort, index, moment)) as yard:
                await yard.create("Image", "micro")
                await yard.advance(40)
                assert yard.crashes == 1, (sort, index, moment)
                assert await yard.ready("Image", "micro") == ("Ready", "True", "Ready")


async def test_deletes_cleanly() -> None:
    async with Yard() as yard:
        await yard.create("Image", "micro")
        await yard.advance(1)
        await yard.delete("Image", "micro")
        await yard.advance(1)
        assert not await yard.there("Image", "micro")


def test_is_denied_to_another_tenant() -> None:
    for role in ("anyone", "tenant-admin", "member", "reader"):
        assert set(KIND.rights[role]) == set(READ), "images are the platform's: every tenant reads, none writes"
    assert not set(KIND.rights) & {"agent", "gateway", "portal"}


async def test_a_refused_import_says_why_and_is_tried_again() -> None:
    async with Yard() as yard:
        yard.importer.refuse = [FULL]
        yard.importer.percent = 40
        await yard.create("Image", "micro")
        await yard.advance(1)
        assert await yard.ready("Image", "micro") == ("Importing", "False", "DiskFull")
        status = (await yard.body("Image", "micro"))["status"]
        assert (status["message"], status["progressPercent"]) == (FULL.message, 40)
        await yard.advance(RETRY_SECONDS)
        assert await yard.ready("Image", "micro") == ("Ready", "True", "Ready")


async def test_an_import_that_never_succeeds_gets_stuck_and_says_what_would_help() -> None:
    async with Yard() as yard:
        yard.importer.refuse = [FULL] * 1000
        await yard.create("Image", "micro")
        await yard.advance(image.DEADLINES["Importing"] + RETRY_SECONDS)
        conditions = {c["type"]: c for c in (await yard.body("Image", "micro"))["status"]["conditions"]}
        assert conditions["Stuck"]["reason"] == "DiskFull"
        assert "disk has space" in conditions["Stuck"]["message"]


def test_validate() -> None:
    good = Image(metadata=Metadata(name="micro"), spec=ImageSpec())
    assert validate(good, None) == []
    assert validate(good, good) == []
    bad = Image(metadata=Metadata(name="mi.cro"), spec=ImageSpec())
    assert [cause.field for cause in validate(bad, None)] == ["metadata.name"]
