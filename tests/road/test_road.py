"""The whole road once, as a newcomer walks it: one factory that ``up`` started, from the sign-in to the invoice.

Nothing here stands in for anything: guest, engine, gateway process, portal, Chromium, the official client, kubectl and
the command line are the real ones, and there are no fake hosts. The tests share the factory and run in the order in
which they stand: the first walks the road, the others look at what it left.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import openai
import pytest
import pytest_asyncio
import yaml
from playwright.async_api import Page, async_playwright, expect

from bessemer.core.resource import Key
from bessemer.core.tokens import replica_secret
from bessemer.main import identities
from bessemer.main.settings import load
from tests.api.kubectl import Kubectl, binary
from tests.faults.plant import ENDPOINT, GUEST, INSTANCE, PROJECT, REPLICA, SPECS, Plant, eventually, is_ready, running
from tests.oracle import program
from tests.portal.conftest import ARGUMENTS, CHROMIUM, EXPECT_MS, PICTURES, WIDE, Visitor

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real]

PERSON = "ada"
QUESTION = "What did the Bessemer process make?"
TOKENS_MAX = 24
LIVE_MS = 30_000
"""How long a page may take to show what the api says; on a quiet machine it takes a tenth of a second."""
BOOT = ["Pending", "Preparing", "Booting", "Running"]
MODEL = SPECS[ENDPOINT]["model"]
RATES = {"Tokens in": 50_000, "Tokens in, cached": 12_500, "Tokens out": 200_000}
"""Micro-units for a million tokens, as every installation starts."""

# Keeps what a page says of the state of the one thing in its list, word after word.
WATCH = """() => {
  window.untouched = true; window.said = [];
  const list = document.querySelector("#rows");
  const look = () => {
    const word = (list.querySelector(".status")?.innerText || "").trim().split(/[\\s,]/)[0];
    if (word && said.at(-1) !== word) said.push(word);
  };
  new MutationObserver(look).observe(list, { childList: true, subtree: true, characterData: true });
}"""

T = TypeVar("T")


class Tokens(NamedTuple):
    """Tokens of some requests: in, those of them that were cached, and out."""

    input: int = 0
    cached: int = 0
    output: int = 0

    def plus(self, other: Tokens) -> Tokens:
        return Tokens(*(a + b for a, b in zip(self, other, strict=True)))

    def less(self, other: Tokens) -> Tokens:
        return Tokens(*(a - b for a, b in zip(self, other, strict=True)))


@dataclass
class Road:
    """A factory that is up, and a person at a browser."""

    plant: Plant
    visitor: Visitor
    used: list[Tokens] = field(default_factory=list)
    """Of each request, as it was counted and billed."""

    async def picture(self, page: Page, name: str) -> None:
        """A picture of what a page shows, as CI's output."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        await page.screenshot(path=PICTURES / f"road-{name}.png", full_page=True)

    async def listed(self, kind: str) -> Page:
        """The page of all things of a kind, as yet without one, which keeps what it will say of the first."""
        page = await self.visitor.open(f"/in/{PROJECT}/{kind}")
        await expect(page.locator("#rows")).to_contain_text(f"No {kind[:-1]} yet")
        await page.evaluate(WATCH)
        return page

    async def counted(self) -> Tokens:
        """What the engine itself counts; its prompt counter leaves cached tokens out."""
        uid = self.plant.claims[REPLICA.name]
        key = identities.key_of(self.plant.paths, identities.GATEWAY_KEY)
        found = await self.plant.drivers.engine.metrics(uid, replica_secret(key, uid))
        cached = found.prompt_tokens_cached_total
        return Tokens(found.prompt_tokens_total + cached, cached, found.tokens_predicted_total)

    async def billed(self) -> tuple[int, Tokens]:
        """Requests in the ledger, and their tokens."""
        rows = [row for row in (await self.plant.ledger())["rows"] if row["kind"] == "tokens"]
        names = ("inputTokens", "cachedInputTokens", "outputTokens")
        return sum(row.get("requests", 0) for row in rows), Tokens(*(sum(row.get(n, 0) for row in rows) for n in names))

    async def metered(self, request: Callable[[], Awaitable[T]]) -> tuple[T, Tokens]:
        """What one request says, and its tokens: as the engine counts them, so they stand in the ledger."""
        counted, (requests, billed) = await self.counted(), await self.billed()
        said = await request()

        async def settled() -> bool:
            return (await self.billed())[0] > requests

        await eventually(settled, seconds=60, what="the request is settled in the ledger")
        total, now = await self.billed()
        tokens = now.less(billed)
        assert total == requests + 1
        assert (await self.counted()).less(counted) == tokens
        self.used.append(tokens)
        return said, tokens


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def road() -> AsyncIterator[Road]:
    """Up, with a tenant and its person; a browser that keeps what its pages complain of."""
    with running({}) as plant:
        member = {"user": PERSON, "role": "tenant-admin"}
        await plant.create(Key("User", "", PERSON), {"displayName": "Ada"})
        await plant.create(Key("Tenant", "", "acme"), {"displayName": "Acme", "members": [member]})
        await plant.create(Key("Project", "", PROJECT), {"displayName": "Lab"})
        expect.set_options(timeout=EXPECT_MS)
        async with async_playwright() as playwright:
            chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
            context = await chromium.new_context(
                viewport={"width": WIDE[0], "height": WIDE[1]}, ignore_https_errors=True, color_scheme="light"
            )
            yield Road(plant, Visitor(context, identities.urls(load(plant.paths))["portal"]))
            await chromium.close()


