"""Sets of rights against a second reading, object by object: what they give, and whether one is within others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.kinds import KINDS
from bessemer.kinds.tenancy.rights import (
    ADMINISTER,
    BUILT_IN,
    EVERYWHERE,
    NO_NAMES,
    TRAIL,
    Cell,
    Grant,
    Place,
    Rulebook,
    beyond,
    missing,
    place_of,
    united,
)
from bessemer.kinds.tenancy.role import KIND as ROLE
from bessemer.kinds.tenancy.rolebinding import place_bound
from tests.oracle.rights import Holding, Oracle, Question, questions

SOME = [kind for kind in KINDS if kind.name in ("Tenant", "Project", "Role", "Host", "Instance", "ApiKey")]
BOOK, ORACLE = Rulebook(SOME), Oracle(SOME)
VERBS = ("get", "list", "create", "delete")
PROJECTS = ("a--x", "a--y", "a--fresh", "b--x", "b--fresh", "fresh--fresh")
NAMES = ("n1", "n2", "a", "a--x", "a--n1", "b--x")
ASKED = tuple(questions(SOME, verbs=VERBS, projects=PROJECTS, names=[*NAMES, "fresh"]))

some = st.sampled_from
rules = st.fixed_dictionaries(
    {
        "kinds": st.lists(some([*(kind.name for kind in SOME), "*"]), min_size=1, max_size=2),
        "verbs": st.lists(some([*VERBS, "*"]), min_size=1, max_size=3),
        "names": st.lists(some(NAMES), max_size=2),
        "subresources": st.lists(some(["console", "token", "*"]), max_size=2),
    }
)
customs = st.fixed_dictionaries(
    {"includes": st.lists(some([*BUILT_IN]), max_size=1), "rules": st.lists(rules, max_size=3)}
)
scopes = some(
    [
        ("p", {}),
        ("a--p", {}),
        ("p", {"tenant": "b"}),
        ("a--p", {"project": "a--x"}),
        ("p", {"project": "a--y"}),
        ("p", {"project": "b--x"}),
        ("a--p", {"project": "a--x", "object": {"kind": "Instance", "name": "n1"}}),
        ("a--p", {"project": "a--x", "object": {"kind": "ApiKey", "name": "n2"}}),
        ("p", {"object": {"kind": "Host", "name": "n1"}}),
    ]
)
roles = some([*BUILT_IN]) | customs
holdings = st.builds(lambda role, scope: Holding(role, *scope), roles, scopes)


def grant_of(holding: Holding) -> Grant:
    role, about = holding.role, holding.scope.get("object")
    rights = BOOK.built_in[role] if isinstance(role, str) else BOOK.rights(role)
    place = place_bound(holding.binding, holding.scope)
    return BOOK.grant(rights, place, about=(about["kind"], about["name"]) if about else None)


def gives(held: Sequence[Grant], asked: Question) -> bool:
    cell = Cell(asked.kind, asked.part, asked.verb)
    at = place_of(asked.kind, asked.project, name=asked.name) if asked.kind else Place(asked.tenant, asked.project)
    names = [grant.upon(cell, at) for grant in held]
    return any(one is None or asked.name in one for one in names)


@settings(max_examples=40, deadline=None)
@given(st.lists(holdings, max_size=3))
def test_what_is_held_is_what_was_written(held: list[Holding]) -> None:
    grants = [grant_of(one) for one in held]
    wrong = [asked for asked in ASKED if gives(grants, asked) != ORACLE.may(held, asked)]
    assert wrong == []


@settings(deadline=None)
@given(holdings, st.lists(holdings, max_size=4))
def test_what_is_missing_is_what_one_could_do_and_the_other_not(wanted: Holding, held: list[Holding]) -> None:
    lacking = missing(grant_of(wanted), [grant_of(one) for one in held], book=BOOK)
    more = {asked for asked in ASKED if ORACLE.may([wanted], asked) and not ORACLE.may(held, asked)}
    told = {cell for cell in lacking if cell.verb in (*VERBS, "administer", "read")}
    assert told == {Cell(asked.kind, asked.part, asked.verb) for asked in more}


@settings(deadline=None)
@given(roles, roles)
def test_what_is_beyond_is_in_the_one_and_not_in_the_other(new: Any, old: Any) -> None:
    one, other = (grant_of(Holding(role, "p", {})).rights for role in (new, old))
    rest = beyond(one, other)
    assert united([rest, other]) == united([one, other])
    assert missing(Grant(rest), [Grant(other)], book=BOOK) == missing(Grant(one), [Grant(other)], book=BOOK)


def test_nobody_has_more_than_administrators_and_only_they_administer() -> None:
    book = Rulebook(KINDS)
    for role, rights in book.built_in.items():
        assert missing(Grant(rights), [Grant(book.built_in["admin"])], book=book) == [], role
        assert (ADMINISTER in rights) == (role == "admin")
        assert (TRAIL in rights) == (role in ("admin", "auditor", "tenant-admin"))
    everything = book.rights({"rules": [{"kinds": ["*"], "verbs": ["*"]}, EACH_PART]})
    assert missing(Grant(book.built_in["admin"]), [Grant(everything)], book=book) == [ADMINISTER, TRAIL]


EACH_PART: Mapping[str, Any] = {"kinds": ["*"], "verbs": ["*"], "subresources": ["*"]}


@pytest.mark.parametrize("role", BUILT_IN)
def test_a_role_is_of_the_rows_of_the_kinds_and_no_row_is_forgotten(role: str) -> None:
    assert Rulebook(KINDS).built_in[role]
    named = {name for kind in KINDS for row in (kind.rights, *kind.below.values()) for name in row}
    assert named <= {*BUILT_IN, "anyone", "agent", "gateway", "portal"}


def test_rights_in_a_tenant_are_nothing_upon_what_is_the_platforms() -> None:
    inside = BOOK.grant(BOOK.built_in["operator"], Place("a"))
    assert inside.upon(Cell("Host", "", "get"), EVERYWHERE) == NO_NAMES
    assert missing(inside, [], book=BOOK) == [], "so there is nothing to hold"
    assert ROLE in KINDS
