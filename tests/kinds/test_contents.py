"""KINDS as a whole: names that cannot be confused, and what every kind has."""

from __future__ import annotations

import ast
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import bessemer.kinds
from bessemer.agent.claims import claim_kind
from bessemer.core.resource import READ, Kind
from bessemer.kinds import HOST_SIDES, KINDS
from bessemer.kinds.event import Event
from tests.kinds import rest

NAMES = [kind.name for kind in KINDS]
MODULES = sorted(Path(bessemer.kinds.__file__).parent.rglob("*.py"))


def test_no_two_kinds_share_a_word() -> None:
    words = Counter(w for kind in KINDS for w in (kind.plural, kind.singular, *kind.short_names))
    assert [word for word, count in words.items() if count > 1] == []


def test_the_first_fourteen_are_there() -> None:
    expected = "Tenant Project User Session ApiKey Host Claim Flavor Image Instance Model Endpoint PricePlan Event"
    assert set(expected.split()) <= set(NAMES)
    assert set(HOST_SIDES) <= set(NAMES)


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_every_kind_introduces_itself(kind: Kind) -> None:  # type: ignore[type-arg]
    assert kind.columns, "columns"
    assert "admin" in kind.rights, "an administrator"
    assert kind.resource.model_json_schema(by_alias=True)["properties"]["metadata"]
    for column in kind.columns:
        assert column.value({"metadata": {"name": "x"}, "spec": {}, "status": {}}) is not NotImplemented


@pytest.mark.parametrize("kind", [k for k in KINDS if k.readonly], ids=lambda k: k.name)
def test_a_readonly_kind_gives_users_no_verb_that_writes(kind: Kind) -> None:  # type: ignore[type-arg]
    for role in ("admin", "tenant-admin", "member", "reader", "anyone"):
        assert set(kind.rights.get(role, ())) <= set(READ)  # type: ignore[call-overload]


def test_an_event_reads_as_core_v1_has_it() -> None:
    body = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "vm.17", "namespace": "acme--lab"},
        "involvedObject": {"kind": "Instance", "namespace": "acme--lab", "name": "vm", "uid": "u"},
        "reason": "Booting",
        "message": "the guest boots",
        "type": "Normal",
        "count": 3,
        "lastTimestamp": "2025-06-15T15:06:40Z",
        "source": {"component": "controller"},
    }
    event = Event.load(json.dumps(body))
    assert (event.involved_object.name, event.count) == ("vm", 3)
    assert "spec" not in Event.model_fields
    kind = next(kind for kind in KINDS if kind.name == "Event")
    assert (kind.group, kind.version, kind.api_version) == ("", "v1", "v1")
    shown = {column.name: column.value(body) for column in kind.columns}
    assert (shown["Object"], shown["Reason"], shown["Count"]) == ("instance/vm", "Booting", 3)


def acts(kind: Kind[Any, Any]) -> bool:
    return kind.reconcile is not None or kind.finalize is not None


@pytest.mark.parametrize("kind", [*filter(acts, KINDS), claim_kind(HOST_SIDES)], ids=lambda kind: kind.name)
def test_nothing_waits_in_silence(kind: Kind[Any, Any]) -> None:
    """Each phase in which an object can wait has a deadline, after which it says that it is stuck."""
    assert rest.waiting(kind) - set(kind.deadlines) == set(), "phases without a deadline"
    assert set(kind.deadlines) <= rest.phases(kind), "deadlines of no phase"
    assert all(60 <= seconds <= 3600 for seconds in kind.deadlines.values()), "an hour at most"


def test_what_does_nothing_waits_for_nothing() -> None:
    assert not [kind.name for kind in KINDS if (kind.deadlines or kind.wakes) and not acts(kind)]


FIVE = (
    "test_converges",
    "test_converges_when_run_twice",
    "test_converges_after_a_crash_at_every_driver_call",
    "test_deletes_cleanly",
    "test_is_denied_to_another_tenant",
)
WITHOUT_THE_FIVE = {
    "Event": "nothing follows from it: it is written, counted and let go",
    "ConfigMap": "nothing follows from it: it is kept as it was written (tests/api/test_native.py)",
    "Secret": "nothing follows from it: it is kept as it was written (tests/api/test_secrets.py)",
    "Lease": "nothing follows from it: it is kept as it was written (tests/api/test_native.py)",
}


def home(kind: Kind[Any, Any]) -> Path:
    """Where the tests of a kind stand: beside the module, or the folder, that it is."""
    (*area, module) = kind.resource.__module__.removeprefix("bessemer.kinds.").split(".")[:2]
    return Path(__file__).parent.joinpath(*area, f"test_{module}.py")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.name not in WITHOUT_THE_FIVE], ids=lambda k: k.name)
def test_every_kind_has_the_five_tests(kind: Kind[Any, Any]) -> None:
    there = ast.parse(home(kind).read_text(encoding="utf-8")).body
    assert set(FIVE) - {node.name for node in there if isinstance(node, ast.AsyncFunctionDef)} == set()


@pytest.mark.parametrize("module", MODULES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_who_waits_says_what_a_person_can_do(module: Path) -> None:
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Wait":
            given = {keyword.arg for keyword in node.keywords}
            assert given & {"remedy", None}, f"line {node.lineno}: a Wait without a remedy"
