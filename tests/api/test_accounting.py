"""The fleet as one answer, and what a settled batch must be. Invoices are followed in the client's tests."""

from __future__ import annotations

import orjson

from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import API_VERSION, Key
from bessemer.core.values import Allocation, ClaimSpec, Device, Inventory, NumaNode, WorkloadRef
from tests.api.world import BASE, GATEWAY, World, instance, usage_batch, usage_record


async def test_the_fleet_shows_each_device_and_who_holds_it(w: World) -> None:
    agent = await w.host("h1")
    devices = [Device(id=f"gpu{i}", kind="gpu", model="H100", rail=i) for i in range(2)]
    report = Inventory(leaf="l1", numa=[NumaNode(id=0, cores=8, threads=16, memory_bytes=1 << 36)], devices=devices)
    body = {"metadata": {"name": "h1"}, "status": {"report": report.dump()}}
    assert (await w.call("PUT", f"{BASE}/hosts/h1/status", body, peer=agent)).code == 200
    await w.store.capacity.declare("h1", report)
    await w.create(f"{BASE}/namespaces/acme--lab/instances", instance("vm"))
    owner = await w.store.objects.get(Key("Instance", "acme--lab", "vm"))
    spec = ClaimSpec(
        host="h1",
        tenant="acme",
        workload=WorkloadRef(kind="Instance", name="vm", uid=owner.uid),
        devices=["gpu1"],
        device_model="H100",
        allocations=[Allocation(numa_node=0, milli_cores=1000, memory_bytes=1 << 30)],
    )
    await w.store.capacity.take([(Key("Claim", "acme--lab", "instance-vm-0"), spec, {})], CONTROLLER)
    (host,) = (await w.call("GET", "/fleet")).json["hosts"]
    assert (host["name"], host["leaf"], host["fake"]) == ("h1", "l1", False)
    free, held = sorted(host["devices"], key=lambda d: str(d["id"]))
    assert (free["claim"], free["rail"], held["rail"]) == (None, 0, 1)
    assert (held["claim"]["tenant"], held["claim"]["workload"], held["claim"]["phase"]) == ("acme", "vm", "Pending")


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
    for sub in ("invoice", "ledger", "use"):
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
