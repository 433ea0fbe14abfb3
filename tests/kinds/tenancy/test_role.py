"""Role: rights with a name, and nothing that moves."""

from __future__ import annotations

from typing import Any

import pytest

from bessemer.core.resource import Metadata
from bessemer.kinds.tenancy.role import KIND, CustomRole, RoleSpec, validate
from tests.kinds.five import Case, check_is_denied_to_another_tenant
from tests.kinds.tenancy import still

SPEC = {"rules": [{"kinds": ["Instance"], "verbs": ["get"]}]}
CASE = Case("Role", "theirs", SPEC, namespace="")


def role(name: str = "acme--ops", **rule: Any) -> CustomRole:
    said = {"kinds": ["Instance"], "verbs": ["get"], **rule}
    return CustomRole(metadata=Metadata(name=name), spec=RoleSpec.model_validate({"rules": [said]}))


@pytest.mark.parametrize(
    ("rule", "fields"),
    [
        ({}, []),
        ({"kinds": ["*"], "verbs": ["*"], "names": ["x"]}, []),
        ({"subresources": ["log", "console"]}, []),
        ({"kinds": ["Endpoint"], "subresources": ["console"]}, ["spec.rules[0].subresources[0]"]),
        ({"kinds": ["*"], "subresources": ["console", "*", "nonsense"]}, ["spec.rules[0].subresources[2]"]),
        ({"kinds": ["Nothing", "Instance"]}, ["spec.rules[0].kinds[0]"]),
        ({"verbs": ["get", "create"], "names": ["vm"]}, ["spec.rules[0].verbs"]),
        ({"kinds": ["ApiKey"], "verbs": ["create"], "subresources": ["token"], "names": ["app"]}, []),
    ],
)
def test_a_rule_is_of_what_there_is(rule: dict[str, Any], fields: list[str]) -> None:
    assert [cause.field for cause in validate(role(**rule), None)] == fields


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("ops", True),
        ("acme--ops", True),
        ("acme--", False),
        ("--ops", False),
        ("a--b--c", False),
        ("acme---ops", False),
        ("a.b", False),
        ("admin", False),
        ("anyone", False),
        ("acme--admin", True),
    ],
)
def test_a_name_says_whose_it_is_and_is_no_built_in_ones(name: str, good: bool) -> None:
    assert (validate(role(name), None) == []) is good


def test_columns() -> None:
    body = role(subresources=["log"], names=["vm"]).dump()
    body["spec"]["includes"] = ["reader"]
    assert KIND.columns[0].value(body) == "reader, get Instance/log (vm)"


async def test_converges() -> None:
    await still.check_converges("Role", SPEC)


async def test_converges_when_run_twice() -> None:
    await still.check_converges_when_run_twice("Role", SPEC)


async def test_converges_after_a_crash_at_every_driver_call() -> None:
    await still.check_no_driver_is_called("Role", SPEC, description="Of hosts")


async def test_deletes_cleanly() -> None:
    await still.check_deletes_cleanly("Role", SPEC)


async def test_is_denied_to_another_tenant() -> None:
    await check_is_denied_to_another_tenant(CASE)
    await check_is_denied_to_another_tenant(Case("Role", "acme--theirs", SPEC, namespace=""))
