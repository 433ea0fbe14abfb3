"""What must hold of a store's file, or database, at any commit, read with nothing of ours: SQL and JSON."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg

Connection = sqlite3.Connection | psycopg.Connection[tuple[Any, ...]]
Rows = list[tuple[Any, ...]]


def connect(path: Path | str) -> Connection:
    if str(path).startswith("postgresql:"):
        return psycopg.connect(str(path), autocommit=True)
    return sqlite3.connect(path, isolation_level=None)


def check(path: Path | str) -> None:
    """Raise AssertionError where the file contradicts itself."""
    connection = connect(path)
    try:
        # All that is read is of one commit, whoever writes meanwhile.
        connection.execute(
            "BEGIN" if isinstance(connection, sqlite3.Connection) else "BEGIN ISOLATION LEVEL SERIALIZABLE"
        )
        objects = {
            row[:3]: row[3:]
            for row in connection.execute("SELECT kind, namespace, name, uid, revision, body, labels FROM objects")
        }
        documents = {key: json.loads(row[2]) for key, row in objects.items()}
        _history(connection, objects, documents)
        _indexes(connection, documents)
        _capacity(connection, documents)
        _ledger(connection, documents)
    finally:
        connection.close()


def closed_hosts(path: Path | str) -> list[str]:
    """The hosts on which nothing may be taken."""
    connection = connect(path)
    try:
        return [row[0] for row in connection.execute("SELECT host FROM hosts WHERE schedulable = 0 ORDER BY host")]
    finally:
        connection.close()


def _history(connection: Connection, objects: dict[Any, Any], documents: dict[Any, Any]) -> None:
    counters = dict(connection.execute("SELECT name, value FROM counters").fetchall())
    changes: Rows = connection.execute(
        "SELECT revision, type, kind, namespace, name, body FROM changes ORDER BY revision"
    ).fetchall()
    assert [row[0] for row in changes] == list(range(counters["floor"] + 1, counters["revision"] + 1))
    for key, row in objects.items():
        metadata = documents[key]["metadata"]
        assert (metadata["resourceVersion"], metadata["uid"]) == (str(row[1]), row[0])
    for row in changes:
        assert json.loads(row[5])["metadata"]["resourceVersion"] == str(row[0])
    last = {tuple(row[2:5]): row for row in changes}
    for key, change in last.items():
        if change[1] == 2:
            assert key not in objects
        else:
            assert objects[key][1:3] == (change[0], change[5])


def _indexes(connection: Connection, documents: dict[Any, Any]) -> None:
    labels = {
        (*key[:1], label, value, *key[1:])
        for key, document in documents.items()
        for label, value in document["metadata"].get("labels", {}).items()
    }
    assert set(connection.execute("SELECT kind, label, value, namespace, name FROM labels")) == labels
    owners = {
        (reference["uid"], document["metadata"]["uid"])
        for document in documents.values()
        for reference in document["metadata"].get("ownerReferences", ())
    }
    living = {document["metadata"]["uid"] for document in documents.values()}
    kept = set(connection.execute("SELECT owner, uid FROM dependents"))
    assert {pair for pair in owners if pair[0] in living} <= kept
    blocking = {
        (reference["uid"], document["metadata"]["uid"])
        for key, document in documents.items()
        for reference in document["metadata"].get("ownerReferences", ())
        if reference.get("blockOwnerDeletion") and key[0] != "Event"
    }
    unknown = set(connection.execute("SELECT owner, uid FROM dependents WHERE blocks = 2"))
    noted = set(connection.execute("SELECT owner, uid FROM dependents WHERE blocks = 1"))
    # Who is gone waits for nobody, whatever still names it.
    assert {pair for pair in blocking - unknown if pair[0] in living} == {pair for pair in noted if pair[0] in living}
    assert {row[0] for row in connection.execute("SELECT uid FROM sealed")} <= living


def _capacity(connection: Connection, documents: dict[Any, Any]) -> None:
    claims = [document for key, document in documents.items() if key[0] == "Claim"]
    whole = [c for c in claims if not _part(c["spec"])]
    held = {(c["spec"]["host"], d): c["metadata"]["uid"] for c in whole for d in c["spec"].get("devices", ())}
    assert len(held) == sum(len(c["spec"].get("devices", ())) for c in whole)
    parted = _parts(connection, [c for c in claims if _part(c["spec"])])
    assert not held.keys() & parted
    held |= dict.fromkeys(parted, "*")
    rows: Rows = connection.execute("SELECT host, device, model, claim FROM devices WHERE claim <> ''").fetchall()
    assert {(row[0], row[1]): row[3] for row in rows} == held
    models = {(row[0], row[1]): row[2] for row in rows}
    nodes: Counter[tuple[str, int, str]] = Counter()
    used: Counter[tuple[str, str]] = Counter()
    for c in claims:
        spec = c["spec"]
        scopes = [f"project/{c['metadata']['namespace']}", f"tenant/{spec['tenant']}"]
        for part in spec["allocations"]:
            nodes[spec["host"], part["numaNode"], "cores"] += part["milliCores"]
            nodes[spec["host"], part["numaNode"], "memory"] += part["memoryBytes"]
        for scope in scopes:
            used[scope, "claims"] += 1
            part = _part(spec)
            used[scope, "shares/*" if part else "devices/*"] += len(spec.get("devices", ())) * (part or 1)
            for device in spec.get("devices", ()):
                used[scope, f"{'shares' if part else 'devices'}/{models[spec['host'], device]}"] += part or 1
            used[scope, "milli_cores"] += sum(part["milliCores"] for part in spec["allocations"])
            used[scope, "memory_bytes"] += sum(part["memoryBytes"] for part in spec["allocations"])
    for (scope, meter), milli in [*used.items()]:
        if meter.startswith("shares/"):
            used[scope, meter.replace("shares", "devices")] += (milli + 999) // 1000
    for key, document in documents.items():
        if key[0] == "ProjectModel":
            held_bytes = document.get("status", {}).get("heldBytes", 0)
            used[f"project/{key[1]}", "content_bytes"] += held_bytes
            used[f"tenant/{key[1].partition('--')[0]}", "content_bytes"] += held_bytes
        elif meter := {"Instance": "instances", "Endpoint": "endpoints", "Job": "jobs", "ApiKey": "api_keys"}.get(
            key[0]
        ):
            used[f"project/{key[1]}", meter] += 1
            used[f"tenant/{key[1].partition('--')[0]}", meter] += 1
        elif key[0] == "Project" and "--" in key[2]:
            used[f"tenant/{key[2].partition('--')[0]}", "projects"] += 1
    # Money is no sum over what stands: the ledger has it.
    counted = connection.execute("SELECT scope, meter, used FROM quota WHERE meter <> 'spend_micro'")
    kept = {row[:2]: row[2] for row in counted if row[2]}
    assert kept == {key: value for key, value in used.items() if value}
    for host, node, cores, memory in connection.execute(
        "SELECT host, node, milli_cores_used, memory_bytes_used FROM numa"
    ):
        assert (cores, memory) == (nodes.pop((host, node, "cores"), 0), nodes.pop((host, node, "memory"), 0))
    assert not +nodes


def _part(spec: dict[str, Any]) -> int:
    """Thousandths of its device, where the claim has one in part."""
    part = spec.get("deviceMilli", 1000) < 1000 or spec.get("deviceProfile")
    return int(spec.get("deviceMilli", 1000)) if part else 0


def _parts(connection: Connection, claims: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """The devices that are had in part: the rows are the claims', and no device is more than whole."""
    rows = set(connection.execute("SELECT host, device, claim, milli, profile, start FROM shares"))
    specs = [(c["metadata"]["uid"], c["spec"]) for c in claims]
    assert rows == {
        (s["host"], *s["devices"], uid, _part(s), s.get("deviceProfile", ""), s.get("deviceStart", 0))
        for uid, s in specs
    }
    sums: Counter[tuple[str, str]] = Counter()
    kinds: dict[tuple[str, str], set[bool]] = {}
    for host, device, _, milli, profile, _ in rows:
        sums[host, device] += milli
        kinds.setdefault((host, device), set()).add(bool(profile))
    assert all(total <= 1000 for total in sums.values())
    assert all(len(kind) == 1 for kind in kinds.values())
    return set(sums)


def _ledger(connection: Connection, documents: dict[Any, Any]) -> None:
    standing = {document["metadata"]["uid"] for key, document in documents.items() if key[0] == "Claim"}
    intervals: dict[str, Rows] = {}
    for uid, kind, at, state in connection.execute(
        "SELECT claim_uid, kind, at, state FROM ledger WHERE kind IN ('open', 'state', 'close') ORDER BY id"
    ):
        intervals.setdefault(uid, []).append((kind, at, state))
    for uid, rows in intervals.items():
        kinds = [row[0] for row in rows]
        assert kinds[0] == "open"
        assert set(kinds[1:-1]) <= {"state"}
        assert (kinds[-1] == "close") == (uid not in standing)
        times = [row[1] for row in rows]
        assert times == sorted(times)
        states = [row[2] for row in rows if row[2]]
        assert all(a != b for a, b in pairwise(states))
    assert standing <= intervals.keys()
