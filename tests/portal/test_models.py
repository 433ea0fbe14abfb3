"""The page of a model: which one a name means, what of a vetting is shown to whom, and that it lives."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from playwright.async_api import expect

from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import Key
from bessemer.kinds.fleet.flavor import FlavorSpec
from bessemer.kinds.inference.footprint import fits, footprint
from tests.portal.conftest import PHONE
from tests.portal.test_guard import caller
from tests.portal.town import LAB, SMALL, Town, vetting_status

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGE = "/models/smollm2-135m"
DIGEST = "sha256:" + "cd" * 32


async def own(t: Town, project: str, name: str, *, digest: str = DIGEST, **spec: Any) -> Key:
    """A project's model, which is here."""
    source = {"hub": {"repository": "acme/tuned"}}
    metadata = {"name": name, "namespace": project}
    body = {"kind": "ProjectModel", "metadata": metadata, "spec": {"source": source, **spec}}
    await t.put(body, phase="Ready", format="gguf", facts=SMALL.dump(), digest=digest)
    return Key("ProjectModel", project, name)


async def vetting(t: Town, project: str, name: str, model: str, *, digest: str = DIGEST, **more: Any) -> Key:
    key = Key("Vetting", project, name)
    spec = {"model": model, "flavor": "serve-small", **more}
    made = {"kind": "Vetting", "metadata": {"name": name, "namespace": project}, "spec": spec}
    await t.put(made, **vetting_status(digest))
    return key


async def gone(t: Town, *keys: Key) -> None:
    """Asked to go; nobody here lets go of them, so each test has names of its own."""
    for key in keys:
        await t.w.store.objects.delete(key, CONTROLLER)


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text))


async def test_a_member_sees_all_that_was_measured_in_their_project(t: Town) -> None:
    async with caller(t, "ada") as ada:
        text = plain((await ada.get(PAGE)).text)
        assert "smol-small on serve-small, 2 slots of 2,048 tokens" in text
        assert "€ 0.67, 23 h 20 min of a claim" in text
        assert "no call of the tool that must be called" in text
        assert "391 MiB Measured, at most 346 MiB (−12%)" in text


async def test_another_tenant_sees_no_vetting_of_theirs_and_no_money(t: Town) -> None:
    key = Key("Model", "", "smollm2-135m")
    async with caller(t, "rita") as rita:
        text = (await rita.get(PAGE)).text
        assert "smol-small" not in text
        assert "€" not in text
        assert "Not measured yet" in text
        # What the operator publishes is everybody's: times of a claim, and no money.
        body = orjson.loads((await t.w.store.objects.get(key)).body)
        await t.status(key, vetted=vetting_status(body["status"]["digest"])["vetted"])
        text = plain((await rita.get(PAGE)).text)
        assert "23 h 20 min of a claim" in text
        assert "€" not in text
        assert "What it was asked stands in its vetting, which is not yours to see." in text
        await t.status(key, vetted=None)
        assert (await rita.get(f"{PAGE}?vetting={LAB}/smol-small")).status == 404


async def test_what_fits_is_what_the_command_line_says(t: Town) -> None:
    made = footprint(SMALL, engine="llamacpp", arguments={})
    assert made is not None
    flavor = FlavorSpec.model_validate({"cores": 1, "memory": "1Gi"})
    each = [fits(made, flavor, engine="llamacpp", arguments={}, context=size).slots for size in (2048, 8192)]
    async with caller(t, "ada") as ada:
        text = plain((await ada.get(PAGE)).text)
        assert f"serve-small 1Gi {each[0]} {each[1]}" in text


