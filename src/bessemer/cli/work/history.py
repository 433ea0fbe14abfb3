"""The files of ``simulate``, out of what an installation knows: its hosts in groups, and who held what of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from bessemer.cli.render import as_yaml
from bessemer.cli.work.objects import list_all
from bessemer.client import Client
from bessemer.core.errors import Invalid, NotFound
from bessemer.core.hosts import Inventory
from bessemer.core.ports import Scope
from bessemer.core.resource import Key
from bessemer.core.units import MIB
from bessemer.kinds.fleet.figures import LIST

_HEAD = """\
# What there is, as `bessemer simulate describe` found it: NUMA nodes and switches of a group are taken to be even.
# Below asks say what is asked for: {weight: 3, devices: 1, models: [H100], cores: 8, memory: 64Gi, hours: 4}
"""

_Group = tuple[str, int, int, int, int, int, bool, tuple[int, ...]]


async def described(client: Client, *, fakes: bool) -> tuple[str, Sequence[str]]:
    """The fleet's file, and what is to be said of it. Fake hosts stand in it like others where there are no others, or
    with ``fakes``."""
    bodies = await list_all(client, Scope(kind="Host"))
    found = [report for body in bodies if (report := body.get("status", {}).get("report")) is not None]
    if not found:
        raise Invalid("no host has said what it is yet")
    real = [report for report in found if not report.get("fake")]
    prices, currency = await _prices(client)
    told = found if fakes or not real else real
    counts = Counter(_group(Inventory.model_validate(report)) for report in told)
    names = Counter[str]()
    groups = [_described(group, count, prices=prices, names=names) for group, count in sorted(counts.items())]
    notes = _notes(hosts=len(bodies), found=len(found), fake=len(found) - len(real), told=len(told))
    if not any("devices" in group for group in groups):
        notes.append("No host of it has a device: there is nothing that a load could fill.")
    return _HEAD + as_yaml({"currency": currency, "groups": groups, "asks": []}), notes


def _notes(*, hosts: int, found: int, fake: int, told: int) -> list[str]:
    """What is left out, and what of it is not real."""
    notes = []
    if silent := hosts - found:
        notes.append(f"{_hosts(silent)} left out: nothing has been reported of {'it' if silent == 1 else 'them'} yet.")
    if told < found:
        notes.append(f"{_hosts(fake)} left out, being fake; --fake describes {'it' if fake == 1 else 'them'} too.")
    elif fake:
        notes.append(f"{_hosts(fake)} of it {'is' if fake == 1 else 'are'} fake: no such hardware stands anywhere.")
    return notes


def _hosts(count: int) -> str:
    return f"{count} host{'s' if count != 1 else ''}"


def _group(host: Inventory) -> _Group:
    """What equal hosts have in common: model, devices, cores, memory, NUMA nodes, devices under a switch, NVLink, and
    the sizes of its partitions."""
    gpus = [device for device in host.devices if device.kind == "gpu"]
    models = Counter(device.model for device in gpus)
    switches = Counter(device.pcie_switch for device in gpus if device.pcie_switch)
    joined = len(gpus) > 1 and len({device.nvlink_domain for device in gpus}) == 1 and bool(gpus[0].nvlink_domain)
    model = models.most_common(1)[0][0] if models else ""
    per_switch = max(switches.values(), default=0)
    sizes = tuple(sorted({len(some) for some in host.nvlink_partitions}, reverse=True))
    return (model, models[model], host.threads, host.memory_bytes, len(host.numa) or 1, per_switch, joined, sizes)


def _described(group: _Group, count: int, *, prices: Mapping[str, int], names: Counter[str]) -> dict[str, Any]:
    model, devices, cores, memory, numa, per_switch, nvlink, partitions = group
    stem = "".join(letter if letter.isalnum() else "-" for letter in model.lower()) or "cores"
    names[stem] += 1
    name = stem if names[stem] == 1 else f"{stem}-{names[stem]}"
    price = prices.get(model, prices.get("*", 0)) / 1_000_000
    found = {"name": name, "count": count, "cores": cores, "memory": f"{memory // MIB}Mi", "numa": numa}
    if not devices:
        return found
    lie: dict[str, Any] = {"perSwitch": per_switch, "nvlink": nvlink}
    lie |= {"nvlinkPartitions": list(partitions)} if partitions else {}
    return {**found, "model": model, "devices": devices, **lie, "price": price}


async def _prices(client: Client) -> tuple[Mapping[str, int], str]:
    try:
        spec = orjson.loads((await client.get(Key("PricePlan", "", LIST))).body)["spec"]
    except NotFound:
        return {}, "EUR"
    return spec.get("rates", {}).get("deviceHour", {}), spec.get("currency", "EUR")


async def lines(client: Client, *, start: int, end: int) -> list[str]:
    """A line for each claim that was held in [start, end), in the order in which they began. What began before counts
    from its beginning; what ran on fake hosts is among it."""
    projects = await client.list(Scope(kind="Project"))
    found = []
    for project in projects.items:
        rows = (await client.projects.ledger(project.key.name, start, end))["rows"]
        found += list(_claims(rows))
    found.sort(key=lambda one: (one["start"], one["workload"], one["project"]))
    return [orjson.dumps(one).decode() for one in found]


def _claims(rows: Iterable[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    """From the open row of each to its close row."""
    held: dict[str, dict[str, Any]] = {}
    for row in rows:
        uid = row.get("claimUid", "")
        if row["kind"] == "open":
            held[uid] = {
                "start": row["at"],
                "tenant": row["tenant"],
                "project": row["project"],
                "workload": f"{row['workloadKind']}/{row['workloadName']}",
                "milliCores": row.get("milliCores", 0),
                "memoryBytes": row.get("memoryBytes", 0),
                "devices": row.get("devices", 0),
                "model": row.get("deviceModel", ""),
            }
        elif row["kind"] == "close" and uid in held:
            held[uid]["stop"] = row["at"]
    return held.values()