@pytest.fixture
def kubectl(road: Road, tmp_path: Path) -> Kubectl:
    """kubectl with the kubeconfig that ``up`` wrote."""
    return Kubectl(binary(), road.plant.paths.kubeconfig, tmp_path)


async def test_from_a_sign_in_to_an_invoice(road: Road, kubectl: Kubectl) -> None:
    await signs_in(road)
    await boots(road, kubectl)
    page = await serves(road)
    await chats(road, page)
    await streams(road)
    requests, tokens = await road.billed()
    assert requests == len(road.used) == 4
    await expect(page.locator("#stat-requests .figure")).to_have_text("4", timeout=LIVE_MS)
    await expect(page.locator("#stat-out .figure")).to_have_text(str(tokens.output), timeout=LIVE_MS)
    assert await page.evaluate("window.untouched"), "usage came without a reload"
    await road.picture(page, "endpoint")
    await pays(road, tokens)
    assert not road.visitor.complaints


async def test_kubectl_with_the_kubeconfig_that_up_wrote(road: Road, kubectl: Kubectl) -> None:
    config = yaml.safe_load(kubectl.config.read_text())
    files = {**config["clusters"][0]["cluster"], **config["users"][0]["user"]}
    paths = [files[name] for name in ("certificate-authority", "client-certificate", "client-key")]
    assert not any(Path(path).is_absolute() for path in paths), "a state directory may move"
    body = await road.plant.body(INSTANCE)
    host = body["status"]["host"]
    hosts = (await kubectl.run("get", "hosts")).splitlines()
    assert len(hosts) == 2
    assert hosts[1].split()[:2] == [host, "Ready"]
    instances = (await kubectl.run("get", "instances", "-A")).splitlines()
    assert instances[0].split()[:4] == ["NAMESPACE", "NAME", "PHASE", "READY"]
    assert instances[1].split()[:6] == [PROJECT, INSTANCE.name, "Running", "True", "micro", host]
    place = ("-n", PROJECT)
    met = await kubectl.run("wait", "--for=condition=Ready", "endpoint/smol", *place, "--timeout=30s")
    assert met == "endpoint.bessemer.dev/smol condition met\n"
    told = await kubectl.run("describe", "instance", INSTANCE.name, *place)
    assert body["metadata"]["uid"] in told
    assert re.search(rf"^ +Kernel: +{re.escape(body['status']['guest']['kernel'])}$", told, re.MULTILINE)
    events = told.partition("\nEvents:\n")[2]
    assert re.search(r"^ +Normal +Booting .*\n(.*\n)* +Normal +Ready ", events, re.MULTILINE)


