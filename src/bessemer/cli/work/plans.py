"""What a plan says, asked of the server and shown to a person."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bessemer.cli import render
from bessemer.cli.manifests import Manifest
from bessemer.cli.work.declare import Item, refusal, versioned
from bessemer.cli.work.declare import items_of as all_items_of
from bessemer.client import Client
from bessemer.core.errors import Invalid, Malformed
from bessemer.core.resource import API_VERSION
from bessemer.core.units import show_bytes, show_money
from bessemer.kinds.asks import ASKS
from bessemer.kinds.fleet.terms import cost_words

PLANNED = frozenset(ASKS)
_AFTER_MAX = 16
_MEMBERS_LISTED, _HOSTS_DRAWN = 16, 4
"""Of a gang: where there are more, leaves are told in place of members, and no host is drawn."""

_WAYS: Mapping[str, str] = {
    "QuotaExceeded": "a quota",
    "HostUnaddressed": "a network that hosts have no address in",
    "FlavorNotFound": "a flavor that is not there",
    "FlavorWithdrawn": "a flavor that is not offered any more",
    "FlavorTooSmall": "a flavor that is too small",
    "ImageNotFound": "an image that is not there",
    "ModelNotFound": "a model that is not there",
    "TenantWalled": "what its tenant may not use",
    "TooManyReplicas": "the number of replicas",
}
"""What a reason is about."""

_NUMBERED = re.compile(r"(.*?)([0-9]{1,9})")
_NAME = 11
"""Columns of a word before a line."""


def items_of(found: Sequence[Manifest], *, project: str) -> tuple[list[Item], list[str]]:
    """What is placed on hosts, in the order of the files; and the names of what is not."""
    placed = [one for one in found if one.body["kind"] in PLANNED]
    passed = [f"{one.body['kind'].lower()}/{one.body['metadata']['name']}" for one in found if one not in placed]
    order = {one.place: number for number, one in enumerate(placed)}
    items = all_items_of(placed, project=project)
    return sorted(items, key=lambda item: order[item.manifest.place]), passed


async def planned(client: Client, items: Sequence[Item]) -> list[dict[str, Any]]:
    """A PlacementReview of each, as if those before it in its project stood. Raises Invalid with the place of what is
    wrong."""
    before: dict[str, list[dict[str, Any]]] = defaultdict(list)
    told = []
    for item in items:
        project, body = item.key.namespace, versioned(item.body)
        try:
            status = await client.fleet.plan(project, body, after=before[project][-_AFTER_MAX:])
        except (Invalid, Malformed) as error:
            raise Invalid(f"{item.name} cannot be planned", refusal(item, error)) from error
        before[project].append(body)
        told.append({"apiVersion": API_VERSION, "kind": "PlacementReview", "spec": {"object": body}, "status": status})
    return told


# --- for a person -----------------------------------------------------------------------------------------------------


def text(told: Mapping[str, Any], *, within: int = 0) -> str:
    """One object's plan."""
    body, status = told["spec"]["object"], told["status"]
    name = f"{body['kind'].lower()}/{body['metadata']['name']}"
    fake = "FAKE HOSTS: nothing real would run" if any(one.get("fake") for one in status["replicas"]) else ""
    head = f"{name}: {_verdict(status)}"
    parts = [render.GAP.join(filter(None, (head, fake))), *_facts(status, within=within)]
    gang = status.get("gang")
    if gang is not None and gang["members"] > _MEMBERS_LISTED:
        parts += ["", _leaves(gang, within=within)]
    elif status["replicas"]:
        parts += ["", _places(status, within=within)]
    hosts = status["hosts"] if gang is None or len(gang["hosts"]) <= _HOSTS_DRAWN else []
    if hosts:
        parts += ["", *_drawn(hosts)]
    return "\n".join(parts)