async def test_a_name_means_in_a_project_what_it_means_there(t: Town) -> None:
    made = await own(t, LAB, "tuned", shared=True)
    measured = await vetting(t, LAB, "tuned-small", "tuned")
    other = await vetting(t, LAB, "tuned-old", "tuned", digest="sha256:" + "ef" * 32)
    async with caller(t, "ada") as ada, caller(t, "rita") as rita:
        text = plain((await ada.get(f"/in/{LAB}/models/tuned")).text)
        assert "Model of acme / research" in text
        assert "tuned-small on serve-small" in text
        assert "tuned-old" not in text, "it measured other bytes"
        assert (await rita.get(f"/in/{LAB}/models/tuned")).status == 404
        platforms = await ada.get(f"/in/{LAB}/models/smollm2-135m?vetting={LAB}/smol-small")
        assert (platforms.status, platforms.headers["Location"]) == (303, f"{PAGE}?vetting={LAB}/smol-small")
        listed = (await ada.get(f"/in/{LAB}/kinds/projectmodels")).text
        assert f'href="/in/{LAB}/models/tuned"' in listed
        listed = (await ada.get(f"/in/{LAB}/kinds/vettings")).text
        assert f'href="/in/{LAB}/models/tuned?vetting={LAB}/tuned-small"' in listed
        assert f'href="{PAGE}"' in (await ada.get("/models")).text
    await gone(t, made, measured, other)


async def test_one_that_no_engine_serves_says_so(t: Town) -> None:
    made = await own(t, LAB, "odd")
    await t.status(made, format="onnx")
    async with caller(t, "ada") as ada:
        page = await ada.get(f"/in/{LAB}/models/odd")
        assert page.status == 200
        assert "engine auto does not serve Model odd, whose format is onnx" in page.text
        assert "bessemer model vet odd --flavor FLAVOR" in page.text
    await gone(t, made)


async def test_one_that_embeds_has_no_tokens_that_are_written(t: Town) -> None:
    made = await own(t, LAB, "vectors")
    measured = await vetting(t, LAB, "vectors-small", "vectors", task="embed")
    status = vetting_status(DIGEST)
    zero = {"written": 0, "ttftP50": 0.0, "ttftP95": 0.0, "interTokenP50": 0.0, "interTokenP95": 0.0}
    points = [{**one, **zero} for one in status["points"]]
    none = {"outputPerSecond": 0.0, "ttftMs": 0.0, "interTokenMs": 0.0, "outputSeconds": 0.0}
    await t.status(measured, points=points, vetted={**status["vetted"], **none, "task": "embed", "endMs": 812.0})
    async with caller(t, "ada") as ada:
        page = (await ada.get(f"/in/{LAB}/models/vectors")).text
        assert 'id="load-end"' in page
        assert 'id="load-first"' not in page
        text = plain(page)
        assert "Reads 15.5 tokens/s" in text
        assert "An answer 812 ms" in text
        assert "First token –" not in text
        assert "Input € 0.67" in text
        assert "Output €" not in text
    await gone(t, made, measured)


@pytest.mark.real
async def test_the_page_lives_while_it_is_measured(t: Town, visitor: Callable[..., Any]) -> None:
    made = await own(t, LAB, "living")
    measured = await vetting(t, LAB, "now", "living")
    status = vetting_status(DIGEST)
    await t.status(measured, phase="Measuring", vetted=None, progressPercent=40, points=status["points"][:1])
    async with visitor("ada", PHONE) as member:
        page = await member.open(f"/in/{LAB}/models/living")
        await expect(page.locator("#points tr")).to_have_count(1)
        await expect(page.locator("#load-of")).to_contain_text("; 40 %")
        await page.locator("#load-first canvas").wait_for()
        await expect(page.locator("#load-tokens")).to_have_attribute("aria-label", re.compile("from 0.2 to 0.2"))
        await t.status(measured, **status)
        await expect(page.locator("#points tr")).to_have_count(3)
        await expect(page.locator("#load-key")).to_have_text("bears 0.4 requests a second")
        await expect(page.locator("#load-tokens")).to_have_attribute("aria-label", re.compile("from 0.2 to 0.8"))
        await expect(page.locator("#stat-bears")).to_contain_text("0.4")
    await gone(t, made, measured)
