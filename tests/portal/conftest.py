"""A furnished town and a browser, one of each for a module: its tests share a loop and leave the town as it was."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright, expect

from tests.api.world import PASSWORD
from tests.portal.town import Town, town

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = (
    "--no-sandbox",
    "--ignore-certificate-errors",  # a context's own setting does not reach shared workers
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_HARMLESS = ("the server responded with a status of",)
"""Chromium notes each answer of 400 and more; tests that provoke one look at the answer itself."""

WIDE, PHONE = (1440, 900), (390, 844)
EXPECT_MS = 30_000
"""How long anything may take that a page is to show; playwright's own five seconds are too few for a busy machine."""
PICTURES = Path(__file__).parents[2] / ".out" / "screenshots"
"""Where pictures of pages go, as CI's output."""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def t() -> AsyncIterator[Town]:
    with tempfile.TemporaryDirectory(prefix="bsm-") as folder:
        async with town(Path(folder)) as made:
            yield made


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser() -> AsyncIterator[Browser]:
    expect.set_options(timeout=EXPECT_MS)
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield chromium
        await chromium.close()


class Visitor:
    """Somebody at a browser. ``complaints`` is what the console, the policy and the scripts said of any page."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.context = context
        self.url = url
        self.complaints: list[str] = []
        context.on("page", self._listen)

    def _listen(self, page: Page) -> None:
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(f"{page.url}: {error}"))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not any(text in message.text for text in _HARMLESS):
            self.complaints.append(f"{message.type}: {message.text}")

    async def sign_in(self, user: str, password: str = PASSWORD) -> Page:
        page = await self.context.new_page()
        await page.goto(f"{self.url}/signin")
        await page.fill("#user", user)
        await page.fill("#password", password)
        await page.click("button:has-text('Sign in')")
        return page

    async def open(self, path: str) -> Page:
        page = await self.context.new_page()
        await page.goto(self.url + path)
        return page


@pytest.fixture
def visitor(t: Town, browser: Browser) -> Callable[..., object]:
    """``async with visitor("ada", size, theme) as somebody``: signed in where a user is named; content at the end."""

    @asynccontextmanager
    async def visit(
        user: str = "", size: tuple[int, int] = WIDE, theme: str = "light", **options: object
    ) -> AsyncIterator[Visitor]:
        context = await browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            ignore_https_errors=True,
            color_scheme="dark" if theme == "dark" else "light",
            has_touch=size[0] < 800,
            **options,  # type: ignore[arg-type]
        )
        somebody = Visitor(context, t.url)
        try:
            if user:
                page = await somebody.sign_in(user)
                await page.wait_for_url(lambda url: "/signin" not in url)
                await page.close()
            yield somebody
        finally:
            await context.close()
        assert not somebody.complaints

    return visit
