"""The groups that somebody is in through other groups: breadth first, each once, so that a circle ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bessemer.drivers.ldap.protocol import GROUPS_MAX, LEVELS_MAX, failed

Above = Callable[[str], Sequence[tuple[str, str]]]
"""(DN, name) of the groups of which a DN is a member."""


def groups_above(dn: str, above: Above, *, nested: bool) -> tuple[str, ...]:
    """The names of all of them, sorted. Raises DriverError past `GROUPS_MAX`; levels past `LEVELS_MAX` are not walked,
    since nobody's groups are so deep."""
    found: dict[str, str] = {}
    level = [dn]
    for _ in range(LEVELS_MAX if nested else 1):
        new = {}
        for member in level:
            new.update({group: name for group, name in above(member) if group not in found})
        if not new:
            break
        found.update(new)
        if len(found) > GROUPS_MAX:
            raise failed(f"the directory says more than {GROUPS_MAX} groups")
        level = list(new)
    return tuple(sorted(set(found.values())))
