"""Server-side apply: what becomes of an object when somebody applies a configuration to it. Pure.

What is applied replaces what the object has, field by field as its `Shape` says; what the same manager applied before
and applies no more goes, where nobody else owns it; a field of somebody else's that would get another value is a
conflict, unless it is taken by force. Who else applies the same value owns it too. Applied twice, nothing changes.
After the Kubernetes docs, "Server-Side Apply", and structured-merge-diff's ``merge``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bessemer.api.errors import FieldConflict
from bessemer.api.fields import SELF, Fields, both, count, minus, paths, union
from bessemer.api.managed import Entries, Held, Manager, Managers, changes, without, write
from bessemer.api.names import CAUSES_MAX, plain
from bessemer.api.shape import Body, Shape, stated, tracked
from bessemer.core.errors import Cause

BEFORE = "before-first-apply"
_GONE = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Applying:
    """One configuration on its way into an object: ``merged`` is what the object would be. ``owners`` are those of the
    object as it is."""

    shape: Shape
    live: Body | None
    merged: Body
    owners: Managers
    by: Manager
    said: Fields


def applying(shape: Shape, live: Body | None, config: Body, *, owners: Managers, by: Manager) -> Applying:
    """Merge, and take away what ``by`` applies no more. Raises Malformed for lists that cannot be merged."""
    config = without_nulls(config)
    if live is None:
        return Applying(shape=shape, live=None, merged=config, owners={}, by=by, said=_said(shape, config))
    # What is there no more has no owner: the control side changes objects and keeps no entries.
    there, _ = changes(shape, None, live)
    owners = {manager: Held(both(held.fields, there), held.time) for manager, held in owners.items()}
    if not owners:
        owners = {Manager(BEFORE, "Update", by.version): Held(there, "")}
    said = _said(shape, config)
    before = owners.get(by, Held({}, "")).fields
    kept = said
    for manager, held in owners.items():
        if manager != by:
            kept = union(kept, held.fields)
    merged = merge(shape, live, config)
    gone = minus(before, kept)
    left = prune(shape, merged, gone, kept) if gone else merged
    return Applying(
        shape=shape, live=live, merged=left if isinstance(left, dict) else {}, owners=owners, by=by, said=said
    )


def conflict(one: Applying) -> FieldConflict | None:
    """Whose fields would get another value."""
    if one.live is None:
        return None
    changed, _ = changes(one.shape, one.live, one.merged)
    found = {m: both(held.fields, changed) for m, held in sorted(one.owners.items()) if m != one.by}
    found = {manager: fields for manager, fields in found.items() if fields}
    if not found:
        return None
    total = sum(map(count, found.values()))
    causes: list[Cause] = []
    lines: list[str] = []
    for manager, fields in found.items():
        told = paths(fields, CAUSES_MAX - len(causes))
        causes += [Cause(path, f"conflict with {_shown(manager)}", "FieldManagerConflict") for path in told]
        lines += [f"conflicts with {_shown(manager)}:", *(f"- {path}" for path in told)]
    if total == 1:
        return FieldConflict(f"Apply failed with 1 conflict: {causes[0].message}: {causes[0].field}", causes)
    return FieldConflict(f"Apply failed with {total} conflicts: " + "\n".join(lines), causes)


def settled(one: Applying, new: Body, *, now: str) -> Entries | None:
    """The entries once ``new`` is what becomes of the object: it may hold less than what was applied, and defaults.
    None leaves them as they are."""
    there, _ = changes(one.shape, None, new)
    mine = both(one.said, there)
    changed, gone = changes(one.shape, one.live, new)
    managers = without(one.owners, union(changed, gone), but=one.by)
    had = one.owners.get(one.by)
    same = had is not None and had.fields == mine and not changed and not gone
    managers[one.by] = had if same and had is not None else Held(mine, now)
    if same and managers == one.owners:
        return None
    managers = {m: held if held.time else Held(held.fields, now) for m, held in managers.items()}
    return write(managers)


def _said(shape: Shape, config: Body) -> Fields:
    said = tracked(config)
    if not said["metadata"]:
        del said["metadata"]
    return stated(shape, said) or {}


def _shown(manager: Manager) -> str:
    """As Kubernetes names one in a conflict."""
    words = f'"{plain(manager.name)}"'
    if manager.subresource:
        words += f' with subresource "{plain(manager.subresource)}"'
    return f"{words} using {plain(manager.version)}" if manager.operation == "Update" else words


def without_nulls(value: Any) -> Any:
    """``value`` without the fields that are null: to apply null is to say nothing."""
    if isinstance(value, dict):
        return {name: without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def merge(shape: Shape, live: Any, config: Any) -> Any:
    """``live`` with what ``config`` says. Raises Malformed where a list holds one item twice, or one without key."""
    if shape.by_field(live) and shape.by_field(config):
        merged = dict(live)
        for name, inner in config.items():
            merged[name] = merge(shape.of(name), live[name], inner) if name in live else inner
        return merged
    if shape.by_item(live) and shape.by_item(config):
        return _merged_items(shape, {shape.step(item): item for item in live}, shape.index(config))
    return config


def _merged_items(shape: Shape, live: dict[str, Any], config: dict[str, Any]) -> list[Any]:
    """Items in the order of ``config``, those of ``live`` alone where they stood between them."""
    order = list(live)
    shared = [step for step in config if step in live]
    merged: list[Any] = []
    done: set[str] = set()
    at = upcoming = 0
    for step, item in config.items():
        while at < len(order) and order[at] != step:
            other = order[at]
            if other not in config:
                merged.append(live[other])
            elif other not in done and upcoming < len(shared) and other == shared[upcoming]:
                break
            at += 1
        merged.append(merge(shape.items, live[step], item) if step in live else item)
        done.add(step)
        upcoming += step in live
        at += at < len(order) and order[at] == step
    return merged + [live[other] for other in order[at:] if other not in config]


def prune(shape: Shape, value: Any, gone: Fields, kept: Fields | None, *, keys: Sequence[str] = ()) -> Any:
    """``value`` without what is ``gone``, but with all that is ``kept``, which has what others own. An item or a name
    goes with all that nobody owns in it; what is left empty goes too. ``keys`` are those of an item that stays."""
    if (not gone or SELF in gone) and kept is None:
        return _GONE
    if shape.by_field(value):
        left: Any = {}
        for name, inner in value.items():
            step = f"f:{name}"
            after = inner
            if step in gone and name not in keys:
                after = prune(shape.of(name), inner, gone[step], kept.get(step) if kept else None)
            if after is not _GONE:
                left[name] = after
    elif shape.by_item(value):
        left = []
        for item in value:
            step = shape.step(item)
            after = item
            if step in gone:
                after = prune(shape.items, item, gone[step], kept.get(step) if kept else None, keys=shape.keys)
            if after is not _GONE:
                left.append(after)
    else:
        return value
    return left if left or kept is not None or not value else _GONE
