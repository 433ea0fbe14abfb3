"""What a plan says, asked of the server and shown to a person."""

from __future__ import annotations

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

PLANNED = frozenset(ASKS)
_AFTER_MAX = 16
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
    head = f"{name}: {'fits' if status['fits'] else 'does not fit'}"
    parts = [render.GAP.join(filter(None, (head, fake))), *_facts(status, within=within)]
    if status["replicas"]:
        parts += ["", _places(status, within=within)]
    if status["hosts"]:
        parts += ["", *_drawn(status["hosts"])]
    return "\n".join(parts)


def _facts(status: Mapping[str, Any], *, within: int) -> Iterator[str]:
    lines: list[tuple[str, str]] = []
    replicas = status["replicas"]
    if status["wanted"] != 1 or not replicas:
        lines.append(("room", status["message"].partition("; ")[0]))
    if replicas:
        lines.append(("why", replicas[0].get("why", "")))
        lines += [("next", _next(replicas[0]["others"]))] if replicas[0].get("others") else []
        lines += [("not on", _reasons(replicas[0]["reasons"]))] if replicas[0].get("reasons") else []
    if (refused := status.get("refusal")) is not None:
        lines.append(("no room", refused["message"]))
        lines += [("remedy", refused["remedy"])] if refused["remedy"] else []
    for one in status["hindrances"]:
        lines.append(("but", ". ".join(filter(None, (one["message"], one["remedy"])))))
    if (price := status.get("price")) is not None:
        lines.append(("price", f"{show_money(price['microPerHour'], price['currency'])} an hour while it runs"))
    lines.append(("start", "at once" if status.get("expectedStart") else "not known"))
    wide = [_NAME, max(len(words) for _, words in lines)]
    return (render.line(["  " + name, words], wide, within=within, gap="") for name, words in lines)


def _next(others: Sequence[Mapping[str, Any]]) -> str:
    first, *rest = others
    if not first["host"]:
        more = f"; {len(rest)} more were looked at" if rest else ""
        return f"another host: {first['why']}{more}"
    return "; ".join(f"{one['host']}: {one['why']}" for one in others)


def _reasons(reasons: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(f"{one['hosts']} host{'s' if one['hosts'] != 1 else ''}: {one['text']}" for one in reasons)


def _places(status: Mapping[str, Any], *, within: int) -> str:
    """A line per replica; those that are alike but for their number stand in one where they are many."""
    rows = [
        [
            str(one["replica"]),
            one["host"],
            _devices(one["devices"]),
            _by_node(one["allocations"], "milliCores"),
            _by_node(one["allocations"], "memoryBytes"),
        ]
        for one in status["replicas"]
    ]
    return render.columns(["REPLICA", "HOST", "DEVICES", "CORES", "MEMORY"], rows, within=within)


def _devices(devices: Sequence[Mapping[str, Any]]) -> str:
    if not devices:
        return "-"
    models = ", ".join(dict.fromkeys(device["model"] for device in devices))
    part = devices[0]["profile"] or f"{devices[0]['milli'] / 1000:g} of it"
    share = f" {part}" if devices[0]["profile"] or devices[0]["milli"] < 1000 else ""
    return f"{models}: {' '.join(device['id'] for device in devices)}{share}"


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