async def test_the_command_line_at_what_runs(road: Road) -> None:
    place = ("-n", PROJECT)
    first = await _typing(road, "console", INSTANCE.name, *place)
    await _says(first, b"\n echo $((6*7)) is the answer\n", until=b"42 is the answer")
    second = await _typing(road, "console", INSTANCE.name, *place)
    _, err = await second.communicate()
    assert second.returncode == 1, "a console is one person's"
    assert b"error: " in err
    assert b"console" in err.rpartition(b"error: ")[2]
    _, err = await first.communicate(b"\x1d")
    assert first.returncode == 0, err
    log = await asyncio.to_thread(road.plant.run, "logs", "instance", INSTANCE.name, *place)
    assert "42 is the answer" in log
    assert await asyncio.to_thread(road.plant.run, "logs", "endpoint", ENDPOINT.name, *place)
    talk = ("chat", ENDPOINT.name, QUESTION, *place)
    said, tokens = await road.metered(lambda: asyncio.to_thread(road.plant.run, *talk))
    assert said.strip()
    assert tokens.output > 0
    names = [body["metadata"]["name"] for body in await road.plant.bodies("ApiKey")]
    assert not [name for name in names if name.startswith("chat-")], "its key went with the talk"


async def test_a_second_implementation_comes_to_the_total_of_the_invoice(road: Road, tmp_path: Path) -> None:
    rows = tmp_path / "rows.json"
    said = await asyncio.to_thread(road.plant.run, "invoice", "-n", PROJECT, "--export", str(rows), "-o", "json")
    bill = json.loads(said)
    assert bill["totalMicro"] > 0
    assert {line["workloadName"] for line in bill["lines"]} == {INSTANCE.name, ENDPOINT.name}
    ours = program.shown(bill["totalMicro"])
    assert program.total(rows) == ours
    assert program.total(program.falsified(rows, "tokens", outputTokens=10**6)) != ours
    assert program.total(program.falsified(rows, "open", milliCores=64_000)) != ours


# --- the way, step by step ---


async def signs_in(road: Road) -> None:
    """By a link of the command line, which is good once."""
    link = (await asyncio.to_thread(road.plant.run, "user", "link", PERSON)).strip()
    assert link.startswith(road.visitor.url)
    page = await road.visitor.context.new_page()
    await page.goto(link)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page).to_have_url(f"{road.visitor.url}/overview")
    await expect(page.locator(".account summary")).to_have_attribute("aria-label", re.compile(PERSON))
    again = await road.visitor.context.new_page()
    await again.goto(link)
    await again.get_by_role("button", name="Sign in").click()
    await expect(again.get_by_role("alert")).to_contain_text("was used")
    await page.close()
    await again.close()


