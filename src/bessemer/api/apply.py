"""Server-side apply: what becomes of an object when somebody applies a configuration to it. Pure.

What is applied replaces what the object has, field by field as its `Shape` says; what the same manager applied before
and applies no more goes, where nobody else owns it; a field of somebody else's that would get another value is a
conflict, unless it is taken by force. Who else applies the same value owns it too. Applied twice, nothing changes.
After the Kubernetes docs, "Server-Side Apply", and structured-merge-diff's ``merge``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bessemer.api.errors import FieldConflict
from bessemer.api.fields import SELF, Fields, both, count, minus, paths, union
from bessemer.api.forms import ONE, Forms, Moves
from bessemer.api.managed import Entries, Held, Owner, Owners, fits, untracked, without, write
from bessemer.api.names import CAUSES_MAX, plain
from bessemer.api.shape import Body, Shape, tracked
from bessemer.core.errors import Cause, TooLarge

BEFORE = "before-first-apply"
_GONE = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Applying:
    """One configuration on its way into an object: ``merged`` is what the object would be. ``owners`` are those of the
    object as it is; ``said`` is what ``by`` owns then, in ``version``; ``forms`` are the other versions."""

    shape: Shape
    live: Body | None
    merged: Body
    owners: Owners
    by: Owner
    said: Fields
    version: str = ""
    forms: Forms = field(default_factory=lambda: ONE)


def applying(
    shape: Shape, live: Body | None, *, config: Body, owners: Owners, by: Owner, forms: Forms = ONE
) -> Applying:
    """Merge, and take away what ``by`` applies no more. Raises Malformed for lists that cannot be merged."""
    config = without_nulls(config)
    version = str(config.get("apiVersion", ""))
    said = tracked(config)
    if not said["metadata"]:
        del said["metadata"]
    mine = shape.stated(said) or {}
    if live is None:
        return Applying(shape=shape, live=None, merged=config, owners={}, by=by, said=mine, version=version)
    owners = _owners(shape, live, owners=owners, by=by, forms=forms)
    held_here = {owner: _here(shape, live, held=held, forms=forms) for owner, held in owners.items()}
    kept = mine
    for owner, fields in held_here.items():
        if owner != by:
            kept = union(kept, fields)
    merged: Body = merge(shape, live, config=config)
    gone = minus(held_here[by], kept) if by in owners else {}
    if gone:
        # Said once more, for what is left empty goes, and what is empty may be said.
        merged = merge(shape, prune(shape, merged, gone=gone, kept=kept), config=config)
    return Applying(
        shape=shape, live=live, merged=merged, owners=owners, by=by, said=mine, version=version, forms=forms
    )


def _here(shape: Shape, live: Body, *, held: Held, forms: Forms) -> Fields:
    """What somebody owns, in the words of the version that is spoken: what would change here if it were not there."""
    form = forms.get(held.version)
    if form is None or not held.fields:
        return held.fields
    there = form.convert(live)
    # Entries are the clients' to write: an object stays one whatever they say that somebody owns of it.
    left = {"metadata": there["metadata"], **prune(form.shape, there, gone=held.fields, kept={})}
    # The body of another version lacks what it cannot say, so it is compared with itself and not with ``live``.
    changed, gone = shape.changes(form.back(left), form.back(there))
    return union(changed, gone)


def _owners(shape: Shape, live: Body, *, owners: Owners, by: Owner, forms: Forms) -> Owners:
    """Who owns what is there. The control side changes objects and keeps no entries: what is there no more has no
    owner, and of an object without entries whoever made it owns what is wanted."""
    moves = Moves(shape, None, new=live, forms=forms)
    found = {
        owner: held._replace(fields=both(held.fields, moves.of(held.version)[0])) for owner, held in owners.items()
    }
    if untracked(found) and not by.subresource:
        wanted, _ = shape.changes(None, {part: value for part, value in live.items() if part != "status"})
        version = str(live.get("apiVersion", ""))
        found[Owner(BEFORE, "Update", version)] = Held(wanted, "", version)
    return found


def conflict(one: Applying) -> FieldConflict | None:
    """Whose fields would get another value."""
    if one.live is None:
        return None
    moves = Moves(one.shape, one.live, new=one.merged, forms=one.forms)
    others = [(owner, held) for owner, held in sorted(one.owners.items()) if owner != one.by]
    found = {owner: both(held.fields, moves.of(held.version)[0]) for owner, held in others}
    found = {owner: fields for owner, fields in found.items() if fields}
    if not found:
        return None
    total = sum(map(count, found.values()))
    causes: list[Cause] = []
    lines: list[str] = []
    for owner, fields in found.items():
        told = paths(fields, CAUSES_MAX - len(causes))
        causes += [Cause(path, f"conflict with {_shown(owner)}", "FieldManagerConflict") for path in told]
        lines += [f"conflicts with {_shown(owner)}:", *(f"- {path}" for path in told)]
    if total == 1:
        return FieldConflict(f"Apply failed with 1 conflict: {causes[0].message}: {causes[0].field}", causes)
    return FieldConflict(f"Apply failed with {total} conflicts: " + "\n".join(lines), causes)


def _shown(owner: Owner) -> str:
    """As Kubernetes names one in a conflict."""
    words = f'"{plain(owner.name)}"'
    if owner.subresource:
        words += f' with subresource "{plain(owner.subresource)}"'
    return f"{words} using {plain(owner.version)}" if owner.operation == "Update" else words


def settled(one: Applying, new: Body, *, now: str) -> Entries | None:
    """The entries once ``new`` is what becomes of the object: it may hold less than what was applied, and defaults.
    None leaves them as they are. Raises TooLarge where they would not fit."""
    there, _ = one.shape.changes(None, new)
    mine = both(one.said, there)
    moves = Moves(one.shape, one.live, new=new, forms=one.forms)
    changed, gone = moves.of(one.version)
    owners = without(one.owners, lambda version: union(*moves.of(version)), but=one.by)
    had = one.owners.get(one.by)
    if had is not None and had.fields == mine and had.version == one.version and not changed and not gone:
        return None
    owners[one.by] = Held(mine, now, one.version)
    entries = write({owner: held if held.time else held._replace(time=now) for owner, held in owners.items()})
    if not fits(entries):
        raise TooLarge(
            "metadata.managedFields would have too many entries or bytes: apply fewer fields, or set it to [] first"
        )
    return entries


def without_nulls(value: Any) -> Any:
    """``value`` without the fields that are null: to apply null is to say nothing."""
    if isinstance(value, dict):
        return {name: without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def merge(shape: Shape, live: Any, *, config: Any) -> Any:
    """``live`` with what ``config`` says. Raises Malformed where a list holds one item twice, or one without key."""
    if shape.by_field(live) and shape.by_field(config):
        merged = dict(live)
        for name, inner in config.items():
            merged[name] = merge(shape.of(name), live[name], config=inner) if name in live else inner
        return merged
    if shape.by_item(live) and shape.by_item(config):
        return _merged_items(shape, {shape.step(item): item for item in live}, config=shape.index(config))
    return config


def _merged_items(shape: Shape, live: dict[str, Any], *, config: dict[str, Any]) -> list[Any]:
    """Items in the order of ``config``, those of ``live`` alone where they stood between them."""
    order = list(live)
    shared = [step for step in config if step in live]
    merged: list[Any] = []
    done: set[str] = set()
    at = 0
    for step, item in config.items():
        while at < len(order) and order[at] != step:
            other = order[at]
            if other not in config:
                merged.append(live[other])
            elif other not in done and other == shared[len(done)]:
                break
            at += 1
        if step not in live:
            merged.append(item)
            continue
        merged.append(merge(shape.items, live[step], config=item))
        done.add(step)
        at += at < len(order) and order[at] == step
    return merged + [live[other] for other in order[at:] if other not in config]


def prune(shape: Shape, value: Any, *, gone: Fields, kept: Fields | None, keys: Sequence[str] = ()) -> Any:
    """``value`` without what is ``gone``, but with all that is ``kept``, which has what others own. An item or a name
    goes with all that nobody owns in it; what is left empty goes too. ``keys`` are those of an item that stays."""
    if (not gone or SELF in gone) and kept is None:
        return _GONE
    kept_below = kept or {}

    def left_of(inner: Any, step: str, *, below: Shape) -> Any:
        if step not in gone:
            return inner
        return prune(below, inner, gone=gone[step], kept=kept_below.get(step), keys=shape.keys)

    left: Any
    if shape.by_field(value):
        after = {
            name: inner if name in keys else left_of(inner, f"f:{name}", below=shape.of(name))
            for name, inner in value.items()
        }
        left = {name: inner for name, inner in after.items() if inner is not _GONE}
    elif shape.by_item(value):
        items = (left_of(item, shape.step(item), below=shape.items) for item in value)
        left = [item for item in items if item is not _GONE]
    else:
        return value
    return left if left or kept is not None or not value else _GONE
