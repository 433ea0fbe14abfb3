"""The page of the matrix is what the api answers, and what must hold of any matrix holds."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.api.matrix import ASKERS, PAGE, TABLES, Found, filled, furnished
from tests.oracle import roles

READS = {"", "r"}
WITHOUT_A_TENANTS_THINGS = ("operator", "new")
WRITE_NOTHING = ("auditor", "billing", "t.reader", "t.auditor", "t.billing", "p.reader", "new")

BUT_ADMIN: Mapping[str, set[str]] = {"ApplicationCredential": {"c"}}
"""What the administrator here may not, who asks by a certificate: a credential acts for a User, and they are none."""


async def test_the_page_is_what_is_answered() -> None:
    async with furnished() as matrix:
        found = await matrix.ask()
        text = PAGE.read_text(encoding="utf-8")
        assert text == filled(text, found), "python -m tests.api.matrix writes it anew; read what has changed"
        held_apart(found)
        written_by_whom_it_should(found)
        as_the_roles_are_meant(found)
        as_under_every_other_name(found, await matrix.ask_otherwise())
        told = await matrix.definitions()
        assert [asker for asker in ASKERS if told[asker] != {"get", "list"}] == [], "read by all, written by nobody"


def as_the_roles_are_meant(found: Found) -> None:
    """Cell by cell what the roles say in words (`tests.oracle.roles`), which knows no row of rights."""
    wrong = {
        cell: (letters, meant)
        for cell, letters in found.cells.items()
        if letters != (meant := roles.expected(*cell))  # a kind that has no line there is a KeyError
    }
    assert not wrong, "cell: (what was answered, what the roles say)"


def as_under_every_other_name(found: Found, others: Mapping[str, Found]) -> None:
    """A Namespace is a Project, and an older version the same object: nobody may more of it, or less."""
    assert {"v1 Namespace", "events.k8s.io/v1 Event", "bessemer.dev/v1alpha1 Flavor"} <= others.keys()
    for name, other in others.items():
        assert other.cells, name
        for cell, letters in other.cells.items():
            assert letters == found.cells[cell], (name, *cell)


def held_apart(found: Found) -> None:
    """Nobody has anything in another tenant, or in another project, by a role that they hold in theirs."""
    for (row, place, asker), letters in found.cells.items():
        inside = asker.startswith(("t.", "p.")) or asker in WITHOUT_A_TENANTS_THINGS
        if place == "other" and inside:
            assert letters == "", (row, place, asker)
        if place == "beside" and asker.startswith("p."):
            assert letters == "", (row, place, asker)
        if place == "own" and asker in WITHOUT_A_TENANTS_THINGS:
            assert letters == "", (row, place, asker)


def written_by_whom_it_should(found: Found) -> None:
    """Who only looks writes nothing, nobody writes a status, and administrators may what anybody may."""
    for (row, place, asker), letters in found.cells.items():
        assert "s" not in letters, (row, place, asker)
        if asker in WRITE_NOTHING and "/" not in row:
            assert letters in READS, (row, place, asker)
        if place != "beside":
            more = set(letters) - set(found.cells[row, place, "admin"])
            assert more <= BUT_ADMIN.get(row, set()), (row, place, asker)
    own = {row: found.cells[row, "own", "t.reader"] for row in found.rows("own")}
    parts = {row for row, letters in own.items() if letters == "x"}
    books = {"Tenant/use", "ApiKey/use"}
    books |= {f"Project/{of}" for of in ("invoice", "ledger", "usage", "reconcile", "use")}
    assert parts == books | {"Instance/log", "Endpoint/log", "Vetting/log", "Job/log"}


@pytest.mark.parametrize("place", TABLES)
def test_the_page_says_it_of_every_kind(place: str) -> None:
    from bessemer.kinds import KINDS

    text = PAGE.read_text(encoding="utf-8")
    assert f"<!-- {place}:" in text
    assert [kind.name for kind in KINDS if f"| {kind.name} |" not in text] == []
