"""A kind that no page was made for is in the navigation and has a table; the portal need not hear of it."""

from __future__ import annotations

from dataclasses import replace

from bessemer.core.resource import ALL, READ
from bessemer.kinds.fleet import flavor
from bessemer.portal.pages.shell import others


class Gadget(flavor.Flavor):
    KIND = "Gadget"


GADGET = replace(flavor.KIND, resource=Gadget, plural="gadgets", namespaced=True, rights={"admin": ALL, "member": READ})
SECRET = replace(GADGET, rights={"admin": ALL})


def test_a_new_kind_is_shown_to_whom_it_is_for() -> None:
    assert others([flavor.KIND, GADGET], admin=True) == [GADGET]
    assert others([flavor.KIND, GADGET], admin=False) == [GADGET]
    assert others([flavor.KIND, SECRET], admin=True) == [SECRET]
    assert others([flavor.KIND, SECRET], admin=False) == []
