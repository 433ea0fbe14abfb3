"""Limits and budgets over the api: what gateways are given of them, and what people see of a key's."""

from __future__ import annotations

from typing import Any

from bessemer.core.clock import FakeClock
from bessemer.core.loads import SUMS, EndpointLoad, LoadReport
from bessemer.gateway.vessels import Lent, Said
from tests.api.test_terms import BASE, LAB, MERGE, patch_tenant
from tests.api.world import GATEWAY, World, world

SHARES = f"{BASE}/projects/acme--lab/shares"
RATES = {"millionInputTokens": 1_000_000, "millionOutputTokens": 2_000_000}


async def lend(w: World, *wants: tuple[str, str, int], after: int | None = 0, **said: Any) -> Lent:
    asked = [{"scope": scope, "meter": meter, "amount": amount} for scope, meter, amount in wants]
    body = {"bounds": {"holder": "g1", "after": after, "key": "app", "owner": "mia", "wants": asked, **said}}
    reply = await w.call("POST", SHARES, body, peer=GATEWAY)
    assert reply.code == 200, reply.body
    return Lent.read(reply.json)


async def test_a_gateway_is_lent_all_that_it_wants_or_nothing() -> None:
    async with world(FakeClock(1_750_000_000)) as w:
        await check_lending(w)


async def check_lending(w: World) -> None:
    await w.create(
        f"{BASE}/priceplans", {"metadata": {"name": "standard"}, "spec": {"currency": "SEK", "rates": RATES}}
    )
    await patch_tenant(w, limits={"requestsPerMinute": 2})
    budget = {"period": "Month", "micro": 100}
    await w.create(f"{LAB}/apikeys", {"metadata": {"name": "app"}, "spec": {"owner": "mia", "budget": budget}})
    key, tenant = ("key/acme--lab/app", "micro/month"), ("tenant/acme", "requests/minute")
    heard = await lend(w)
    assert {(one.scope, one.meter): (one.bound, one.left) for one in heard.bounds} == {key: (100, 100), tenant: (2, 2)}
    assert (heard.prices.currency, heard.prices.output) == ("SEK", 2_000_000)
    assert all(isinstance(one, Said) and one.seconds is not None and one.seconds > 0 for one in heard.bounds)
    given = await lend(w, (*key, 60), (*tenant, 2))
    assert (given.stands, given.number, given.words) == (True, 1, "")
    refused = await lend(w, (*key, 70), (*tenant, 1), after=1)
    assert (refused.stands, refused.number) == (False, 1)
    assert refused.words == "tenant acme: 0 of 2 requests per minute left"
    assert {one.scope: one.left for one in refused.bounds} == {key[0]: 40, tenant[0]: 0}
    assert not (await lend(w, (*key, 70), after=0)).stands, "it does not know of its last word"
    told = await w.call("GET", f"{BASE}/usage?holder=g1", peer=GATEWAY)
    assert told.json == {"projects": ["acme--lab"]}
    mia = await w.login("mia")
    use = (await w.call("GET", f"{LAB}/apikeys/app/use", token=mia)).json["bounds"]
    assert use[0] == {
        "scope": "key/acme--lab/app",
        "meter": "micro/month",
        "title": "spend this month",
        "unit": "micro",
        "limit": 100,
        "used": 0,
        "held": 60,
        "left": 40,
        "until": "2025-07-01T00:00:00Z",
        "currency": "SEK",
    }
    assert [(one["scope"], one["left"]) for one in use[1:]] == [("tenant/acme", 0)]
    assert (await w.call("GET", f"{LAB}/apikeys/app/use", token=await w.login("eve"))).code in (403, 404)
    assert (await w.call("POST", SHARES, {"bounds": {"holder": "g1"}}, token=mia)).code == 403


async def test_what_nobody_can_mean_is_refused(w: World) -> None:
    wrong: tuple[Any, ...] = (
        {"bounds": {}},
        {"bounds": {"holder": ""}},
        {"bounds": {"holder": "g", "wants": [{"scope": "s", "meter": "m", "amount": -1}]}},
        {"bounds": {"holder": "g"}, "meter": "tokens_per_minute", "amount": 1},
    )
    for body in wrong:
        assert (await w.call("POST", SHARES, body, peer=GATEWAY)).code == 400, body
    theirs = {"holder": "g", "after": 0, "wants": [{"scope": "tenant/other", "meter": "concurrent", "amount": 1}]}
    assert (await w.call("POST", SHARES, {"bounds": theirs}, peer=GATEWAY)).code == 422


async def test_a_keys_spec_is_judged(w: World) -> None:
    for spec, field in (
        ({"networks": ["10.0.0.1/8"]}, "spec.networks[0]"),
        ({"networks": ["2001:db8::/32", "x"]}, "spec.networks[1]"),
        ({"limits": {"concurrent": -1}}, "spec.limits.concurrent"),
        ({"budget": {"period": "Year", "micro": 1}}, "spec.budget.period"),
    ):
        reply = await w.call("POST", f"{LAB}/apikeys", {"metadata": {"name": "k"}, "spec": spec})
        assert reply.code == 422
        assert field in {cause["field"] for cause in reply.json["details"]["causes"]}
    await w.create(f"{LAB}/apikeys", {"metadata": {"name": "k"}, "spec": {"owner": "mia"}})
    reply = await w.call("PATCH", f"{LAB}/apikeys/k", {"spec": {"owner": "ada"}}, media=MERGE)
    assert reply.code == 422
    assert "make another key" in reply.body.decode()


async def test_no_gateway_is_told_the_name_by_which_another_speaks() -> None:
    """All of them show one certificate: what tells their words apart is a name that nobody can guess."""
    name = "5f0c" * 8
    async with world(FakeClock(1_750_000_000)) as w:
        await patch_tenant(w, limits={"requestsPerDay": 2})
        await w.create(f"{LAB}/apikeys", {"metadata": {"name": "app"}, "spec": {"owner": "mia"}})
        await lend(w, ("tenant/acme", "requests/day", 2), holder=name)
        load = EndpointLoad(project="acme--lab", name="chat", uid="u", busy=0, waiting=0, sums=(0,) * len(SUMS))
        report = LoadReport(holder=name, boot="b", loads=[load])
        assert (await w.call("POST", f"{BASE}/loads", report.dump(), peer=GATEWAY)).code == 200
        leases = "/apis/coordination.k8s.io/v1/leases"
        for path in ("/spools", f"{BASE}/usage?holder=", f"{BASE}/usage?holder={name[:-1]}", leases, f"{LAB}/apikeys"):
            said = await w.call("GET", path, peer=GATEWAY)
            assert name.encode() not in said.body, path
        assert (await w.call("GET", f"{BASE}/usage?holder={name[:-1]}", peer=GATEWAY)).json == {"projects": []}
        assert (await w.call("GET", f"{BASE}/usage?holder={name}", peer=GATEWAY)).json == {"projects": ["acme--lab"]}
