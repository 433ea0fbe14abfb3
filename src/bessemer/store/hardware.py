"""Capacity rows of hosts: NUMA nodes and devices, followed from inventories, taken and freed by claims.

Invariant: a device names at most one claim, or that several have it in part (`sharing`), and no `take` uses more of a
node than it has. What vanishes under a claim is kept until the claim goes: a device marked lost, a node with nothing
left to give.
"""

from __future__ import annotations

from collections import Counter

from sqlalchemy import bindparam, delete, insert, select, update

from bessemer.core.asking import Allocation
from bessemer.core.errors import Taken
from bessemer.core.hosts import Device, Inventory
from bessemer.core.values import ClaimSpec
from bessemer.store import sharing
from bessemer.store.schema import devices, filled, hosts, numa, of
from bessemer.store.transaction import Tx

_HOST = select(hosts.c.schedulable).where(of(hosts.c.host))
_ADD_HOST = insert(hosts)
_SET_HOST = update(hosts).values(schedulable=bindparam("schedulable")).where(of(hosts.c.host))

_NODES = select(
    numa.c.node, numa.c.milli_cores, numa.c.memory_bytes, numa.c.milli_cores_used, numa.c.memory_bytes_used
).where(of(numa.c.host))
_THIS_NODE = (of(numa.c.host), of(numa.c.node))
_ADD_NODE = insert(numa)
_SET_NODE = (
    update(numa).values(milli_cores=bindparam("milli_cores"), memory_bytes=bindparam("memory_bytes")).where(*_THIS_NODE)
)
_DROP_NODE = delete(numa).where(*_THIS_NODE, numa.c.milli_cores_used == 0, numa.c.memory_bytes_used == 0)
_CORES = numa.c.milli_cores_used + bindparam("cores")
_MEMORY = numa.c.memory_bytes_used + bindparam("memory")
_USE_NODE = (
    update(numa)
    .values(milli_cores_used=_CORES, memory_bytes_used=_MEMORY)
    .where(*_THIS_NODE, numa.c.milli_cores >= _CORES, numa.c.memory_bytes >= _MEMORY)
)
_FREE_NODE = (
    update(numa)
    .values(
        milli_cores_used=numa.c.milli_cores_used - bindparam("cores"),
        memory_bytes_used=numa.c.memory_bytes_used - bindparam("memory"),
    )
    .where(*_THIS_NODE)
)

_THIS_DEVICE = (of(devices.c.host), of(devices.c.device))
_DEVICES = select(
    devices.c.device, devices.c.model, devices.c.kind, devices.c.healthy, devices.c.claim, devices.c.lost
).where(of(devices.c.host))
ALL_DEVICES = select(devices.c.host, devices.c.device, devices.c.model, devices.c.claim, devices.c.lost).order_by(
    devices.c.host, devices.c.device
)
_ADD_DEVICE = insert(devices)
_SET_DEVICE = (
    update(devices)
    .values({name: bindparam(name) for name in ("model", "kind", "healthy", "lost")})
    .where(*_THIS_DEVICE)
)
_LOSE_DEVICE = update(devices).values(lost=1).where(*_THIS_DEVICE, filled(devices.c.claim))
_DROP_DEVICE = delete(devices).where(*_THIS_DEVICE, devices.c.claim == "")
_USE_DEVICE = (
    update(devices)
    .values(claim=bindparam("claim"))
    .where(*_THIS_DEVICE, devices.c.claim == "", devices.c.healthy == 1)
    .returning(devices.c.model)
)
_LOOK_DEVICE = select(devices.c.claim, devices.c.healthy, devices.c.lost).where(*_THIS_DEVICE)
_HELD = select(devices.c.model).where(of(devices.c.claim), filled(devices.c.claim))
_FORGET_LOST = delete(devices).where(of(devices.c.claim), filled(devices.c.claim), devices.c.lost == 1)
_FREE_DEVICES = update(devices).values(claim="").where(of(devices.c.claim), filled(devices.c.claim))

_DROP_HOST = (
    delete(devices).where(of(devices.c.host)),
    delete(numa).where(of(numa.c.host)),
    delete(hosts).where(of(hosts.c.host)),
)


def declare(tx: Tx, host: str, *, inventory: Inventory, overcommit_milli: int, schedulable: bool) -> None:
    """Let the rows of a host be what was found there. A hardware thread counts 1000 milli-cores, times overcommit."""
    row = tx.one(_HOST, of_host=host)
    if row is None:
        tx.run(_ADD_HOST, host=host, schedulable=int(schedulable))
    elif row[0] != schedulable:
        tx.run(_SET_HOST, of_host=host, schedulable=int(schedulable))
    _declare_nodes(tx, host, inventory=inventory, overcommit_milli=overcommit_milli)
    _declare_devices(tx, host, inventory=inventory)
    sharing.declare(tx, host, inventory=inventory)