async def boots(road: Road, kubectl: Kubectl) -> None:
    """A guest, made through the api: pages that were open before it was follow its boot, and kubectl waits for it."""
    plant, rows = road.plant, await road.listed("instances")
    await plant.until(Key("Image", "", SPECS[INSTANCE]["image"]), is_ready, seconds=180)
    await plant.create(INSTANCE, SPECS[INSTANCE])
    await rows.locator("#rows").get_by_role("link", name=INSTANCE.name, exact=True).wait_for(timeout=LIVE_MS)
    page = await road.visitor.open(f"/in/{PROJECT}/instances/{INSTANCE.name}")
    await page.evaluate("window.untouched = true")
    target = ("wait", "--for=condition=Ready", f"instance/{INSTANCE.name}", "-n", PROJECT, "--timeout=180s")
    waiting = asyncio.create_task(kubectl.run(*target))
    await expect(page.locator(".phase--now")).to_contain_text("Boot", timeout=60_000)
    await road.picture(page, "boot")
    body = await plant.until(INSTANCE, is_ready, seconds=180)
    await expect(page.locator(".phase--done")).to_have_count(len(BOOT), timeout=LIVE_MS)
    await expect(page.locator("#head")).to_contain_text("Running", timeout=LIVE_MS)
    await expect(page.locator("#facts")).to_contain_text(body["status"]["guest"]["kernel"], timeout=LIVE_MS)
    await expect(page.locator("#feed")).to_contain_text("the guest", timeout=LIVE_MS)
    await expect(page.locator("#log")).to_contain_text(re.compile(r"\S"), timeout=LIVE_MS)
    await expect(rows.locator("#rows .status")).to_contain_text("Running", timeout=LIVE_MS)
    said = await rows.evaluate("window.said")
    assert said == [phase for phase in BOOT if phase in said], "phase after phase, none twice"
    assert said[-2:] == ["Booting", "Running"]
    for one in (page, rows):
        assert await one.evaluate("window.untouched"), "it came without a reload"
    assert await waiting == f"instance.bessemer.dev/{INSTANCE.name} condition met\n"
    await road.picture(page, "instance")
    await plant.note(GUEST)


async def serves(road: Road) -> Page:
    """A model behind llama.cpp; its page, which stays open from now."""
    plant, rows = road.plant, await road.listed("endpoints")
    await plant.until(Key("Model", "", MODEL), is_ready, seconds=180)
    await plant.create(ENDPOINT, SPECS[ENDPOINT])
    await rows.locator("#rows").get_by_role("link", name=ENDPOINT.name, exact=True).wait_for(timeout=LIVE_MS)
    page = await road.visitor.open(f"/in/{PROJECT}/endpoints/{ENDPOINT.name}")
    await page.evaluate("window.untouched = true")
    await plant.until(ENDPOINT, is_ready, seconds=180)
    await expect(page.locator("#head")).to_contain_text("Ready", timeout=LIVE_MS)
    await expect(rows.locator("#rows .status")).to_contain_text("Ready", timeout=LIVE_MS)
    assert await rows.evaluate("window.untouched"), "it came without a reload"
    await plant.note(REPLICA)
    return page


async def chats(road: Road, page: Page) -> None:
    """A question in the playground has a real answer, metered as any."""
    who = page.locator(".msg:not(.msg--me) .msg__who")

    async def ask() -> int:
        await page.fill("#max", str(TOKENS_MAX))
        await page.fill("#say", QUESTION)
        await page.click("#send")
        await expect(who).to_contain_text("first token", timeout=60_000)
        found = re.search(r"(\d+) tokens", await who.inner_text())
        assert found is not None
        return int(found[1])

    shown, tokens = await road.metered(ask)
    assert 0 < shown == tokens.output <= TOKENS_MAX
    assert (await page.locator(".msg:not(.msg--me) .msg__text").inner_text()).strip()


async def streams(road: Road) -> None:
    """An application with a key of its own: the unchanged client, over TLS, by the installation's own authority."""
    plant = road.plant
    token = (await asyncio.to_thread(plant.run, "key", "create", "app", "-n", PROJECT)).strip()
    url = identities.urls(load(plant.paths))["gateway"]
    async with openai.AsyncOpenAI(base_url=url, api_key=token, max_retries=0) as stranger:
        with pytest.raises(openai.APIConnectionError):
            await stranger.models.list()
    trust = ssl.create_default_context(cafile=str(plant.paths.ca_certificate))
    http = openai.DefaultAsyncHttpxClient(verify=trust)
    async with openai.AsyncOpenAI(base_url=url, api_key=token, max_retries=0, http_client=http) as ai:
        await eventually(lambda: _offered(ai), seconds=60, what="the gateway knows the key")
        for _ in range(2):
            told, tokens = await road.metered(lambda: _streamed(ai))
            assert told == tokens
        assert tokens.cached > 0, "the same question once more is in the engine's cache"
        told, tokens = await road.metered(lambda: _answered(ai))
        assert told == tokens


