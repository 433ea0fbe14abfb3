"""What a settled batch must be, and whose a project's money is. Invoices are followed in the client's tests."""

from __future__ import annotations

import orjson

from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import API_VERSION, Key
from tests.api.world import BASE, GATEWAY, World, usage_batch, usage_record


async def test_a_batch_that_cannot_be_read_is_refused_by_field(w: World) -> None:
    reply = await w.call("POST", f"{BASE}/usage", usage_batch([{"at": "soon"}]), peer=GATEWAY)
    assert reply.code == 422
    assert "records.0.at" in [cause["field"] for cause in reply.json["details"]["causes"]]
    assert (await w.call("POST", f"{BASE}/usage", b"[" * 100_000, peer=GATEWAY)).code == 400


async def test_a_gap_in_a_spool_is_a_conflict(w: World) -> None:
    batch = usage_batch([usage_record()], first=5)
    assert (await w.call("POST", f"{BASE}/usage", batch, peer=GATEWAY)).code == 409


async def test_a_projects_money_is_its_tenants_alone(w: World) -> None:
    rob, eve = await w.login("rob"), await w.login("eve")
    for sub in ("invoice", "ledger", "reconcile", "usage", "use"):
        assert (await w.call("GET", f"{BASE}/projects/acme--lab/{sub}", token=rob)).code == 200
        assert (await w.call("GET", f"{BASE}/projects/acme--lab/{sub}", token=eve)).code == 404
        assert (await w.call("GET", f"{BASE}/projects/acme--none/{sub}")).code == 404


async def test_a_project_made_again_has_no_bill_of_the_one_before(w: World) -> None:
    """Its name is the same, its uid is not: neither invoice nor export shows what the other one used."""
    now = int(w.clock.now())
    batch = usage_batch([usage_record(at=now, project="acme--old", inputTokens=1_000_000)])
    first = await w.store.objects.create(project("acme--old"), CONTROLLER)
    assert (await w.call("POST", f"{BASE}/usage", batch, peer=GATEWAY)).code == 200
    where = f"{BASE}/projects/acme--old"
    window = f"from={now - 60}&to={now + 60}"
    bill, export = [(await w.call("GET", f"{where}/{sub}?{window}")).json for sub in ("invoice", "ledger")]
    assert [line["quantity"] for line in bill["lines"]] == [1_000_000]
    assert bill["projectUid"] == export["projectUid"] == first.uid
    tenant = await w.store.objects.get(Key("Tenant", "", "acme"))
    assert [(row["tenantUid"], row["projectUid"]) for row in export["rows"]] == [(tenant.uid, first.uid)]
    doomed = orjson.loads((await w.store.objects.delete(first.key, CONTROLLER)).body)
    await w.store.objects.replace({**doomed, "metadata": {**doomed["metadata"], "finalizers": []}}, CONTROLLER)
    await w.store.objects.create(project("acme--old"), CONTROLLER)
    bill, export = [(await w.call("GET", f"{where}/{sub}?{window}")).json for sub in ("invoice", "ledger")]
    assert (bill["lines"], export["rows"]) == ([], [])


def project(name: str) -> dict[str, object]:
    return {"apiVersion": API_VERSION, "kind": "Project", "metadata": {"name": name}, "spec": {}}
