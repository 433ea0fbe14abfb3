"""Checks of what is taken and what may be: hardware rows, quotas, bounds and walls, against objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from sqlalchemy import select

from bessemer.core.quota import METERS, Quota, bounds_of
from bessemer.core.resource import Key
from bessemer.store import sharing, walls
from bessemer.store.kinds import PROJECT, TENANT
from bessemer.store.schema import counters, hosts, numa, quota
from bessemer.store.schema import devices as device_rows
from bessemer.store.schema import walls as wall_rows
from bessemer.store.snapshot import Snapshot
from bessemer.store.tally import Survey, Tally

_DEVICES = select(device_rows.c.host, device_rows.c.device, device_rows.c.claim)
_MODELS = select(device_rows.c.host, device_rows.c.device, device_rows.c.model)
_NODES = select(numa.c.host, numa.c.node, numa.c.milli_cores_used, numa.c.memory_bytes_used)
_HOSTS = select(hosts.c.host)
_USE = select(quota.c.scope, quota.c.meter, quota.c.used, quota.c.bound)
_COUNTERS = select(counters.c.name, counters.c.value)
_MET = "meter/"
_WALLS = select(wall_rows.c.what, wall_rows.c.value, wall_rows.c.tenant)


def devices(snapshot: Snapshot, survey: Survey) -> Tally:
    """Device rows and Claims name each other."""
    tally = Tally("devices", "a device names the one Claim that names it, or that Claims have it in part")
    held: dict[tuple[str, str], str] = {}
    for uid, (key, spec) in survey.claims.items():
        for device in spec.devices:
            holder = sharing.SHARED if spec.shared else uid
            if held.get((spec.host, device), sharing.SHARED) != sharing.SHARED or (
                holder == uid and (spec.host, device) in held
            ):
                tally.fault(f"{key}: {spec.host}/{device} is another Claim's, too")
            held[spec.host, device] = holder
    for host, device, claim in snapshot.rows(_DEVICES):
        names = held.pop((host, device), "")
        tally.require(names == claim, f"{host}/{device}: names {_who(survey, claim)}, taken by {_who(survey, names)}")
    for (host, device), uid in held.items():
        tally.fault(f"{host}/{device}: taken by {_who(survey, uid)}, and is not there")
    return tally


def parts(snapshot: Snapshot, survey: Survey) -> Tally:
    """Rows of what is had in part, against Claims, and against what a device can be cut into."""
    tally = Tally("shares", "what Claims have in part is what its rows say, and goes together on each device")
    said = {
        (spec.host, spec.devices[0], uid): (spec.device_milli, spec.device_profile, spec.device_start)
        for uid, (_, spec) in survey.claims.items()
        if spec.shared
    }
    on_device: dict[tuple[str, str], list[sharing.Part]] = {}
    for host, device, claim, milli, profile, start in snapshot.rows(sharing.ALL_SHARES):
        part = (milli, profile, start)
        words = f"{host}/{device}: {_who(survey, claim)} has {_part(part)} by its row"
        tally.require(said.pop((host, device, claim), None) == part, f"{words}, and does not say so")
        on_device.setdefault((host, device), []).append(part)
    for (host, device, uid), part in said.items():
        tally.fault(f"{host}/{device}: {_who(survey, uid)} has {_part(part)}, and no row says so")
    models = {(host, device): model for host, device, model in snapshot.rows(_MODELS)}
    tables = {(host, model): sharing.read_table(body) for host, model, body in snapshot.rows(sharing.ALL_TABLES)}
    for (host, device), together in on_device.items():
        table = tables.get((host, models.get((host, device), "")))
        # What stands by an older table stays: of that only how much it is can be judged.
        judged = together if sharing.tells(table, together) else [(milli, "", 0) for milli, _, _ in together]
        trouble = sharing.wrong(judged, table)
        tally.require(not trouble, f"{host}/{device}: {trouble}")
    return tally


def _part(part: sharing.Part) -> str:
    milli, profile, start = part
    return f"{profile} from slice {start} on" if profile else f"{milli} thousandths"


def _who(survey: Survey, uid: str) -> str:
    claim = survey.claims.get(uid)
    if uid == sharing.SHARED:
        return "several in part"
    return str(claim[0]) if claim is not None else f"Claim {uid} which is gone" if uid else "nobody"


def nodes(snapshot: Snapshot, survey: Survey) -> Tally:
    """NUMA nodes count what stands on them."""
    tally = Tally("nodes", "cores and memory in use of a node are the sum over its Claims")
    cores: Counter[tuple[str, int]] = Counter()
    memory: Counter[tuple[str, int]] = Counter()
    for _, spec in survey.claims.values():
        for part in spec.allocations:
            cores[spec.host, part.numa_node] += part.taken_milli_cores
            memory[spec.host, part.numa_node] += part.plain_bytes
    for host, node, *used in snapshot.rows(_NODES):
        stands = [cores.pop((host, node), 0), memory.pop((host, node), 0)]
        words = f"{used[0]} milli-cores and {used[1]} bytes in use, {stands[0]} and {stands[1]} taken"
        tally.require(used == stands, f"{host} node {node}: {words}")
    for host, node in +cores | +memory:
        tally.fault(f"{host} node {node}: Claims stand there, and it is not there")
    return tally


def on_hosts(snapshot: Snapshot, survey: Survey) -> Tally:
    """What is declared is of a Host."""
    tally = Tally("hosts", "capacity is that of a Host that exists, and Claims stand where capacity is")
    declared = {str(host) for (host,) in snapshot.rows(_HOSTS)}
    for host in declared:
        tally.require(host in survey.hosts, f"host {host}: has capacity, and there is no such Host")
    for table, statement in (("devices", _DEVICES), ("nodes", _NODES)):
        for host in {row[0] for row in snapshot.rows(statement)} - declared:
            tally.fault(f"host {host}: has {table}, and nothing was declared")
    for key, spec in survey.claims.values():
        tally.require(spec.host in declared, f"{key}: stands on {spec.host}, which has no capacity")
    return tally


def use(snapshot: Snapshot, survey: Survey) -> Tally:
    """Counters of quotas against what stands."""
    tally = Tally("quota", "what a project or tenant uses of a meter is what stands of it")
    told = {meter.name for meter in METERS if meter.told}
    marks = _marks(snapshot)
    # A meter that this release knows first is counted when it opens the store to write.
    new = {meter.name for meter in METERS if (meter.kind or meter.per_claim) and meter.name not in marks}
    late = new | _waiting(marks)
    left = {place: amount for place, amount in survey.used.items() if amount and _family(place[1]) not in late}
    for scope, meter, used, _ in snapshot.rows(_USE):
        if _family(meter) not in told | late:
            stands = left.pop((scope, meter), 0)
            tally.require(used == stands, f"{scope} {meter}: {used} counted, {stands} stand")
    for (scope, meter), stands in left.items():
        tally.fault(f"{scope} {meter}: nothing counted, {stands} stand")
    return tally


def _marks(snapshot: Snapshot) -> dict[str, int]:
    """Each meter that the store has met → 1, or 0 while it waits for older replicas to go."""
    found = {str(name): int(value) for name, value in snapshot.all(_COUNTERS)}
    return {name.removeprefix(_MET): counted for name, counted in found.items() if name.startswith(_MET)}


def _waiting(marks: Mapping[str, int]) -> set[str]:
    """Meters that nothing is bound by, and whose numbers are not true yet."""
    return {meter for meter, counted in marks.items() if counted <= 0}


def _family(meter: str) -> str:
    """The meter of the register that one of a model's is of."""
    return meter.partition("/")[0]


