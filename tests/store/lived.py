"""A store that has been lived in: a row of everything that the checks look at, and that backups and copies carry."""

from __future__ import annotations

from bessemer.core.ports import Stored, Writer
from bessemer.core.resource import Key
from bessemer.core.values import UsageBatch, UsageRecord
from bessemer.store import Store
from tests.store.make import ALICE, PROJECT, SYSTEM, agent, body, claim, inventory, read

SECRET = b"correct horse battery staple"
TENANT_SPEC = {
    "quota": {"instances": 5, "devices": {"H100": 8}},
    "limits": {"concurrent": 3},
    "sites": ["east"],
    "hosts": {"matchLabels": {"a": "b"}},
}


async def live(store: Store) -> None:
    """Tenants, a host, Claims that run, stopped and went, owners, labels, events, secrets, tokens, a correction."""
    objects, capacity = store.objects, store.capacity
    await objects.create(body("Tenant", "acme", namespace="", spec=TENANT_SPEC), SYSTEM)
    await objects.create(body("Project", PROJECT, namespace="", spec={"quota": {"claims": 9}}), SYSTEM)
    host = await objects.create(body("Host", "h1", namespace="", labels={"a": "b"}, spec={"site": "east"}), SYSTEM)
    await capacity.declare("h1", inventory(6))
    await capacity.take([claim("a", devices=("gpu-0", "gpu-1")), claim("b"), claim("c", devices=("gpu-2",))], SYSTEM)
    await capacity.release(Key("Claim", PROJECT, "instance-c-0"), SYSTEM, fenced=True)
    parts = [
        claim("d", devices=("gpu-4",), part=(250, "", 0)),
        claim("e", devices=("gpu-5",), part=(125, "1g.10gb", 6)),
    ]
    await capacity.take(parts, SYSTEM)
    for phase in ("Starting", "Running"):
        await report(store, "instance-a-0", phase)
    owner = await objects.create(body("Thing", "owner", labels={"tier": "gold", "team": "x"}), ALICE)
    reference = {"apiVersion": "bessemer.dev/v1alpha1", "kind": "Thing", "name": "owner", "uid": owner.uid}
    await objects.create(body("Thing", "owned", ownerReferences=[reference]), ALICE)
    await objects.create(body("Instance", "vm", spec={"cores": 2}), ALICE)
    await objects.delete((await objects.create(body("Thing", "gone"), ALICE)).key, ALICE)
    await store.events.emit(owner.key, owner.uid, "Seen", "something happened")
    await store.sealed.put(owner.uid, "password", SECRET)
    await store.sealed.put(host.uid, "token", SECRET)
    await store.ledger.settle(usage(1))
    rows = await store.ledger.entries()
    await store.ledger.correct(rows[-1].id, {"input_tokens": 7}, Writer("system", "billing"))
    await store.leases.acquire("host/h1", "agent", 60.0, note="there")
    await store.leases.acquire("loop/Thing", "controller", 6.0)
    await store.audit.deny(ALICE, "delete", owner.key, "not hers")
    await store.audit.sign()
    await objects.replace(body("Thing", "owner", labels={"tier": "silver"}, spec={"size": 2}), ALICE)


async def report(store: Store, name: str, phase: str) -> Stored:
    """The agent of a Claim says where it is."""
    document = read(await store.objects.get(Key("Claim", PROJECT, name)))
    document["status"] = {"phase": phase}
    return await store.objects.replace(document, agent("h1"), part="status")


def usage(sequence: int) -> UsageBatch:
    record = UsageRecord(
        at=0,
        request_id="r1",
        status=200,
        project=PROJECT,
        endpoint="chat",
        endpoint_uid="uid-chat",
        api_key="k1",
        model="smol",
        input_tokens=5,
        output_tokens=9,
    )
    return UsageBatch(gateway_uid="g1", spool_uid="s1", first_sequence=sequence, records=[record])