async def pays(road: Road, tokens: Tokens) -> None:
    """The invoice's page has a line for all that was held and used, and they add up."""
    page = await road.visitor.open(f"/in/{PROJECT}/invoice")
    for group in (f"Instance {INSTANCE.name}", f"Endpoint {ENDPOINT.name}"):
        await expect(page.locator("tr.group", has_text=group)).to_have_count(1)
    for name in ("Cores", "Memory"):
        await expect(page.get_by_role("button", name=name, exact=True)).to_have_count(2)
    counts = {
        "Tokens in": tokens.input - tokens.cached,
        "Tokens in, cached": tokens.cached,
        "Tokens out": tokens.output,
    }
    for name, count in counts.items():
        button = page.get_by_role("button", name=f"{name}, {MODEL}", exact=True)
        line = page.locator("tr:not(.drill)", has=button)
        await expect(line.locator("[id$=-quantity]")).to_have_text(f"{count:,} tokens")
        micro = (count * RATES[name] + 500_000) // 1_000_000
        await expect(line.locator("[id$=-amount]")).to_have_text(f"€ {micro / 10**6:.6f}")

    async def adds_up() -> bool:
        lines, total = await page.evaluate(
            "[[...document.querySelectorAll('[id$=-amount]')].map((cell) => cell.innerText),"
            " document.querySelector('#bill-total').innerText]"
        )
        return sum(map(_micro, lines)) == _micro(total) > 0

    await eventually(adds_up, seconds=LIVE_MS / 1000, what="the lines add up to the total")
    await road.picture(page, "invoice")


# --- small ones ---


def _micro(amount: str) -> int:
    return round(float(amount.removeprefix("€").strip()) * 10**6)


async def _offered(ai: openai.AsyncOpenAI) -> bool:
    try:
        return ENDPOINT.name in [model.id async for model in ai.models.list()]
    except openai.AuthenticationError:
        return False


async def _typing(road: Road, *words: str) -> Process:
    """A command that is typed into."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bessemer", *words, env=road.plant.environment(), stdin=PIPE, stdout=PIPE, stderr=PIPE
    )


async def _says(process: Process, typed: bytes, *, until: bytes) -> None:
    """Type, and read what it shows up to these words."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(typed)
    async with asyncio.timeout(60):
        await process.stdout.readuntil(until)


def _question() -> dict[str, Any]:
    """``timings_per_token`` asks llama.cpp for what it counted of this very request."""
    return {
        "model": ENDPOINT.name,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": TOKENS_MAX,
        "temperature": 0,
        "extra_body": {"timings_per_token": True},
    }


async def _streamed(ai: openai.AsyncOpenAI) -> Tokens:
    """A streamed answer's tokens, of which usage and timings say the same."""
    text, usage, timings, pieces = "", None, None, 0
    stream = await ai.chat.completions.create(**_question(), stream=True, stream_options={"include_usage": True})
    async for chunk in stream:
        piece = "".join(choice.delta.content or "" for choice in chunk.choices)
        text, pieces = text + piece, pieces + bool(piece)
        usage = chunk.usage or usage
        timings = (chunk.model_extra or {}).get("timings") or timings
    assert text.strip()
    assert pieces > 1, "it came piece by piece"
    return _told(usage, timings)


async def _answered(ai: openai.AsyncOpenAI) -> Tokens:
    """The tokens of an answer in one piece."""
    answer = await ai.chat.completions.create(**_question())
    assert (answer.choices[0].message.content or "").strip()
    return _told(answer.usage, (answer.model_extra or {}).get("timings"))


def _told(usage: Any, timings: Any) -> Tokens:
    """What the client was told, twice."""
    found = Tokens(timings["prompt_n"] + timings["cache_n"], timings["cache_n"], timings["predicted_n"])
    assert (usage.prompt_tokens, usage.completion_tokens) == (found.input, found.output)
    return found
