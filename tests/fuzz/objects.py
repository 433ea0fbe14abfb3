"""What becomes of an object by patches and appliers that a fuzzer makes up, and what must hold of it each time.

Objects are drawn along a schema that has each way to own and to merge, and now and then against it; so are directives
of a strategic merge patch, and the entries of ``managedFields``, which are any client's to write.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import orjson

from bessemer.api import apply, fields, managed, patches
from bessemer.api.managed import Held, Owner, Owners
from bessemer.api.shape import Shape, shape_of
from bessemer.core.errors import BessemerError

TEXT = {"type": "string"}


def _keyed(*keys: str, **properties: Any) -> dict[str, Any]:
    named = dict.fromkeys(keys, TEXT)
    how = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}
    return {"type": "array", "items": {"type": "object", "properties": {**named, **properties}}, **how}


SET = {"type": "array", "items": TEXT, "x-kubernetes-list-type": "set"}
LABELS = {"type": "object", "additionalProperties": TEXT}
SHAPE = shape_of(
    {
        "type": "object",
        "properties": {
            "metadata": {"type": "object", "properties": {"labels": LABELS, "finalizers": SET}},
            "spec": {
                "type": "object",
                "properties": {
                    "x": TEXT,
                    "whole": {"type": "array", "items": TEXT},
                    "atomic": {"type": "object", "properties": {"a": TEXT}, "x-kubernetes-map-type": "atomic"},
                    "set": SET,
                    "inner": {"type": "object", "properties": {"a": TEXT, "b": LABELS}},
                    "map": _keyed("a", "b", x=TEXT, set=SET, map=_keyed("a", x=TEXT)),
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                },
            },
        },
    }
)
WORDS = ["a", "b", "c", "x", "", "set", "map", "spec", "~/", "\u00e9"]
SCALARS = [*WORDS, None, 0, 1, -1, 1.5, True, False, 1 << 53]
DIRECTIVES = [
    "$patch",
    "$retainKeys",
    "$setElementOrder/set",
    "$deleteFromPrimitiveList/set",
    "$deleteFromPrimitiveList/",
]
ORDERS: list[Any] = ["delete", "replace", "merge", "spawn", None, {}]
STEPS = [".", "f:", "f:a", "f:spec", "f:set", "f:map", "f:free", "f:metadata", "f:labels", 'v:"a"', "v:1", "v:nope"]
STEPS += ['k:{"a":"a","b":"a"}', 'k:{"a":"a"}', 'k:{"b":"a","a":"a"}', "k:{}", "k:[]", "i:0", "i:-1", "i:1.5", "x"]
OWNERS = [Owner("one", "Apply", ""), Owner("two", "Apply", ""), Owner("three", "Apply", "", "status")]
UPDATER = Owner("four", "Update", "v1")
DEPTH, NOW = 6, "2026-01-01T00:00:00Z"


class Data(Protocol):
    """What a fuzzer gives: at its end nothing but zeros, so that each drawing ends."""

    def ConsumeIntInRange(self, low: int, high: int, /) -> int: ...

    def ConsumeUnicodeNoSurrogates(self, count: int, /) -> str: ...


class Draw:
    """Values out of a fuzzer's bytes."""

    def __init__(self, data: Data) -> None:
        self._data = data

    def number(self, most: int) -> int:
        return self._data.ConsumeIntInRange(0, most)

    def often(self, times: int) -> bool:
        """So many times of eight; never at the end of the bytes."""
        return self.number(7) > 7 - times

    def of(self, values: list[Any]) -> Any:
        return values[self.number(len(values) - 1)]

    def text(self) -> str:
        return self._data.ConsumeUnicodeNoSurrogates(8) if self.often(1) else self.of(WORDS)

    def anything(self, depth: int = DEPTH) -> Any:
        which = self.number(3) if depth else 0
        if which < 2:
            return self.of(SCALARS)
        count = self.number(3)
        if which == 2:
            return [self.anything(depth - 1) for _ in range(count)]
        return {self.text(): self.anything(depth - 1) for _ in range(count)}

    def along(self, shape: Shape, depth: int = DEPTH, *, directed: bool = False) -> Any:
        """A value of that shape, most of the time; with directives of a patch in it where that is said."""
        if not depth or self.often(1):
            return self.anything(depth)
        if shape.kind == "free":
            return {self.text(): self.anything(depth - 1) for _ in range(self.number(3))}
        if shape.kind == "whole":
            return self.of(SCALARS)
        if shape.kind == "object":
            value = {name: self.along(below, depth - 1, directed=directed) for name, below in shape.below.items()}
            value = {name: inner for name, inner in value.items() if self.often(5)}
            if shape.rest is not None:
                value |= {self.text(): self.along(shape.rest, depth - 1) for _ in range(self.number(3))}
            return value | (self.directives() if directed else {})
        return [self._item(shape, depth - 1, directed=directed) for _ in range(self.number(4))]

    def _item(self, shape: Shape, depth: int, *, directed: bool) -> Any:
        item = self.along(shape.items, depth, directed=directed)
        if shape.kind == "map" and isinstance(item, dict) and not self.often(1):
            item |= {key: self.of(["a", "b"]) for key in shape.keys}
        return item

    def directives(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while self.often(3) and len(found) < 4:
            name = self.of(DIRECTIVES)
            found[name] = self.of(ORDERS) if name == "$patch" and not self.often(1) else self.anything(2)
        return found

    def body(self, *, directed: bool = False) -> dict[str, Any]:
        """An object."""
        body = self.along(SHAPE, directed=directed)
        body = body if isinstance(body, dict) else {}
        metadata = body.get("metadata")
        body["metadata"] = {**(metadata if isinstance(metadata, dict) else {}), "name": "n"}
        return {"apiVersion": "v1", "kind": "Thing", **body}

    def entries(self) -> Any:
        """Entries of ``managedFields`` as somebody may write them."""
        if self.often(1):
            return self.anything()
        return [self._entry() for _ in range(self.number(3))]

    def _entry(self) -> dict[str, Any]:
        entry: dict[str, Any] = {"fieldsType": "FieldsV1", "fieldsV1": self._fields(DEPTH)}
        entry |= {"operation": self.of(["Apply", "Update"]), "apiVersion": self.of(["v1", "", "v2"])}
        entry |= {"manager": self.of(["one", "two", "three", "four", ""]), "time": self.of(["", NOW, "0"])}
        if self.often(2):
            entry[self.of([*entry, "subresource"])] = self.of(["status", *SCALARS])
        return entry

    def _fields(self, depth: int) -> Any:
        count = self.number(3) if depth else 0
        return {self.of(STEPS): self._fields(depth - 1) for _ in range(count)}


def dumped(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def check_strategic(draw: Draw) -> None:
    """A strategic merge patch changes nothing that it is given, and sent twice it does no more."""
    live, patch = draw.body(), patches.Strategic(draw.body(directed=True))
    before = dumped([live, patch])
    merged = patches.patched(SHAPE, live, change=patch)
    assert dumped([live, patch]) == before, "a patch changed what it was given"
    assert isinstance(merged, dict)
    assert len(dumped(merged)) <= len(before), "a patch made more of an object than is in both"
    if b'"delete"' not in dumped(patch):  # else an item may go and come back, to another place each time
        assert dumped(patches.patched(SHAPE, merged, change=patch)) == dumped(merged), "sent twice it does more"


def check_entries(draw: Draw) -> None:
    """What can be read of entries is written so that it reads the same, and an update keeps to it."""
    entries = draw.entries()
    owners = managed.read(entries)
    if owners is not None:
        check_owners(owners)
    old, new = draw.body(), draw.body()
    old["metadata"]["managedFields"] = entries
    if draw.often(3):
        new["metadata"]["managedFields"] = draw.entries()
    before = dumped([old, new])
    kept = managed.updated(SHAPE, old, new=new, by=UPDATER, now=NOW)
    assert dumped([old, new]) == before, "an update changed what it was given"
    if kept is not None:
        check_owners(managed.read(kept))


def check_owners(owners: Owners | None) -> None:
    assert owners is not None, "entries of ours cannot be read"
    held = {owner: one for owner, one in owners.items() if one.fields}
    assert managed.read(managed.write(owners)) == held
    for one in held.values():
        assert len(fields.paths(one.fields, 1 << 30)) == fields.count(one.fields)
        assert fields.minus(one.fields, one.fields) == {}
        for same in (fields.union(one.fields, one.fields), fields.both(one.fields, one.fields)):
            assert [*fields.steps(same)] == [*fields.steps(one.fields)]


def check_applying(draw: Draw) -> None:
    """Of several appliers each gets what they say, by force, and applied twice nothing changes."""
    live, owners = draw.body(), managed.read(draw.entries()) or {}
    for _ in range(draw.number(3) + 1):
        by, config = draw.of(OWNERS), draw.body()
        before = dumped([live, config])
        try:
            merged, after = _applied(live, owners, config=config, by=by)
        except BessemerError:
            assert dumped([live, config]) == before, "who is refused changed what is there"
            continue
        assert dumped([live, config]) == before, "an applier changed what it was given"
        check_owners(after)
        again = apply.applying(SHAPE, merged, config=config, owners=after, by=by)
        assert apply.conflict(again) is None, "who applied by force is in conflict"
        assert dumped(again.merged) == dumped(merged), "applied twice it does more"
        if not managed.untracked(after):  # else nobody owns anything, and who applies begins anew
            noted = apply.settled(again, again.merged, now="later")
            assert noted in (None, managed.write(after)), "applied twice it is noted twice"
        live, owners = merged, after


def _applied(live: dict[str, Any], owners: Owners, *, config: Mapping[str, Any], by: Owner) -> tuple[Any, Owners]:
    """What the api does, without its admission."""
    one = apply.applying(SHAPE, live, config=dict(config), owners=owners, by=by)
    refused = apply.conflict(one)
    assert refused is None or refused.message
    entries = apply.settled(one, one.merged, now=NOW)
    found: Mapping[Owner, Held] | None = owners if entries is None else managed.read(entries)
    assert found is not None, "entries of ours cannot be read"
    return one.merged, dict(found)
