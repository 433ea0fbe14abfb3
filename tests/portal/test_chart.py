"""The map where there are too many hosts for elements: painted, walked by keys, pressed, live; ten thousand of them.

What ten thousand cost is printed (``-s``), not judged: it is a figure of the machine.
"""

from __future__ import annotations

import asyncio
import gzip
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from bessemer.client import Me
from bessemer.core.clock import SystemClock
from bessemer.core.resource import Key
from bessemer.portal.assets import Assets
from bessemer.portal.desk import Desk
from bessemer.portal.draw import Pen
from bessemer.portal.facts import ClaimFact, DeviceFact, Fact, HostFact, NumaFact, TenantFact
from bessemer.portal.live import Tab
from bessemer.portal.pages import chart, fleet
from bessemer.portal.pages.chart import Memo
from tests.api.world import BASE
from tests.portal.test_guard import caller
from tests.portal.test_looks import sideways, violations
from tests.portal.test_pages import until
from tests.portal.town import REAL, Town

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real]

Visit = Callable[..., Any]
PICTURES = Path(__file__).parents[2] / ".out" / "screenshots"
FOCUSED = "document.activeElement.getAttribute('aria-label')"


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """The town's 25 hosts are already too many."""
    monkeypatch.setattr(chart, "TILES_MAX", 10)


@pytest.mark.usefixtures("few")
async def test_a_painted_map_is_one_tab_stop_that_arrows_walk(t: Town, visitor: Visit) -> None:
    async with visitor("root") as admin:
        page = await admin.open("/fleet")
        await page.locator(".filters button").last.focus()
        await page.keyboard.press("Tab")
        assert await page.evaluate(FOCUSED) == f"{REAL}, no GPU, 2 threads in eighths: acme 3, free 5"
        await page.keyboard.press("ArrowRight")
        await page.keyboard.press("ArrowRight")
        assert (await page.evaluate(FOCUSED)).startswith("fake-001, H100 80GB: foundry 8; fake host")
        await page.keyboard.press("End")
        assert (await page.evaluate(FOCUSED)).startswith("fake-023")
        await page.keyboard.press("Home")
        assert (await page.evaluate(FOCUSED)).startswith(REAL)
        await page.keyboard.press("ArrowDown")
        assert (await page.evaluate(FOCUSED)).startswith("fake-000")
        await page.keyboard.press("Tab")
        assert not await page.evaluate("document.activeElement.matches('.spot')")
        await page.keyboard.press("Shift+Tab")
        assert (await page.evaluate(FOCUSED)).startswith("fake-000")
        await page.keyboard.press("Enter")
        await expect(page).to_have_url(f"{t.url}/hosts/fake-000")


@pytest.mark.usefixtures("few")
async def test_a_painted_host_says_what_it_is_and_opens(t: Town, visitor: Visit) -> None:
    async with visitor("root") as admin:
        page = await admin.open("/fleet")
        box = await page.locator(".chart").bounding_box()
        spot = await page.locator(".spot").nth(1).bounding_box()
        assert box
        assert spot
        await page.mouse.move(box["x"] + 60, box["y"] + 80)
        await page.mouse.move(box["x"] + 64, box["y"] + 82)
        name = str(await page.locator(".spot").first.get_attribute("aria-label"))
        await expect(page.locator(".tip")).to_have_text(name)
        await page.mouse.click(box["x"] + 64, box["y"] + 82)
        await expect(page).to_have_url(f"{t.url}/hosts/{name.partition(',')[0]}")


@pytest.mark.usefixtures("few")
async def test_a_claim_is_painted_within_a_second(t: Town, visitor: Visit) -> None:
    key = Key("Endpoint", "osprey--render", "paint")
    meta = {"name": "paint", "namespace": key.namespace}
    await t.put({"kind": "Endpoint", "metadata": meta, "spec": {"model": "m", "flavor": "h100.1"}})
    async with visitor("root") as admin:
        page = await admin.open("/fleet")
        await asyncio.sleep(0.3)
        await t.claim(key, "fake-021", devices=["gpu-3"], milli=8000, fake=True)
        await until(
            page, "[...document.querySelectorAll('#strips i')].some((i) => /osprey/.test(i.dataset.owners || ''))"
        )
        await page.locator(".spot").nth(1).focus()
        await page.keyboard.press("End")
        await page.keyboard.press("ArrowLeft")
        await page.keyboard.press("ArrowLeft")
        assert await page.evaluate(FOCUSED) == "fake-021, H100 80GB: osprey 1, free 7; fake host"
    await t.w.call("DELETE", f"{BASE}/namespaces/{key.namespace}/endpoints/paint")


