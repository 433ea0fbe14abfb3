"""A kind that no page was made for is in the navigation and has a table; the portal need not hear of it."""

from __future__ import annotations

from dataclasses import replace

from bessemer.core.resource import ALL, READ
from bessemer.kinds import KINDS
from bessemer.kinds.fleet import flavor
from bessemer.portal.pages.shell import groups, others


class Note(flavor.Flavor):
    KIND = "Note"


NOTE = replace(flavor.KIND, resource=Note, plural="notes", namespaced=True, rights={"admin": ALL, "member": READ})
SECRET = replace(NOTE, rights={"admin": ALL})


def test_each_kind_of_ours_has_its_place() -> None:
    assert others(KINDS, admin=True) == []
    assert "More" not in dict(groups(True, "all"))


def test_a_new_kind_is_shown_to_whom_it_is_for() -> None:
    assert others([*KINDS, NOTE], admin=True) == [NOTE]
    assert others([*KINDS, NOTE], admin=False) == [NOTE]
    assert others([*KINDS, SECRET], admin=True) == [SECRET]
    assert others([*KINDS, SECRET], admin=False) == []
