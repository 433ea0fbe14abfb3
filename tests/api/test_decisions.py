"""What `Access` decides and what its lists show, against a second reading: grants, groups, credentials and bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.api.access import Access, Target
from bessemer.api.bounds import Bounds
from bessemer.api.context import Identity
from bessemer.api.directory import Directory
from bessemer.api.following import Following
from bessemer.api.shown import Resources
from bessemer.core.clock import FakeClock
from bessemer.core.errors import Forbidden, NotFound
from bessemer.core.ports import Objects, Scope
from bessemer.kinds import KINDS
from bessemer.kinds.tenancy.rights import Rulebook
from tests.kinds.tenancy.test_rights import ORACLE, SOME, customs, roles, scopes
from tests.oracle.rights import Holding, Question

RESOURCES = Resources(SOME)
PROJECTS = ("a--x", "a--y", "b--x")
NAMES = ("n1", "n2", "n3")
FLAT = {"Tenant": ("a", "b"), "Project": PROJECTS, "Role": ("a--r", "b--r", "r")}

some = st.sampled_from
words = st.none() | st.frozensets(some(["reader", "member", "a--r", "r", "gone"]), max_size=2)
bounds = st.none() | st.builds(
    Bounds,
    roles=words,
    verbs=st.none() | st.frozensets(some(["get", "list", "delete"]), max_size=2),
    kinds=st.none() | st.frozensets(some(["Instance", "Project", "Role"]), max_size=2),
    names=st.none() | st.frozensets(some(["n1", "a--x", "a"]), max_size=2),
)
subjects = some([("User", "mia"), ("Group", "g"), ("ApplicationCredential", "c")])
bindings = st.lists(
    st.tuples(roles.filter(lambda role: isinstance(role, str)) | some(["a--r", "r"]), scopes, subjects), max_size=4
)
askers = st.builds(
    lambda groups, credential, within, admin: Identity(
        "user", "mia", admin, groups, bounds=within, credential=credential
    ),
    some([(), ("g",), ("h",)]),
    some(["", "c", "d"]),
    bounds,
    some([False, False, True]),
)


def decided(customs: Mapping[str, Any], bound: Sequence[Any], members: Mapping[str, str]) -> Access:
    directory = Directory(Following(cast("Objects", None), FakeClock()), book=Rulebook(SOME))
    for name in ("a", "b"):
        people = [{"user": user, "role": role} for user, role in members.items()] if name == "b" else []
        directory.tell("Tenant", name, body={"metadata": {}, "spec": {"members": people}})
    for project in PROJECTS:
        directory.tell("Project", project, body={"metadata": {}, "spec": {}})
    for index, (role, (name, scope), subject) in enumerate(bound):
        spec = {"role": role, "scope": scope, "subjects": [dict(zip(("kind", "name"), subject, strict=True))]}
        directory.tell("RoleBinding", f"{name}{index}", body={"metadata": {}, "spec": spec})
    for name, spec in {**customs, "b--r": {}}.items():
        directory.tell("Role", name, body={"metadata": {}, "spec": spec})
    return Access(directory, cast("Objects", None))


def held(who: Identity, customs: Mapping[str, Any], bound: Sequence[Any], members: Mapping[str, str]) -> list[Holding]:
    mine = {("User", who.name), *(("Group", group) for group in who.groups), ("ApplicationCredential", who.credential)}
    found = [Holding(customs.get(role, role), f"{name}0", scope) for role, (name, scope), who_ in bound if who_ in mine]
    found += [Holding(role, "b--", {}) for user, role in members.items() if user == who.name]
    return [*found, Holding("anyone", "p", {}), *([Holding("admin", "p", {})] if who.admin else [])]


def within(who: Identity, customs: Mapping[str, Any], asked: Question) -> bool:
    """Whether the bounds of who asks leave that to them."""
    if who.bounds is None:
        return True
    limit = who.bounds.roles
    known = {"reader": "reader", "member": "member", **customs}
    if limit is not None and not any(ORACLE.gives(known[role], asked) for role in limit if role in known):
        return False
    named = who.bounds.names is None or (
        asked.name in who.bounds.names and (asked.verb != "create" or bool(asked.part))
    )
    return named and who.bounds.covers(asked.verb, asked.kind)


@settings(max_examples=30, deadline=None)
@given(askers, customs, customs, bindings, some([{}, {"mia": "member"}, {"rob": "member"}]))
def test_each_decision_is_that_of_the_second_reading(
    who: Identity, own: Any, platform: Any, bound: list[Any], members: Mapping[str, str]
) -> None:
    known = {"a--r": own, "r": platform}
    access, holdings = decided(known, bound, members), held(who, known, bound, members)
    for shown in RESOURCES.all:
        if shown.view is not None or shown.kind not in {kind.name for kind in KINDS}:
            continue
        seen = set[tuple[str, str]]()
        for project in PROJECTS if shown.namespaced else ("",):
            for name in FLAT.get(shown.kind, NAMES):
                for verb in ("get", "list", "delete", "create"):
                    for part in ("", *shown.source.below):
                        asked = Question(verb, shown.kind, part, project, name)
                        allowed = ORACLE.may(holdings, asked) and within(who, known, asked)
                        target = Target(shown, project, name, part)
                        assert access.may(who, cast("Any", verb), on=target) == allowed, asked
                        if allowed and (verb, part) == ("list", ""):
                            seen.add((project, name))
        for place in ("", *(PROJECTS if shown.namespaced else ())):
            wanted = {(project, name) for project, name in seen if place in ("", project)}
            assert listed(access, who, Target(shown, place)) == wanted, (shown.kind, place)


def listed(access: Access, who: Identity, on: Target) -> set[tuple[str, str]]:
    """What a list shows of all that there is."""
    try:
        scope = access.scope(who, "list", on=on)
    except (Forbidden, NotFound):
        return set()
    names = FLAT.get(on.resource.kind, NAMES)
    there = [(project, name) for project in (PROJECTS if on.resource.namespaced else ("",)) for name in names]
    return {key for key in there if shows(scope, *key)}


def shows(scope: Scope, namespace: str, name: str) -> bool:
    if scope.namespace not in (None, namespace) or (scope.namespaces is not None and namespace not in scope.namespaces):
        return False
    if scope.places is not None and namespace not in scope.places:
        return False
    among = scope.names if scope.places is None else scope.places[namespace]
    return among is None or name in among


@pytest.mark.parametrize("kind", ["Tenant", "Role", "RoleBinding", "Project"])
def test_what_is_forgotten_is_held_by_nobody(kind: str) -> None:
    """Where history was lost, rights are gone until they were read anew."""
    binding = [("a--r", ("a--p", {}), ("User", "mia"))]
    access = decided({"a--r": {"includes": ["member"]}, "r": {}}, binding, {"mia": "member"})
    who, instances = Identity("user", "mia"), Target(RESOURCES.all[-1])
    (instances,) = (Target(shown) for shown in RESOURCES.all if shown.kind == "Instance")
    before = access.seen(who, "get", on=instances)
    assert set(before) == set(PROJECTS)
    access._directory.forget(kind)
    left = set(access.seen(who, "get", on=instances))
    assert left == {"Tenant": {"a--x", "a--y"}, "Project": set()}.get(kind, {"b--x"})
