"""Every page at two widths in two themes: no axe violation, no sideways scroll down to 320 px, and a picture of it.

Pictures go to `PICTURES` as CI's output.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page

from tests.portal.conftest import PHONE, PICTURES, WIDE
from tests.portal.town import CHAT, LAB, REAL, VM, Town

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real]

HERE = Path(__file__).parent
SMALL = (320, 640)
AXE = (HERE / "axe.min.js").read_text()
STILL = """() => Promise.allSettled(
  document.getAnimations().filter((a) => a.effect.getComputedTiming().endTime !== Infinity).map((a) => a.finished))"""
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]

PAGES = {
    "signin": ("", "/signin"),
    "link": ("", "/signin?link=x"),
    "missing": ("root", "/in/all/nothing"),
    "fleet": ("root", "/fleet"),
    "hosts": ("root", "/hosts"),
    "host": ("root", "/hosts/fake-016"),
    "host-real": ("root", f"/hosts/{REAL}"),
    "instances": ("root", "/in/all/instances"),
    "endpoints": ("root", "/in/all/endpoints"),
    "invoices": ("root", "/in/all/invoice"),
    "overview": ("ada", "/overview"),
    "instance": ("ada", f"/in/{LAB}/instances/{VM.name}"),
    "endpoint": ("ada", f"/in/{LAB}/endpoints/{CHAT.name}"),
    "invoice": ("ada", f"/in/{LAB}/invoice"),
    "keys": ("ada", f"/in/{LAB}/keys"),
    "key": ("ada", f"/in/{LAB}/keys/web-app"),
    "usage": ("ada", f"/in/{LAB}/usage"),
    "playground": ("ada", f"/in/{LAB}/playground"),
    "members": ("root", f"/in/{LAB}/members"),
    "credentials": ("ada", f"/in/{LAB}/credentials"),
    "quota": ("ada", f"/in/{LAB}/quota"),
    "flavors": ("ada", "/flavors"),
    "models": ("ada", "/models"),
    "model": ("ada", "/models/smollm2-135m"),
}
# Each width and each theme is seen in every run, all four together in the long one.
MODES = [
    pytest.param(size, theme, id=f"{size[0]}-{theme}", marks=marks)
    for size, theme, marks in (
        (WIDE, "light", ()),
        (PHONE, "dark", ()),
        (WIDE, "dark", pytest.mark.long),
        (PHONE, "light", pytest.mark.long),
    )
]


async def violations(page: Page) -> list[str]:
    """What axe finds, as sentences, once nothing moves or fades any more: what is half drawn is pale."""
    await page.evaluate(STILL)
    await page.evaluate(AXE)
    found = await page.evaluate(
        "async (tags) => (await axe.run(document, { runOnly: { type: 'tag', values: tags } })).violations", TAGS
    )
    return [f"{v['id']}: {v['help']} at {', '.join(str(n['target']) for n in v['nodes'][:3])}" for v in found]


async def sideways(page: Page) -> int:
    """Pixels by which a page is wider than its window."""
    return int(await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


async def opened(page: Page, name: str) -> None:
    """What a page can show besides: dialogs, drawers, drills."""
    if name == "invoice":
        await page.locator(".line").first.click()
        await page.locator(".drill:visible tbody tr").first.wait_for()
    if name == "endpoint":
        await page.fill("#say", "Why is steel blown with air? Two sentences.")
        await page.click("#send")
        await page.locator(".msg__who:has-text('first token')").wait_for()
        await page.locator("#plot canvas").wait_for()
    if name == "model":
        await page.locator("#load-next canvas").wait_for()
    if name in ("usage", "key"):
        await page.locator("#plot-next canvas").wait_for()
    if name == "playground":
        await page.fill("#system", "You are a metallurgist.")
        await page.fill("#say", "Why is steel blown with air? Two sentences.")
        await page.click("#send")
        await page.locator(".msg__who:has-text('first token')").wait_for()


@pytest.mark.parametrize(("size", "theme"), MODES)
async def test_every_page(t: Town, visitor: Callable[..., Any], size: tuple[int, int], theme: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    for user in ("", "root", "ada"):
        async with visitor(user, size, theme) as somebody:
            page = await somebody.context.new_page()
            for name, (who, path) in PAGES.items():
                if who != user:
                    continue
                await page.goto(somebody.url + path)
                await opened(page, name)
                await page.wait_for_timeout(150)
                assert await violations(page) == [], f"{name} {size[0]} {theme}"
                assert await sideways(page) <= 0, f"{name} {size[0]}"
                await page.screenshot(path=PICTURES / f"{name}-{size[0]}-{theme}.png", full_page=size is PHONE)
                if size is PHONE:
                    await narrow(page, name)


async def narrow(page: Page, name: str) -> None:
    """The page, as it is now, on a small phone: no wider than that."""
    await page.set_viewport_size({"width": SMALL[0], "height": SMALL[1]})
    assert await sideways(page) <= 0, f"{name} {SMALL[0]}"
    await page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_what_opens_over_a_page(t: Town, visitor: Callable[..., Any], theme: str) -> None:
    async with visitor("root", WIDE, theme) as admin:
        page = await admin.open("/fleet")
        await page.get_by_role("button", name="As code").click()
        assert await violations(page) == []
        await page.screenshot(path=PICTURES / f"code-{WIDE[0]}-{theme}.png")
        await page.keyboard.press("Escape")
        await page.keyboard.press("Control+k")
        await page.get_by_role("option").first.wait_for()
        assert await violations(page) == []
        await page.screenshot(path=PICTURES / f"search-{WIDE[0]}-{theme}.png")
    async with visitor("root", PHONE, theme) as admin:
        page = await admin.open("/fleet")
        await page.get_by_role("button", name="More").click()
        await page.wait_for_timeout(300)
        assert await violations(page) == []
        await page.screenshot(path=PICTURES / f"nav-{PHONE[0]}-{theme}.png")