# --- ten thousand -----------------------------------------------------------------------------------------------

HOSTS, TENANTS = 10_000, 10


class Still(Desk):
    """A desk without an api behind it: its facts are what a test puts there."""

    def __init__(self, facts: dict[type[Fact], dict[Key, Any]]) -> None:
        self.facts = facts
        self.me = Me("root", True, {}, ())
        self.clock = SystemClock()

    def all(self, kind: type[Any]) -> list[Any]:
        return [found for _, found in sorted(self.facts.get(kind, {}).items())]

    def find(self, kind: type[Any], name: str, *, project: str = "") -> Any:
        return self.facts.get(kind, {}).get(Key(kind.KIND, project, name))


def crowd() -> dict[type[Fact], dict[Key, Any]]:
    """Hosts of eight GPUs under 16 to a leaf, of which two thirds are held by ten tenants."""
    gpus = tuple(
        DeviceFact(f"gpu-{i}", "gpu", "H100-SXM5-80GB", 80 << 30, i // 4, "s", "n", i, 0, True) for i in range(8)
    )
    numa = tuple(NumaFact(i, 56, 112, 1 << 40) for i in range(2))
    found: dict[type[Fact], dict[Key, Any]] = {HostFact: {}, ClaimFact: {}, TenantFact: {}}
    for i in range(TENANTS):
        key = Key("Tenant", "", f"tenant-{i}")
        found[TenantFact][key] = TenantFact(
            key=key, uid=f"t{i}", created=0, colour=i + 1, display="", plan="", members=()
        )
    for i in range(HOSTS):
        key = Key("Host", "", f"fake-{i:05d}")
        found[HostFact][key] = host(key, i, gpus=gpus, numa=numa)
        if i % 3:
            held = Key("Claim", "p", f"claim-{i}")
            found[ClaimFact][held] = claim(held, key.name, f"tenant-{i * 7 // 97 % TENANTS}", devices=1 + i % 8)
    return found


def host(key: Key, number: int, *, gpus: tuple[DeviceFact, ...], numa: tuple[NumaFact, ...]) -> HostFact:
    return HostFact(
        key=key,
        uid=key.name,
        created=0,
        phase="Ready",
        ready=True,
        site=f"site-{number // 5000}",
        leaf=f"leaf-{number // 16:03d}",
        rack="",
        spine="",
        fake=True,
        cordoned=number % 97 == 5,
        fenced=False,
        reachable=True,
        silence="",
        overcommit_milli=1000,
        cpu_model="",
        kernel="",
        virtualization="kvm",
        virtualization_note="",
        isolation="strong",
        isolation_note="",
        agent_version="",
        joined=0,
        numa=numa,
        devices=gpus,
    )


def claim(key: Key, on: str, tenant: str, *, devices: int) -> ClaimFact:
    return ClaimFact(
        key=key,
        uid=key.name,
        created=0,
        host=on,
        tenant=tenant,
        workload_kind="Endpoint",
        workload="w",
        replica=0,
        devices=tuple(f"gpu-{i}" for i in range(devices)),
        device_model="H100-SXM5-80GB",
        allocations=((0, 8000, 1 << 33),),
        fake=True,
        pid=None,
        address="",
        restarts=0,
    )


async def test_tenants_that_share_a_colour_are_each_named_with_their_part() -> None:
    desk = Still(crowd())
    other = Key("Tenant", "", "tenant-z")
    desk.facts[TenantFact][other] = replace(desk.facts[TenantFact][Key("Tenant", "", "tenant-2")], key=other)
    desk.facts[ClaimFact] = {}
    for number, (tenant, devices) in enumerate((("tenant-2", 5), ("tenant-z", 3), ("tenant-4", 8))):
        key = Key("Claim", "p", f"claim-{number}")
        desk.facts[ClaimFact][key] = claim(key, f"fake-{number:05d}", tenant, devices=devices)
    entries = {part.value: (part.name, part.count) for part in fleet.build(desk, Memo()).lists["legend"]}
    assert entries["t3"] == ("tenant-2 5, tenant-z 3", "8")
    assert entries["t5"] == ("tenant-4", "8")


async def test_cells_stand_in_the_order_of_rails() -> None:
    gpus = tuple(
        DeviceFact(f"gpu-{i}", "gpu", "H100-SXM5-80GB", 80 << 30, 0, "s", "n", rail, 0, True)
        for i, rail in enumerate((3, None, 0, 10, 1))
    )
    made = host(Key("Host", "", "h"), 0, gpus=gpus, numa=())
    assert [gpu.id for gpu in made.gpus] == ["gpu-2", "gpu-4", "gpu-0", "gpu-3", "gpu-1"]
    held = claim(Key("Claim", "p", "c"), "h", "acme", devices=1)  # gpu-0, on rail 3
    assert chart.drawn(made, [held], colour={"acme": 7}).cells == ("fr", "fr", "t7", "fr", "fr")


@pytest.mark.parametrize("tiles", [10, 1000], ids=["painted", "elements"])
async def test_the_map_says_what_its_order_is(t: Town, monkeypatch: pytest.MonkeyPatch, tiles: int) -> None:
    monkeypatch.setattr(chart, "TILES_MAX", tiles)
    async with caller(t, "root") as admin:
        text = (await admin.get("/fleet")).text
    assert "a cell is a GPU, in rail order" in text
    assert ("hosts, their GPUs in rail order." in text) == (tiles == 10)


@asynccontextmanager
async def drawn(browser: Browser, theme: str, size: tuple[int, int]) -> AsyncIterator[tuple[Page, dict[str, float]]]:
    """The page of ten thousand hosts in a browser, without a server; and what it took to make it, milliseconds."""
    desk, memo, assets = Still(crowd()), Memo(), Assets()
    pen = Pen(clock=SystemClock(), asset=assets.url, facts={"factory": "Crowd", "version": "0", "gateway": ""})
    took = {}
    began = time.perf_counter()
    page = fleet.build(desk, memo)
    took["build, first"] = time.perf_counter() - began
    began = time.perf_counter()
    html = pen.page(page, tab="x", theme=theme)
    took["draw"] = time.perf_counter() - began
    tab = Tab(lambda: fleet.build(desk, memo), page.lists)
    key = Key("Claim", "p", "late")
    desk.facts[ClaimFact][key] = claim(key, "fake-00000", "tenant-4", devices=8)
    began = time.perf_counter()
    news = list(tab.news(pen.part))
    took["news of one claim"] = time.perf_counter() - began
    took["kB of page"] = len(html) / 1e6
    took["packed"] = len(gzip.compress(html.encode(), 6)) / 1e6
    took["kB of news"] = sum(map(len, news)) / 1e6

    async def answer(request: Request) -> Response:
        return HTMLResponse(html)

    app = Starlette(routes=[Route("/fleet", answer), Route("/static/{digest}/{name:path}", assets.serve)])
    context = await browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=theme)  # type: ignore[arg-type]
    tab_ = await context.new_page()
    await tab_.route("**/*", _from(app))
    try:
        yield tab_, {name: 1000 * seconds for name, seconds in took.items()}
    finally:
        await context.close()