def bounds(snapshot: Snapshot, survey: Survey) -> Tally:
    """Bounds of quotas against Tenants and Projects."""
    tally = Tally("bounds", "a quota's bound is what its Tenant or Project says")
    said: dict[tuple[str, str], int] = {}
    waiting = _waiting(_marks(snapshot))
    for key, document in survey.bounded.items():
        try:
            wanted = Quota.model_validate(document.get("spec", {}).get("quota") or {})
        except ValidationError:
            tally.fault(f"{key}: its quota cannot be read")
            continue
        scope = f"{key.kind.lower()}/{key.name}"
        said |= {(scope, meter): n for meter, n in bounds_of(wanted).items() if _family(meter) not in waiting}
    for scope, meter, _, bound in snapshot.rows(_USE):
        wants = said.pop((scope, meter), None)
        tally.require(bound == wants, f"{scope} {meter}: bound {_amount(bound)}, said {_amount(wants)}")
        if not _owner_lives(survey, scope):
            tally.fault(f"{scope} {meter}: counted for one that is gone")
    for (scope, meter), wants in said.items():
        tally.fault(f"{scope} {meter}: no bound holds, said {wants}")
    return tally


def _amount(bound: int | None) -> str:
    return "none" if bound is None else str(bound)


def _owner_lives(survey: Survey, scope: str) -> bool:
    what, _, name = scope.partition("/")
    return Key(TENANT if what == "tenant" else PROJECT, "", name) in survey.bounded


def walled(snapshot: Snapshot, survey: Survey) -> Tally:
    """Walls against Tenants."""
    tally = Tally("walls", "states, sites and dedicated hosts that hold are those that Tenants say")
    said: set[tuple[Any, ...]] = set()
    for key, document in survey.bounded.items():
        if key.kind == TENANT:
            said |= {(what, value, key.name) for what, value in walls.rows_of(document)}
    for row in snapshot.rows(_WALLS):
        tally.require(row in said, f"tenant {row[2]}: {row[0]} {row[1]} holds, and is not said")
        said.discard(row)
    for what, value, tenant in said:
        tally.fault(f"tenant {tenant}: {what} {value} is said, and does not hold")
    return tally