def _facts(status: Mapping[str, Any], *, within: int) -> Iterator[str]:
    lines: list[tuple[str, str]] = []
    replicas, gang = status["replicas"], status.get("gang")
    if status.get("stands"):
        lines.append(("now", f"on {', '.join(status['stands'])}; planned as if it were made anew"))
    if status["wanted"] != 1 or not replicas:
        lines.append(("room", status["message"].partition("; ")[0]))
    if replicas:
        lines.append(("why", gang["why"] if gang is not None else replicas[0].get("why", "")))
        lines += [("cost", _parts(replicas))] if gang is not None else []
        lines += [("next", _next(replicas[0]["others"]))] if replicas[0].get("others") else []
        lines += [("not on", _reasons(replicas[0]["reasons"]))] if replicas[0].get("reasons") else []
    if (refused := status.get("refusal")) is not None:
        lines.append(("no room", refused["message"]))
        lines += [("remedy", refused["remedy"])] if refused["remedy"] else []
    for one in status["hindrances"]:
        lines.append(("but", ". ".join(filter(None, (one["message"], one["remedy"])))))
    if (price := status.get("price")) is not None:
        lines.append(("price", f"{show_money(price['microPerHour'], price['currency'])} an hour while it runs"))
    turn = status.get("turn")
    lines.append(("start", _start(status, turn)))
    lines += [("stops", _stops(turn))] if turn is not None and (turn["stops"] or turn["otherClaims"]) else []
    wide = [_NAME, max(len(words) for _, words in lines)]
    return (render.line(["  " + name, words], wide, within=within, gap="") for name, words in lines)


def _verdict(status: Mapping[str, Any]) -> str:
    """Whether it fits, or what is in the way: not everything is want of room."""
    if status["fits"]:
        return "fits"
    lasting = [one["reason"] for one in status["hindrances"] if not one.get("passing")]
    ways = list(dict.fromkeys(_WAYS.get(reason, reason) for reason in lasting))
    told = f"{' and '.join(ways)} {'are' if len(ways) > 1 else 'is'} in the way"
    if not ways or status.get("refusal") is not None:
        return f"does not fit{f', and {told}' if ways else ''}"
    return f"{'there is room, but ' if status['replicas'] else ''}{told}"


def _start(status: Mapping[str, Any], turn: Mapping[str, Any] | None) -> str:
    if status.get("never"):
        return f"never, as it is: {status['never']}"
    if not status.get("expectedStart") and any(one["reason"] == "QuotaExceeded" for one in status["hindrances"]):
        return "not before the quota has room for it"
    if turn is not None and (status.get("expectedStart") or not turn.get("start")):
        return str(turn["message"])
    return "at once" if status.get("expectedStart") else "not known"


def _stops(turn: Mapping[str, Any]) -> str:
    """Who would be told to end for it: what is not its project's is counted."""
    words = [f"{one['workload']} (Claim {one['claim']})" for one in turn["stops"]]
    if many := turn["otherClaims"]:
        devices = turn["otherDevices"]
        of = f", {devices} device{'s' if devices != 1 else ''}" if devices else ""
        words.append(f"{many} claim{'s' if many != 1 else ''} of others{of}")
    return "; ".join(words)


def _next(others: Sequence[Mapping[str, Any]]) -> str:
    first, *rest = others
    if not first["host"]:
        more = f"; {len(rest)} more were looked at" if rest else ""
        return f"another host: {first['why']}{more}"
    return "; ".join(f"{one['host']}: {one['why']}" for one in others)


