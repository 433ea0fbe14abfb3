"""Keys with bounds: what is written is what is made, what is wrong stands beside its field, a token is shown once."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from playwright.async_api import expect

from bessemer.core.errors import NotFound
from bessemer.core.resource import Key
from tests.portal.conftest import PHONE, PICTURES, WIDE
from tests.portal.test_guard import caller
from tests.portal.test_looks import sideways, violations
from tests.portal.town import CHAT, LAB, Town

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEYS = f"/in/{LAB}/keys"
WRITTEN = {
    "act": "new",
    "name": "batch",
    "description": "The nightly run",
    "endpoints": CHAT.name,
    "days": "30",
    "priority": "flex",
    "networks": "192.0.2.0/24, 2001:db8::/32",
    "requestsPerMinute": "1,200",
    "tokensPerDay": "5000000",
    "concurrent": "4",
    "money": "2.50",
    "tokens": "",
    "period": "Day",
}


async def spec(t: Town, name: str) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads((await t.w.store.objects.get(Key("ApiKey", LAB, name))).body)
    return dict(body["spec"])


def beside(text: str) -> dict[str, str]:
    """Field → what stands beside it."""
    return dict(re.findall(r'id="(\w+)-wrong">.*?<span>(.*?)</span>', text))


async def test_a_key_is_made_with_its_bounds_and_its_token_shown_once(t: Town) -> None:
    async with caller(t, "ada") as ada:
        answer = await ada.post(KEYS, WRITTEN)
        assert answer.status == 200
        assert answer.headers["Cache-Control"] == "no-store"
        (token,) = re.findall(r'id="secret"[^>]*>(bsk_[\w-]+)<', answer.text)
        assert token not in (await ada.get(KEYS)).text
        made = await spec(t, "batch")
        assert made.pop("expiresAt")
        assert made == {
            "description": "The nightly run",
            "endpoints": [CHAT.name],
            "disabled": False,
            "owner": "ada",
            "networks": ["192.0.2.0/24", "2001:db8::/32"],
            "priority": "flex",
            "limits": {"requestsPerMinute": 1200, "tokensPerDay": 5_000_000, "concurrent": 4},
            "budget": {"period": "Day", "micro": 2_500_000},
        }
        page = (await ada.get(f"{KEYS}/batch")).text
        for title in ("Requests per minute", "Tokens this day", "Requests at a time", "Spend this day"):
            assert title in page
        anew = await ada.post(KEYS, {"act": "token", "name": "batch"})
        (other,) = re.findall(r'id="secret"[^>]*>(bsk_[\w-]+)<', anew.text)
        assert other != token
        assert (await ada.post(KEYS, {"act": "revoke", "name": "batch"})).status == 303
        with pytest.raises(NotFound):
            await spec(t, "batch")


async def test_what_is_wrong_stands_beside_its_field_and_nothing_is_made(t: Town) -> None:
    wrong = {"name": "wrong", "endpoints": "smoll", "concurrent": "many", "money": "1.5e99", "days": "0"}
    async with caller(t, "ada") as ada:
        answer = await ada.post(KEYS, {**WRITTEN, **wrong})
        assert answer.status == 422
        assert set(beside(answer.text)) == {"endpoints", "concurrent", "money", "days"}
        assert 'value="2001' not in answer.text
        assert 'value="1,200"' in answer.text, "what was written is there, to be mended"
        # What only the api knows: whose keys one may make, and what a network is.
        theirs = {**WRITTEN, "name": "wrong", "owner": "rita", "priority": "priority", "networks": "here"}
        answer = await ada.post(KEYS, theirs)
        assert answer.status == 422
        assert beside(answer.text)
        assert "smoll" not in answer.text
        with pytest.raises(NotFound):
            await spec(t, "wrong")


async def test_nobody_sees_or_makes_keys_of_another_tenant(t: Town) -> None:
    async with caller(t, "rita") as rita:
        for path in (KEYS, f"{KEYS}/web-app", f"/in/{LAB}/usage", f"/in/{LAB}/playground"):
            assert (await rita.get(path)).status == 404, path
        assert (await rita.get(f"/in/{LAB}/usage/figures", Accept="application/json")).status == 404
        for act in ("new", "token", "revoke"):
            assert (await rita.post(KEYS, {**WRITTEN, "act": act, "name": "web-app"})).status == 404
        assert "web-app" not in (await rita.get("/in/all/keys")).text
        assert "acme" not in (await rita.get("/in/all/playground")).text
    assert (await spec(t, "web-app"))["description"] == "The web app"


async def test_figures_are_by_what_was_asked(t: Town) -> None:
    async with caller(t, "ada") as ada:
        path = f"/in/{LAB}/usage/figures"
        found = orjson.loads((await ada.get(f"{path}?by=key&window=day", Accept="application/json")).text)
        assert {row["name"] for row in found["rows"]} == {"web-app", "batch"}
        assert found["step"] == 900
        assert found["total"]["firstTokenMs"]["p95"] >= found["total"]["firstTokenMs"]["p50"] > 0
        assert found["total"]["interTokenMs"]["p50"] > 0
        one = orjson.loads((await ada.get(f"{path}?by=endpoint&key=batch", Accept="application/json")).text)
        assert 0 < one["total"]["requests"] < found["total"]["requests"]
        assert (await ada.get(f"{path}?by=nothing", Accept="application/json")).status == 400
        assert (await ada.get("/in/all/usage")).headers["Location"] == f"/in/{LAB}/usage"


@pytest.mark.real
@pytest.mark.parametrize(("size", "theme"), [pytest.param(WIDE, "dark", marks=pytest.mark.long), (PHONE, "light")])
async def test_a_key_in_a_browser(t: Town, visitor: Callable[..., Any], size: tuple[int, int], theme: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    name = f"app-{theme}"
    async with visitor("ada", size, theme) as ada:
        page = await ada.open(KEYS)
        await page.get_by_label("Name", exact=True).fill(name)
        await page.get_by_label("Requests at a time").fill("many")
        await page.get_by_role("button", name="Make it").click()
        field = page.get_by_label("Requests at a time")
        await expect(field).to_have_attribute("aria-invalid", "true")
        await expect(page.get_by_role("alert")).to_contain_text("nothing was changed")
        assert await violations(page) == []
        assert await sideways(page) <= 0
        await page.screenshot(path=PICTURES / f"key-refused-{size[0]}-{theme}.png", full_page=True)
        await field.fill("3")
        await page.get_by_role("button", name="Make it").click()
        await expect(page.locator("#secret")).to_contain_text("bsk_")
        await expect(page.get_by_role("link", name=name)).to_be_visible()
        assert await violations(page) == []
        await page.screenshot(path=PICTURES / f"key-made-{size[0]}-{theme}.png")
        await page.get_by_role("link", name=name).click()
        await expect(page.get_by_role("img", name="requests at a time: 0 of 3")).to_be_visible()
        await page.get_by_role("button", name="Revoke").click()
        await page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
        await page.wait_for_url(f"**{KEYS}")
        await expect(page.get_by_role("link", name=name)).to_have_count(0)


@pytest.mark.real
async def test_the_plots_show_what_is_chosen(t: Town, visitor: Callable[..., Any]) -> None:
    async with visitor("ada") as ada:
        page = await ada.open(f"/in/{LAB}/usage")
        await page.locator("#plot-next canvas").wait_for()
        everything = await page.locator("#plot-requests-1").inner_text()
        await page.get_by_role("button", name="Key", exact=True).click()
        pick = page.get_by_role("button", name="batch")
        await pick.focus()
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("button", name="batch")).to_be_focused()
        await expect(page.locator("#usage-of")).to_have_text("of batch")
        assert await page.locator("#plot-requests-1").inner_text() != everything
        await expect(page.locator("#plot-first")).to_have_attribute("aria-label", re.compile("the most, .* ms, at"))
        assert await violations(page) == []
        await page.get_by_role("button", name="Week").click()
        await expect(page.locator("#plot-tokens")).to_have_attribute("aria-label", re.compile("the last week"))