def _from(app: Starlette) -> Callable[[Any], Any]:
    from starlette.testclient import TestClient

    client = TestClient(app)

    async def fulfil(route: Any) -> None:
        found = await asyncio.to_thread(client.get, route.request.url.removeprefix("https://crowd"))
        await route.fulfill(status=found.status_code, body=found.content, content_type=found.headers["content-type"])

    return fulfil


MEASURES = "Object.fromEntries(performance.getEntriesByType('measure').map((m) => [m.name, m.duration]))"
PAN = """async () => {
  const times = [];
  for (let i = 0; i < 60; i += 1) {
    scrollTo(0, i * 40);
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    times.push(performance.getEntriesByName("map-paint")[0].duration);
  }
  return times.sort((a, b) => a - b);
}"""


@pytest.mark.parametrize(("theme", "size"), [("light", (1440, 900)), ("dark", (390, 844))])
async def test_ten_thousand_hosts(browser: Browser, theme: str, size: tuple[int, int]) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    async with drawn(browser, theme, size) as (page, took):
        began = time.perf_counter()
        await page.goto("https://crowd/fleet")
        await page.wait_for_function("performance.getEntriesByName('map-paint').length === 1")
        took["until painted"] = 1000 * (time.perf_counter() - began)
        told = took | await page.evaluate(MEASURES)
        await page.screenshot(path=PICTURES / f"crowd-{size[0]}-{theme}.png")
        pans = await page.evaluate(PAN)
        told |= {"paint while it pans, median": pans[30], "and the longest": pans[-1]}
        told["elements"] = await page.evaluate("document.querySelectorAll('*').length")
        sys.stdout.write("\n" + "  ".join(f"{name} {value:.1f}" for name, value in told.items()) + "\n")
        await page.locator(".spot").nth(1).focus()
        await page.keyboard.press("End")
        assert (await page.evaluate(FOCUSED)).startswith("fake-09999, H100 80GB: ")
        assert await violations(page) == []
        assert await sideways(page) <= 0
