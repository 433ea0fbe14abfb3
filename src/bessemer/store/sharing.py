"""Devices in part: shares of one, and instances that it is cut into, each of another claim.

Invariants: a device is whole a claim's, or shared, or cut, or free; the shares of one come to 1000 thousandths at most,
and its instances are such as its table allows together. Its row in ``devices`` says `SHARED` while anybody has a part
of it, so that whoever takes devices whole, and what becomes of a device that vanishes, need know nothing of this. No
device is shared before the schema that knows of it is carried alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import orjson
from sqlalchemy import bindparam, delete, insert, or_, select, update

from bessemer.core.errors import Taken
from bessemer.core.hosts import Inventory
from bessemer.core.slices import WHOLE_MILLI, Partitioning, standing
from bessemer.core.values import ClaimSpec
from bessemer.store.beside import carried_alone
from bessemer.store.schema import devices, of, partitions, shares
from bessemer.store.transaction import Tx

SHARED = "*"
"""Names no claim: no uid is like that."""
_SCHEMA = 8

_DEVICE = (of(devices.c.host), of(devices.c.device))
_OPEN = (
    update(devices)
    .values(claim=bindparam("claim"))
    .where(*_DEVICE, or_(devices.c.claim == "", devices.c.claim == SHARED), devices.c.healthy == 1, devices.c.lost == 0)
    .returning(devices.c.model)
)
_CLOSE = update(devices).values(claim="").where(*_DEVICE)
_FORGET = delete(devices).where(*_DEVICE, devices.c.lost == 1)
_MODEL = select(devices.c.model).where(*_DEVICE)
_ADD = insert(shares)
_ON_DEVICE = select(shares.c.milli, shares.c.profile, shares.c.start).where(of(shares.c.host), of(shares.c.device))
_OF_CLAIM = select(shares.c.host, shares.c.device).where(of(shares.c.claim))
_DROP = delete(shares).where(of(shares.c.claim))
ALL_SHARES = select(shares.c.host, shares.c.device, shares.c.claim, shares.c.milli, shares.c.profile, shares.c.start)

_TABLES = select(partitions.c.model, partitions.c.body).where(of(partitions.c.host))
_TABLE = select(partitions.c.body).where(of(partitions.c.host), of(partitions.c.model))
_ADD_TABLE = insert(partitions)
_SET_TABLE = update(partitions).values(body=bindparam("body")).where(of(partitions.c.host), of(partitions.c.model))
_DROP_TABLE = delete(partitions).where(of(partitions.c.host), of(partitions.c.model))
_DROP_TABLES = delete(partitions).where(of(partitions.c.host))
ALL_TABLES = select(partitions.c.host, partitions.c.model, partitions.c.body)

Part = tuple[int, str, int]
"""Thousandths, profile, start."""


def declare(tx: Tx, host: str, *, inventory: Inventory) -> None:
    """Let the tables of a host be what its agent says. What stands by an older one stays as it is."""
    current = dict(tx.all(_TABLES, of_host=host))
    found = {model: orjson.dumps(table.dump()).decode() for model, table in inventory.partitions.items()}
    for model, body in found.items():
        if model not in current:
            tx.run(_ADD_TABLE, host=host, model=model, body=body)
        elif current[model] != body:
            tx.run(_SET_TABLE, of_host=host, of_model=model, body=body)
    for model in current.keys() - found.keys():
        tx.run(_DROP_TABLE, of_host=host, of_model=model)


def withdraw(tx: Tx, host: str) -> None:
    """Drop the tables of a host."""
    tx.run(_DROP_TABLES, of_host=host)


def take(tx: Tx, spec: ClaimSpec, *, uid: str) -> Counter[str] | None:
    """Give the claim its part of its one device; answers that by model. None where the row is not to be had: another
    has it whole, or it is not sound, or not there any more. Raises Taken, saying why, where the part is not."""
    if not carried_alone(tx, _SCHEMA):
        raise Taken("devices are not shared while a release serves which knows nothing of it")
    host, (device, *more) = spec.host, spec.devices
    if more:
        raise Taken(f"a share of {1 + len(more)} devices; it is of one")
    row = tx.one(_OPEN, of_host=host, of_device=device, claim=SHARED)
    if row is None:
        return None
    part = {"milli": spec.device_milli, "profile": spec.device_profile, "start": spec.device_start}
    # Written, then judged with all others: writers stand in line, and what is refused is taken back with the rest.
    tx.run(_ADD, host=host, device=device, claim=uid, **part)
    table = tx.one(_TABLE, of_host=host, of_model=row[0])
    trouble = wrong(tx.all(_ON_DEVICE, of_host=host, of_device=device), None if table is None else read_table(table[0]))
    if trouble:
        raise Taken(f"device {device} of host {host} {trouble}")
    return Counter({row[0]: 1})


def free(tx: Tx, uid: str) -> Counter[str]:
    """Take back what the claim has in part; answers its devices by model. What was lost is forgotten."""
    models: Counter[str] = Counter()
    held = tx.all(_OF_CLAIM, of_claim=uid)
    if held:
        tx.run(_DROP, of_claim=uid)
    for host, device in held:
        models[tx.one(_MODEL, of_host=host, of_device=device)[0]] += 1
        if not tx.all(_ON_DEVICE, of_host=host, of_device=device):
            tx.run(_FORGET, of_host=host, of_device=device)
            tx.run(_CLOSE, of_host=host, of_device=device)
    return models


def read_table(body: str) -> Partitioning:
    """From a row of ``partitions``."""
    return Partitioning.model_validate_json(body)


def tells(table: Partitioning | None, parts: Sequence[Part]) -> bool:
    """Whether the table has each instance of these: an agent may change it under those that stand."""
    instances = [(profile, milli) for milli, profile, _ in parts if profile]
    return not instances or (table is not None and all(table.milli_of(name) == milli for name, milli in instances))


def wrong(parts: Sequence[Part], table: Partitioning | None) -> str:
    """What of these parts of one device does not go together, as the end of a sentence; "" where all do."""
    instances = [(profile, start) for _, profile, start in parts if profile]
    if not instances:
        total = sum(milli for milli, _, _ in parts)
        return f"is asked for {total} thousandths in all" if total > WHOLE_MILLI else ""
    if len(instances) < len(parts):
        return "is shared by thousandths and cut at once"
    if table is None:
        return "cannot be cut"
    if any(table.milli_of(profile) != milli for milli, profile, _ in parts):
        return "has no such profile, or its instance is another part of it"
    return "has not those slices free" if standing(table, instances) is None else ""
