"""RoleBinding: who holds a role where, and nothing that moves."""

from __future__ import annotations

from typing import Any

import pytest

from bessemer.core.resource import Metadata
from bessemer.kinds.tenancy.rights import Place
from bessemer.kinds.tenancy.rolebinding import KIND, RoleBinding, RoleBindingSpec, place_bound, validate, where
from tests.kinds.five import Case, check_is_denied_to_another_tenant
from tests.kinds.tenancy import still

SPEC = {"role": "reader", "subjects": [{"kind": "User", "name": "zoe"}]}
CASE = Case("RoleBinding", "theirs", SPEC, namespace="")


def binding(name: str = "acme--some", **spec: Any) -> RoleBinding:
    return RoleBinding(metadata=Metadata(name=name), spec=RoleBindingSpec.model_validate({**SPEC, **spec}))


VM = {"kind": "Instance", "name": "vm"}


@pytest.mark.parametrize(
    ("name", "spec", "fields"),
    [
        ("acme--some", {}, []),
        ("some", {"role": "operator"}, []),
        ("some", {"role": "own"}, []),
        ("acme--some", {"role": "acme--own"}, []),
        ("acme--some", {"role": "other--own"}, ["spec.role"]),
        ("acme--some", {"role": "own"}, ["spec.role"]),
        ("some", {"role": "acme--own"}, ["spec.role"]),
        ("some", {"role": "agent"}, ["spec.role"]),
        ("some", {"scope": {"tenant": "acme"}}, []),
        ("acme--some", {"scope": {"tenant": "acme", "project": "acme--lab"}}, []),
        ("acme--some", {"scope": {"tenant": "other"}}, ["spec.scope.tenant"]),
        ("acme--some", {"scope": {"project": "other--lab"}}, ["spec.scope.project"]),
        ("some", {"scope": {"tenant": "acme", "project": "other--lab"}}, ["spec.scope.project"]),
        ("some", {"scope": {"project": "acme"}}, ["spec.scope.project"]),
        ("acme--some", {"scope": {"project": "acme--lab", "object": VM}}, []),
        ("acme--some", {"scope": {"object": VM}}, ["spec.scope.project"]),
        ("some", {"scope": {"object": {"kind": "Host", "name": "h"}}}, []),
        ("acme--some", {"scope": {"object": {"kind": "Host", "name": "h"}}}, ["spec.scope.object"]),
        ("some", {"scope": {"object": {"kind": "Nothing", "name": "h"}}}, ["spec.scope.object.kind"]),
        ("some", {"subjects": [{"kind": "Group", "name": "system:masters"}]}, ["spec.subjects[0].name"]),
        ("some", {"subjects": [{"kind": "User", "name": "zoe"}] * 2}, ["spec.subjects[1]"]),
        ("some", {"subjects": []}, []),
        ("a--b--c", {}, ["metadata.name"]),
    ],
)
def test_validate(name: str, spec: dict[str, Any], fields: list[str]) -> None:
    assert [cause.field for cause in validate(binding(name, **spec), None)] == fields


@pytest.mark.parametrize(
    ("name", "scope", "place", "shown"),
    [
        ("some", {}, Place(), "*"),
        ("acme--some", {}, Place("acme"), "acme"),
        ("some", {"tenant": "acme"}, Place("acme"), "acme"),
        ("acme--some", {"project": "acme--lab"}, Place("acme", "acme--lab"), "acme--lab"),
        ("some", {"project": "acme--lab", "object": VM}, Place("acme", "acme--lab"), "acme--lab/Instance/vm"),
        ("some", {"object": {"kind": "Host", "name": "h"}}, Place(), "Host/h"),
    ],
)
def test_where_it_holds(name: str, scope: dict[str, Any], place: Place, shown: str) -> None:
    assert place_bound(name, scope) == place
    assert where({"metadata": {"name": name}, "spec": {"scope": scope}}) == shown


def test_columns() -> None:
    body = binding(subjects=[{"kind": "User", "name": "zoe"}, {"kind": "Group", "name": "corp:x"}]).dump()
    assert [column.value(body) for column in KIND.columns] == ["reader", "acme", "zoe, Group:corp:x"]


async def test_converges() -> None:
    await still.check_converges("RoleBinding", SPEC)


async def test_converges_when_run_twice() -> None:
    await still.check_converges_when_run_twice("RoleBinding", SPEC)


async def test_converges_after_a_crash_at_every_driver_call() -> None:
    await still.check_no_driver_is_called("RoleBinding", SPEC, role="member")


async def test_deletes_cleanly() -> None:
    await still.check_deletes_cleanly("RoleBinding", SPEC)


async def test_is_denied_to_another_tenant() -> None:
    await check_is_denied_to_another_tenant(CASE)
    await check_is_denied_to_another_tenant(Case("RoleBinding", "acme--theirs", SPEC, namespace=""))