def _reasons(reasons: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(f"{one['hosts']} host{'s' if one['hosts'] != 1 else ''}: {one['text']}" for one in reasons)


def _parts(members: Sequence[Mapping[str, Any]]) -> str:
    """What the first member's place costs, by its parts."""
    return f"the first member costs the fleet {cost_words(members[0].get('parts', {})) or 'nothing'} there"


def _leaves(gang: Mapping[str, Any], *, within: int) -> str:
    """A line per leaf."""
    ranks: dict[str, list[int]] = defaultdict(list)
    for host in gang["hosts"]:
        ranks[host["leaf"]] += host["ranks"]
    rows = [
        [one["leaf"] or "-", one["spine"] or "-", str(one["hosts"]), str(one["members"]), _runs(ranks[one["leaf"]])]
        for one in gang["leaves"]
    ]
    return render.columns(["LEAF", "SPINE", "HOSTS", "MEMBERS", "RANKS"], rows, within=within)


def _runs(numbers: Sequence[int]) -> str:
    """``0-7,16``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _places(status: Mapping[str, Any], *, within: int) -> str:
    """A line per replica, or per member of a gang, with what is above it."""
    gang, shown = status.get("gang"), status["replicas"]
    head = ["REPLICA" if gang is None else "RANK", "HOST", "DEVICES", "CORES", "MEMORY"]
    rows = [
        [
            str(one["replica"]),
            one["host"],
            _devices(one["devices"]),
            _by_node(one["allocations"], "milliCores"),
            _by_node(one["allocations"], "memoryBytes"),
        ]
        for one in shown
    ]
    if gang is None:
        return render.columns(head, rows, within=within, spare=["MEMORY", "CORES"])
    above = {"RAILS": [_runs(one["rails"]) or "-" for one in shown], "LEAF": [one["leaf"] or "-" for one in shown]}
    for name, cells in above.items():
        if set(cells) != {"-"}:
            head.insert(2, name)
            rows = [[*row[:2], cell, *row[2:]] for row, cell in zip(rows, cells, strict=True)]
    return render.columns(head, rows, within=within, spare=["MEMORY", "CORES"])


def _devices(devices: Sequence[Mapping[str, Any]]) -> str:
    if not devices:
        return "-"
    models = ", ".join(dict.fromkeys(device["model"] for device in devices))
    part = devices[0]["profile"] or f"{devices[0]['milli'] / 1000:g} of it"
    share = f" {part}" if devices[0]["profile"] or devices[0]["milli"] < 1000 else ""
    return f"{models}: {_ids([device['id'] for device in devices])}{share}"


def _ids(names: Sequence[str]) -> str:
    """``gpu0 gpu1``, or of more in a row ``gpu0…gpu7``."""
    numbered = [_NUMBERED.fullmatch(name) for name in names]
    found = [(match[1], int(match[2])) for match in numbered if match is not None]
    row = len(found) == len(names) > 2 and len({head for head, _ in found}) == 1
    if row and [number for _, number in found] == list(range(found[0][1], found[0][1] + len(found))):
        return f"{names[0]}…{names[-1]}"
    return " ".join(names)


def _by_node(parts: Sequence[Mapping[str, Any]], field: str) -> str:
    def amount(value: int) -> str:
        return show_bytes(value) if field == "memoryBytes" else f"{value / 1000:g}"

    found = [f"{amount(part[field])} on node {part['numaNode']}" for part in parts if part[field]]
    return " + ".join(found) or "-"


def _drawn(hosts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Each chosen host's NUMA nodes, switches and devices."""
    for host in hosts:
        above = f" under {host['leaf']}" if host["leaf"] else ""
        yield f"{host['name']}{above}"
        for node in host["numa"]:
            there = [device for device in host["devices"] if device["numaNode"] == node["id"]]
            cores = f"{node['milliCoresFree'] / 1000:g} of {node['milliCores'] / 1000:g} cores"
            memory = f"{show_bytes(node['memoryFreeBytes'])} of {show_bytes(node['memoryBytes'])} free"
            yield f"  node {node['id']}  {cores}, {memory}{_switches(there)}"
    if any(host["devices"] for host in hosts):
        yield "  ■ taken  □ free  ▒ in use  × unsound"


def _switches(devices: Sequence[Mapping[str, Any]]) -> str:
    by_switch: dict[str, str] = defaultdict(str)
    for device in devices:
        by_switch[device["pcieSwitch"]] += _square(device)
    return "".join(f"  {switch}{' ' if switch else ''}{squares}" for switch, squares in by_switch.items())


def _square(device: Mapping[str, Any]) -> str:
    if device["takenMilli"]:
        return "■"
    if not device["healthy"]:
        return "×"
    return "□" if device["freeMilli"] == 1000 else "▒"
