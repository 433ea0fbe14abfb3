"""Image: imported once, by whatever detours."""

from __future__ import annotations

from bessemer.core.errors import DriverError
from bessemer.core.resource import Metadata
from bessemer.kinds.context import Progress
from bessemer.kinds.fleet.image import KIND, Image, ImageSpec, validate
from bessemer.kinds.imports import DEADLINES, RETRY_SECONDS
from tests.kinds.five import Case, Life, check_is_denied_to_another_tenant, check_lives_through
from tests.kinds.fleet.yard import TAKEOVER_SECONDS, Yard
from tests.kinds.points import Point

FULL = DriverError("DiskFull", "the disk of the control plane is full")
CASE = Case("Image", "micro", {"source": {"builtin": "micro-guest"}}, namespace="")


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


async def live(stop: Point | None) -> Life:
    """Imported in two looks, and deleted."""
    async with Yard(stop) as yard:
        yard.importer.steps = [Progress()]
        await yard.create("Image", "micro")
        await yard.advance(40)
        assert await yard.ready("Image", "micro") == ("Ready", "True", "Ready")
        assert yard.importer.held == {yard.importer.digest}
        await yard.delete("Image", "micro")
        await yard.advance(TAKEOVER_SECONDS)
        assert not await yard.there("Image", "micro")
        return Life(yard.points.names, yard.crashes)


async def test_converges_after_a_crash_at_every_driver_call() -> None:
    await check_lives_through(live)


async def test_deletes_cleanly() -> None:
    async with Yard() as yard:
        await yard.create("Image", "micro")
        await yard.advance(1)
        await yard.delete("Image", "micro")
        await yard.advance(1)
        assert not await yard.there("Image", "micro")


async def test_is_denied_to_another_tenant() -> None:
    """Images are the platform's: every tenant reads, none writes."""
    await check_is_denied_to_another_tenant(CASE)
    assert not set(KIND.rights) & {"agent", "gateway", "portal"}


async def test_a_refused_import_says_why_and_is_tried_again() -> None:
    async with Yard() as yard:
        yard.importer.refuse = [FULL]
        yard.importer.now = Progress(40, "Fetching packages")
        await yard.create("Image", "micro")
        await yard.advance(1)
        assert await yard.ready("Image", "micro") == ("Importing", "False", "DiskFull")
        status = (await yard.body("Image", "micro"))["status"]
        assert (status["message"], status["progressPercent"]) == (FULL.message, 40)
        await yard.advance(RETRY_SECONDS)
        assert await yard.ready("Image", "micro") == ("Ready", "True", "Ready")


async def test_an_import_shows_how_far_it_is_and_holds_nobody_up() -> None:
    async with Yard() as yard:
        yard.importer.steps = [Progress(), Progress(42, "Fetching packages")]
        await yard.create("Image", "micro")
        assert await yard.ready("Image", "micro") == ("Importing", "False", "Importing")
        assert (await yard.body("Image", "micro"))["status"]["message"] == "builds micro-guest"
        await yard.advance(0.6)
        status = (await yard.body("Image", "micro"))["status"]
        assert (status["message"], status["progressPercent"]) == ("42 %: Fetching packages", 42)
        await yard.advance(1)
        assert await yard.ready("Image", "micro") == ("Ready", "True", "Ready")


async def test_content_that_vanished_is_made_again() -> None:
    async with Yard() as yard:
        await yard.create("Image", "micro")
        await yard.advance(1)
        yard.importer.held.clear()
        yard.importer.steps = [Progress(10, "Fetching packages")] * 1000
        await yard.advance(KIND.resync_seconds + 1)
        assert await yard.ready("Image", "micro") == ("Importing", "False", "Importing")
        yard.importer.steps.clear()
        await yard.advance(1)
        assert await yard.ready("Image", "micro") == ("Ready", "True", "Ready")
        assert yard.importer.built == 2


async def test_content_that_comes_out_as_something_else_is_not_taken_for_it() -> None:
    async with Yard() as yard:
        await yard.create("Image", "micro")
        await yard.advance(1)
        old = (await yard.body("Image", "micro"))["status"]["digest"]
        yard.importer.held.clear()
        yard.importer.digest = "sha256:" + "ee" * 32
        await yard.advance(KIND.resync_seconds + 1)
        assert await yard.ready("Image", "micro") == ("Failed", "False", "DigestMismatch")
        assert (await yard.body("Image", "micro"))["status"]["digest"] == old


async def test_an_import_that_never_succeeds_gets_stuck_and_says_what_would_help() -> None:
    async with Yard() as yard:
        yard.importer.refuse = [FULL] * 1000
        await yard.create("Image", "micro")
        await yard.advance(DEADLINES["Importing"] + RETRY_SECONDS)
        conditions = {c["type"]: c for c in (await yard.body("Image", "micro"))["status"]["conditions"]}
        assert conditions["Stuck"]["reason"] == "DiskFull"
        assert "disk has space" in conditions["Stuck"]["message"]


async def test_a_slow_import_is_not_stuck_while_it_moves() -> None:
    async with Yard() as yard:
        importing, deadline = [Progress(None, "", 0)] * 100_000, DEADLINES["Importing"]
        yard.importer.steps = importing
        await yard.create("Image", "micro")
        for done in range(1, 4):
            yard.importer.steps = [Progress(done, f"{done} MB", done)] * 100_000
            await yard.advance(deadline - 10)
            assert await yard.stuck("Image", "micro") == ""
            assert (await yard.body("Image", "micro"))["status"]["message"] == f"{done} %: {done} MB"
        await yard.advance(20)
        assert "packages" in await yard.stuck("Image", "micro")


async def test_an_import_that_begins_again_and_again_is_stuck_all_the_same() -> None:
    async with Yard() as yard:
        yard.importer.steps = [Progress(50, "", 50), Progress(10, "", 10)] * 100_000
        await yard.create("Image", "micro")
        await yard.advance(DEADLINES["Importing"] + 5)
        assert await yard.stuck("Image", "micro") != ""


def test_validate() -> None:
    good = Image(metadata=Metadata(name="micro"), spec=ImageSpec())
    assert validate(good, None) == []
    assert validate(good, good) == []
    bad = Image(metadata=Metadata(name="mi.cro"), spec=ImageSpec())
    assert [cause.field for cause in validate(bad, None)] == ["metadata.name"]