def _declare_nodes(tx: Tx, host: str, *, inventory: Inventory, overcommit_milli: int) -> None:
    current = {row[0]: (row[1], row[2]) for row in tx.all(_NODES, of_host=host)}
    found = {node.id: (node.threads * overcommit_milli, node.plain_bytes) for node in inventory.numa}
    for node, (cores, memory) in found.items():
        if node not in current:
            tx.run(
                _ADD_NODE,
                host=host,
                node=node,
                milli_cores=cores,
                memory_bytes=memory,
                milli_cores_used=0,
                memory_bytes_used=0,
            )
        elif current[node] != (cores, memory):
            tx.run(_SET_NODE, of_host=host, of_node=node, milli_cores=cores, memory_bytes=memory)
    for node in current.keys() - found.keys():
        if not tx.run(_DROP_NODE, of_host=host, of_node=node):
            tx.run(_SET_NODE, of_host=host, of_node=node, milli_cores=0, memory_bytes=0)


def _declare_devices(tx: Tx, host: str, *, inventory: Inventory) -> None:
    current = {row[0]: row for row in tx.all(_DEVICES, of_host=host)}
    found = {device.id: device for device in inventory.devices}
    for device in found.values():
        values = _device_values(device)
        row = current.get(device.id)
        if row is None:
            tx.run(_ADD_DEVICE, host=host, device=device.id, claim="", **values)
        elif row[1:4] != (values["model"], values["kind"], values["healthy"]) or row[5]:
            # A claimed device keeps the model it was counted as until its claim goes.
            if row[4]:
                values["model"] = row[1]
            tx.run(_SET_DEVICE, of_host=host, of_device=device.id, **values)
    for gone in current.keys() - found.keys():
        if not tx.run(_DROP_DEVICE, of_host=host, of_device=gone) and not current[gone][5]:
            tx.run(_LOSE_DEVICE, of_host=host, of_device=gone)


def _device_values(device: Device) -> dict[str, str | int]:
    return {"model": device.model, "kind": device.kind, "healthy": int(device.healthy), "lost": 0}


def withdraw(tx: Tx, host: str) -> None:
    """Drop every row of the host."""
    for statement in _DROP_HOST:
        tx.run(statement, of_host=host)
    sharing.withdraw(tx, host)


def take(tx: Tx, spec: ClaimSpec, *, uid: str) -> Counter[str]:
    """Give the claim what its spec names; answers its devices by model. Raises Taken, saying what was lost."""
    rows = tx.look(_HOST, of_host=spec.host)
    if not rows:
        raise Taken(f"host {spec.host} has nothing declared")
    if not rows[0][0]:
        raise Taken(f"host {spec.host} is cordoned")
    for part in spec.allocations:
        if not tx.run(_USE_NODE, of_host=spec.host, of_node=part.numa_node, **_share(part)):
            raise Taken(
                f"NUMA node {part.numa_node} of host {spec.host} has no {part.milli_cores} milli-cores "
                f"and {part.memory_bytes} bytes of memory left"
            )
    if spec.shared:
        of_one = sharing.take(tx, spec, uid=uid)
        if of_one is None:
            raise Taken(_why_not(tx, spec.host, device=spec.devices[0]))
        return of_one
    models: Counter[str] = Counter()
    for device in spec.devices:
        taken = tx.one(_USE_DEVICE, of_host=spec.host, of_device=device, claim=uid)
        if taken is None:
            raise Taken(_why_not(tx, spec.host, device=device))
        models[taken[0]] += 1
    return models


def free(tx: Tx, spec: ClaimSpec, *, uid: str) -> Counter[str]:
    """Take it back; answers the devices by model. What was lost is forgotten."""
    if spec.shared:
        models = sharing.free(tx, uid)
    else:
        models = Counter(model for (model,) in tx.all(_HELD, of_claim=uid))
        tx.run(_FORGET_LOST, of_claim=uid)
        tx.run(_FREE_DEVICES, of_claim=uid)
    for part in spec.allocations:
        tx.run(_FREE_NODE, of_host=spec.host, of_node=part.numa_node, **_share(part))
    return models


def _share(part: Allocation) -> dict[str, int]:
    return {"cores": part.taken_milli_cores, "memory": part.plain_bytes}


def _why_not(tx: Tx, host: str, *, device: str) -> str:
    row = tx.one(_LOOK_DEVICE, of_host=host, of_device=device)
    if row is None or row[2]:
        return f"device {device} is not on host {host} any more"
    if row[0] == sharing.SHARED and row[1]:
        return f"device {device} of host {host} went to others in part"
    if row[0] not in ("", sharing.SHARED):
        return f"device {device} of host {host} went to another claim"
    return f"device {device} of host {host} is not healthy"
