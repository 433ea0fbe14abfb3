"""What a refusal says, of every meter of the register: whose bound, how much was asked, how much is left, and who
may raise it; at the tenant's bound and at the project's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from bessemer.core.clock import FakeClock
from bessemer.core.errors import QuotaExceeded
from bessemer.core.money import Wish
from bessemer.core.ports import CONTROLLER
from bessemer.core.quota import METERS, Meter, Quota
from bessemer.kinds import KINDS
from bessemer.store import Store, open_store, store_kinds
from tests.store.conftest import KEY
from tests.store.make import ALICE, PROJECT, body, claim, inventory

WORDS: Mapping[str, tuple[int | dict[str, int], str]] = {
    "milli_cores": (1500, "1 cores asked, 0.5 of 1.5 left"),
    "memory_bytes": (3 << 29, "1 GiB of memory asked, 512 MiB of 1.5 GiB left"),
    "devices": ({"H100": 1}, "1 H100 asked, 0 of 1 left"),
    "devices/*": ({"*": 1}, "1 devices asked, 0 of 1 left"),
    "instances": (1, "1 instances asked, 0 of 1 left"),
    "endpoints": (1, "1 endpoints asked, 0 of 1 left"),
    "jobs": (1, "1 jobs asked, 0 of 1 left"),
    "claims": (1, "1 claims asked, 0 of 1 left"),
    "api_keys": (1, "1 API keys asked, 0 of 1 left"),
    "projects": (1, "1 projects asked, 0 of 1 left"),
    "content_bytes": (1536, "1 KiB of content of models asked, 512 B of 1.5 KiB left"),
    "tokens_per_minute": (100, "60 tokens per minute asked, 40 of 100 left"),
    "spend_micro": (
        100,
        "SEK 0.00006 asked, SEK 0.00004 of SEK 0.0001 left for this month (SEK 0.00 spent, SEK 0.00006 held by "
        "gateways)",
    ),
}
"""Of each meter a bound within which there is room for one, and what the second is told."""

WHO = {
    "tenant acme": "an administrator of the platform may raise the quota",
    f"project {PROJECT}": "an administrator of the tenant may raise the quota",
}


@pytest.fixture
def product(place: str, clock: FakeClock, by_the_tests_clock: None) -> Iterator[Store]:
    """A store of the product's kinds, as it is served."""
    opened = open_store(place, clock=clock, kinds=store_kinds(KINDS), seal_key=KEY)
    yield opened
    opened.close()


def test_every_meter_has_words() -> None:
    assert {name.partition("/")[0] for name in WORDS} == {meter.name for meter in METERS}


def asked_at(name: str) -> Iterator[str]:
    """A project has no projects."""
    yield from (whose for whose in WHO if name != "projects" or whose.startswith("tenant"))


@pytest.mark.parametrize(("name", "whose"), [(name, whose) for name in WORDS for whose in asked_at(name)])
async def test_a_refusal_says_how_much_is_left_and_who_may_raise_it(product: Store, name: str, whose: str) -> None:
    meter = next(meter for meter in METERS if meter.name == name.partition("/")[0])
    bound, words = WORDS[name]
    rates = {"millionInputTokens": 1_000_000}
    plan = body("PricePlan", "standard", spec={"currency": "SEK", "rates": rates}, namespace="")
    await product.objects.create(plan, ALICE)
    stated = Quota.model_validate({meter.name: bound}).dump()
    for kind, at in (("Tenant", "acme"), ("Project", PROJECT)):
        spec = {"quota": stated if whose == f"{kind.lower()} {at}" else {}}
        if name != "projects" or kind == "Tenant":
            await product.objects.create(body(kind, at, spec=spec, namespace=""), ALICE)
    await ask(product, meter, "first")
    with pytest.raises(QuotaExceeded) as refused:
        await ask(product, meter, "second")
    assert refused.value.message == f"{whose}: {words}; {WHO[whose]}"


async def ask(store: Store, meter: Meter, name: str) -> None:
    """For one more of what the meter counts, in the way that it is counted."""
    if meter.kind:
        project = meter.kind == "Project"
        made = body(meter.kind, f"acme--{name}" if project else name, namespace="" if project else PROJECT)
        await store.objects.create(made, ALICE)
        if meter.each:
            await store.objects.replace({**made, "status": {meter.each: 1024}}, CONTROLLER, part="status")
    elif meter.window_seconds:
        await store.capacity.hold(PROJECT, meter=meter.name, amount=60)
    elif meter.told:
        wish = Wish(holder=name, micro=60, after=0)
        await store.capacity.hold(PROJECT, meter="tokens_per_minute", amount=1, money=wish)
    else:
        await store.capacity.declare("h1", inventory())
        device = "gpu-0" if name == "first" else "gpu-1"
        await store.capacity.take([claim(name, devices=(device,))], CONTROLLER)
