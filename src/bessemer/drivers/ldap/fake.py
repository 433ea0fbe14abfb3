"""A directory in memory, for tests and for trying things out: people and groups by DN, and ways to be away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bessemer.drivers.ldap.protocol import Entry, Place, failed
from bessemer.drivers.ldap.walk import groups_above


@dataclass
class FakePerson:
    """Somebody. ``name`` is what they type."""

    name: str
    password: str
    id: str
    display: str = ""
    mail: str = ""


@dataclass
class FakeDirectory:
    """Implements `protocol.Directories` for any place. ``groups`` maps a group's name to the DNs of its members."""

    people: list[FakePerson] = field(default_factory=list)
    groups: dict[str, list[str]] = field(default_factory=dict)
    down: bool = False
    secret: str = ""
    asked: list[str] = field(default_factory=list)

    async def check(self, place: Place, name: str, *, password: str, secret: str = "") -> Entry | None:
        self.asked.append(name)
        if not name or not password or "\0" in name + password:
            return None
        await self.probe(place, secret=secret)
        found = [one for one in self.people if one.name.lower() == name.lower()]
        if len(found) != 1 or found[0].password != password:
            return None
        one = found[0]
        dn = person_dn(place, one.name)
        groups = groups_above(dn, lambda member: self._above(place, member), nested=place.nested != "none")
        shown = groups if place.group_base else ()
        return Entry(dn=dn, id=one.id, name=one.name, groups=shown, display=one.display, mail=one.mail)

    async def probe(self, place: Place, *, secret: str = "") -> None:
        if self.down:
            raise failed("the directory cannot be reached, or its certificate is not to be trusted")
        if secret != self.secret:
            raise failed("the directory does not take our own name and secret")

    def _above(self, place: Place, member: str) -> Sequence[tuple[str, str]]:
        return [(group_dn(place, name), name) for name, members in self.groups.items() if member in members]


def person_dn(place: Place, name: str) -> str:
    """Where somebody is."""
    return f"uid={name},{place.user_base}"


def group_dn(place: Place, name: str) -> str:
    """Where a group is."""
    return f"cn={name},{place.group_base}"
