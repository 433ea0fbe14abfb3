"""``metadata.managedFields``: who set which field, and how a write moves that. Pure.

An entry is of one `Owner`, which is a name, an operation, a subresource, and for updates a version: who applies is one
in all versions of a group. It names fields of the version in which its author wrote. Whoever updates owns what they
made or changed, and what they took away has no owner; whoever applies owns what they say (see `apply`). An object
whose entries were cleared, or that the control side made, has none until somebody applies. Past ten updaters, the
oldest become one. After Kubernetes' ``managedfields``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import orjson

from bessemer.api.fields import Fields, is_fields, minus, union
from bessemer.api.forms import ONE, Forms, Moves
from bessemer.api.names import opaque_text
from bessemer.api.shape import Body, Shape

Entries = list[dict[str, Any]]
UPDATERS_MAX = 10
ANCIENT = "ancient-changes"
UNKNOWN = "unknown"
MANAGER_MAX = 128
ENTRIES_MAX, BYTES_MAX = 64, 128 << 10
"""Of all entries of an object: what nobody bounds would fill it, until not even its deletion can be written."""
_TEXTS = ("apiVersion", "manager", "operation", "subresource", "time")


class Owner(NamedTuple):
    """Who owns fields. ``subresource`` is "" for the object itself; ``version`` is the apiVersion of an updater, and no
    more than the group of whoever applies."""

    name: str
    operation: Literal["Apply", "Update"]
    version: str
    subresource: str = ""


class Held(NamedTuple):
    """What a manager owns, since when it is so (RFC 3339), in the words of which version ("": the owner's own)."""

    fields: Fields
    time: str
    version: str = ""


Owners = dict[Owner, Held]


def manager_name(said: str, agent: str) -> str:
    """``fieldManager``, else the User-Agent's first word, as Kubernetes cuts it."""
    if said:
        return said
    word = "".join(c for c in agent.partition("/")[0] if c.isprintable())
    return word.encode()[:MANAGER_MAX].decode(errors="ignore") or UNKNOWN


def fits(entries: Any) -> bool:
    """Whether they are within `ENTRIES_MAX` and `BYTES_MAX`."""
    return not isinstance(entries, list) or (len(entries) <= ENTRIES_MAX and len(orjson.dumps(entries)) <= BYTES_MAX)


def read(entries: Any) -> Owners | None:
    """Entries as they stand in an object; None where they cannot be read, or are too many."""
    if not fits(entries):
        return None
    found: Owners = {}
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict) or not all(isinstance(entry.get(name, ""), str) for name in _TEXTS):
            return None
        fields, operation = entry.get("fieldsV1"), entry.get("operation")
        if operation not in ("Apply", "Update") or entry.get("fieldsType") != "FieldsV1":
            return None
        if not isinstance(fields, dict) or not is_fields(fields):
            return None
        name, version = entry.get("manager") or UNKNOWN, entry.get("apiVersion", "")
        manager = owner(name, operation, version=version, subresource=entry.get("subresource", ""))
        held = found.get(manager)
        fields = union(held.fields, fields) if held and held.version == version else fields
        found[manager] = Held(fields, entry.get("time", ""), version)
    return found


def owner(name: str, operation: Literal["Apply", "Update"], *, version: str, subresource: str = "") -> Owner:
    """Who writes in that version."""
    return Owner(name, operation, version if operation == "Update" else version.rpartition("/")[0], subresource)


def write(managers: Owners) -> Entries:
    """The inverse of `read`, in Kubernetes' order; whoever owns nothing is left out."""
    held = [(manager, one) for manager, one in managers.items() if one.fields]
    held.sort(key=lambda pair: (pair[0].operation, pair[1].time, pair[0]))
    return [
        {
            "apiVersion": one.version or manager.version,
            "fieldsType": "FieldsV1",
            "fieldsV1": one.fields,
            "manager": manager.name,
            "operation": manager.operation,
            **({"subresource": manager.subresource} if manager.subresource else {}),
            **({"time": one.time} if one.time else {}),
        }
        for manager, one in held
    ]


def without(managers: Owners, fields: Callable[[str], Fields], *, but: Owner) -> Owners:
    """Nobody ``but`` one owns the fields any more, which are said in the words of each version."""
    return {
        manager: one if manager == but else one._replace(fields=minus(one.fields, fields(one.version)))
        for manager, one in managers.items()
    }


def untracked(managers: Owners) -> bool:
    """Whether nobody owns anything of what is wanted: then updates leave it so, until somebody applies."""
    return all(manager.subresource for manager in managers)


def updated(shape: Shape, old: Body | None, *, new: Body, by: Owner, now: str, forms: Forms = ONE) -> Entries | None:
    """The entries after an update, of those that stand in ``new`` where they can be read and are some, else in ``old``:
    a client that knows nothing of them takes none away. None leaves them as they are. ``[]`` said clears them, and so
    does what would not fit: who updates is not refused for what others noted."""
    if old is None:
        return _kept(write({by: Held(shape.changes(None, new)[0], now, by.version)}))
    kept = old["metadata"].get("managedFields")
    said = new["metadata"].get("managedFields")
    if said in ([], [{}]):
        return []
    told = read(said) if said != kept and not any(opaque_text(said, "metadata.managedFields")) else None
    managers = told or read(kept) or {}
    if untracked(managers):
        return None
    moves = Moves(shape, old, new=new, forms=forms)
    changed, gone = moves.of(by.version)
    if not changed and not gone and not told:
        return None
    had = managers.get(by, Held({}, "", by.version))
    managers = without(managers, lambda version: union(*moves.of(version)), but=by)
    mine = union(minus(had.fields, gone), changed)
    managers[by] = had if mine == had.fields else Held(mine, now, by.version)
    return _kept(write(capped(managers)))


def _kept(entries: Entries) -> Entries:
    return entries if fits(entries) else []


def capped(managers: Owners) -> Owners:
    """At most ten updaters: the oldest of a version become one."""
    updaters = sorted((m for m in managers if m.operation == "Update"), key=lambda m: (managers[m].time, m))
    spare = len([m for m in updaters if managers[m].fields]) - UPDATERS_MAX
    if spare <= 0:
        return managers
    found = dict(managers)
    first: dict[str, Owner] = {}
    for manager in updaters:
        if spare <= 0:
            break
        one = first.setdefault(manager.version, manager)
        if one == manager:
            continue
        bucket = Owner(ANCIENT, "Update", manager.version)
        last = found.pop(manager)
        fields = union(found.pop(one).fields, last.fields)
        if bucket in found:
            fields = union(found[bucket].fields, fields)
        found[bucket] = Held(fields, last.time, manager.version)
        first[manager.version] = bucket
        spare -= 1
    return found
