"""Sets of fields, merging by them, and who owns what: the laws of it, on objects of every shape."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.api import fields, managed, patches
from bessemer.api.apply import Applying, applying, conflict, settled
from bessemer.api.fields import both, is_fields, minus, paths, union
from bessemer.api.managed import Held, Owner, Owners
from bessemer.api.shape import shape_of, tracked
from bessemer.core.errors import Malformed

TEXT = {"type": "string"}
ITEM = {"type": "object", "properties": {"name": TEXT, "a": TEXT, "b": TEXT}}
SCHEMA = {
    "type": "object",
    "properties": {
        "metadata": {"type": "object", "properties": {"labels": {"type": "object", "additionalProperties": TEXT}}},
        "spec": {
            "type": "object",
            "properties": {
                "x": TEXT,
                "y": TEXT,
                "whole": {"type": "array", "items": TEXT},
                "atomic": {"type": "object", "properties": {"a": TEXT}, "x-kubernetes-map-type": "atomic"},
                "set": {"type": "array", "items": TEXT, "x-kubernetes-list-type": "set"},
                "inner": {"type": "object", "properties": {"p": TEXT, "q": TEXT}},
                "map": {
                    "type": "array",
                    "items": ITEM,
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                },
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            },
        },
    },
}
SHAPE = shape_of(SCHEMA)
ONE, TWO = managed.owner("one", "Apply", version="v1"), managed.owner("two", "Apply", version="v1")

words = st.sampled_from(["a", "b", "c"])
rests = st.dictionaries(st.sampled_from(["a", "b"]), words)
items = st.dictionaries(words, rests).map(lambda named: [{"name": name, **rest} for name, rest in named.items()])
specs = st.fixed_dictionaries(
    {},
    optional={
        "x": words,
        "y": words,
        "whole": st.lists(words, max_size=2),
        "atomic": st.dictionaries(st.just("a"), words, min_size=1),
        "set": st.lists(words, max_size=3, unique=True),
        "inner": st.dictionaries(st.sampled_from(["p", "q"]), words),
        "map": items,
        "free": st.dictionaries(words, st.dictionaries(words, words, max_size=2), max_size=2),
    },
)
bodies = st.builds(
    lambda labels, spec: {"metadata": {"name": "n", "labels": labels}, "spec": spec},
    st.dictionaries(words, words, max_size=2),
    specs,
)
sets = bodies.map(lambda body: SHAPE.stated(tracked(body)) or {})


def apply(live: Any, owners: Owners, config: Any, by: Owner, *, force: bool = True) -> tuple[Any, Owners]:
    """What the api does, without its admission."""
    one = applying(SHAPE, live, config=config, owners=owners, by=by)
    refused = conflict(one)
    if refused is not None and not force:
        raise refused
    return one.merged, kept(one, owners)


def kept(one: Applying, owners: Owners) -> Owners:
    entries = settled(one, one.merged, now="2026-01-01T00:00:00Z")
    return owners if entries is None else managed.read(entries) or {}


@given(sets, sets)
def test_the_algebra_of_sets(one: Any, other: Any) -> None:
    assert is_fields(union(one, other))
    members = set(fields.steps(one)), set(fields.steps(other))
    assert set(fields.steps(union(one, other))) == members[0] | members[1]
    assert set(fields.steps(minus(one, other))) == members[0] - members[1]
    assert set(fields.steps(both(one, other))) == members[0] & members[1]
    assert orjson.loads(orjson.dumps(one)) == one
    assert minus(one, one) == {}
    assert union(one, one) == one


@given(bodies)
def test_entries_are_read_as_they_were_written(body: Any) -> None:
    managers = {ONE: Held(SHAPE.stated(tracked(body)) or {}, "2026-01-01T00:00:00Z", "v1")}
    written = managed.write(managers)
    assert managed.read(written) == {m: held for m, held in managers.items() if held.fields}
    assert managed.write(managed.read(written) or {}) == written


@given(bodies, bodies)
def test_what_changed_and_what_is_gone(old: Any, new: Any) -> None:
    changed, gone = SHAPE.compared(old, new)
    assert (changed, gone) == (None, None) if old == new else True
    assert both(changed or {}, gone or {}) == {}
    assert minus(gone or {}, SHAPE.whole(old)) == {}
    assert minus(changed or {}, SHAPE.whole(new)) == {}


def test_a_strategic_patch_takes_the_items_of_a_set_as_values() -> None:
    """Sent twice it does no more, whatever stands in it: what is no text is refused later, and not added each time."""
    patch = patches.Strategic({"spec": {"set": ["a", {"b": None}]}})
    once = patches.patched(SHAPE, {"spec": {"set": ["c"]}}, change=patch)
    assert once == {"spec": {"set": ["c", "a", {"b": None}]}}
    assert patches.patched(SHAPE, once, change=patch) == once


def test_null_is_a_value_that_is_there() -> None:
    """Else who writes something else of an object would become the owner of each null in it."""
    old = {"spec": {"x": "a", "free": {"n": None}}}
    assert SHAPE.compared(old, {"spec": {"x": "b", "free": {"n": None}}}) == ({"f:spec": {"f:x": {}}}, None)
    assert SHAPE.compared({"spec": {"free": {}}}, {"spec": {"free": {"n": None}}})[0] is not None
    assert SHAPE.compared(old, {"spec": {"x": "a", "free": {}}}) == (None, {"f:spec": {"f:free": {"f:n": {}}}})


@settings(deadline=None)
@given(bodies, bodies)
def test_applied_twice_changes_nothing(first: Any, second: Any) -> None:
    live, owners = apply(None, {}, first, ONE)
    live, owners = apply(live, owners, second, TWO)
    again, after = apply(live, owners, second, TWO, force=False)
    assert (again, after) == (live, owners)


@settings(deadline=None)
@given(bodies, bodies, bodies)
def test_what_goes_was_owned_alone(first: Any, second: Any, third: Any) -> None:
    """One who applies something else loses what nobody else owns, and no more; all that they say is there."""
    live, owners = apply(None, {}, first, ONE)
    live, owners = apply(live, owners, second, TWO)
    one, two = (set(fields.steps(owners[m].fields)) if m in owners else set() for m in (ONE, TWO))
    said = set(fields.steps(SHAPE.stated(tracked(third)) or {}))
    after, owners = apply(live, owners, third, ONE)
    gone = set(fields.steps(SHAPE.compared(live, after)[1] or {}))
    assert not gone & (two | said)
    for at in gone - one:
        assert above(at, one), "only what was left empty goes unowned"
    there = set(fields.steps(SHAPE.compared({"metadata": {}}, tracked(after))[0] or {}))
    empty = set(fields.steps(SHAPE.whole(tracked(third))))
    for at in (one - two - said - empty) & there:
        assert above(at, two | said) or at[-1] == "f:name", "what stays holds somebody's, or is its key"
    again = applying(SHAPE, after, config=third, owners=owners, by=ONE).merged
    assert tracked(again) == tracked(after)


def above(at: tuple[str, ...], others: set[tuple[str, ...]]) -> bool:
    return any(len(other) > len(at) and other[: len(at)] == at for other in others)


@settings(deadline=None)
@given(bodies, bodies)
def test_nobody_owns_in_conflict(first: Any, second: Any) -> None:
    """Two own one field only where both say the same of it."""
    live, owners = apply(None, {}, first, ONE)
    live, owners = apply(live, owners, second, TWO)
    shared = both(owners.get(ONE, Held({}, "")).fields, owners.get(TWO, Held({}, "")).fields)
    changed, _ = SHAPE.compared(tracked(first), tracked(second))
    assert both(shared, changed or {}) == {}


def test_a_conflict_names_each_field() -> None:
    live, owners = apply(None, {}, {"metadata": {}, "spec": {"x": "a", "map": [{"name": "n", "a": "1"}]}}, ONE)
    config = {"metadata": {}, "spec": {"x": "b", "map": [{"name": "n", "a": "2"}]}}
    refused = conflict(applying(SHAPE, live, config=config, owners=owners, by=TWO))
    assert refused is not None
    assert refused.message == 'Apply failed with 2 conflicts: conflicts with "one":\n- .spec.x\n- .spec.map[name="n"].a'
    assert {cause.field for cause in refused.causes} == {".spec.x", '.spec.map[name="n"].a'}


def test_items_keep_their_order() -> None:
    """Those of the configuration in its order, the others where they stood."""
    live = {"spec": {"set": ["a", "b", "c", "d"]}, "metadata": {}}
    for said, expected in (
        (["c", "a"], ["b", "c", "d", "a"]),
        (["x"], ["a", "b", "c", "d", "x"]),
        (["b", "x"], ["a", "b", "c", "d", "x"]),
        (["x", "c"], ["a", "b", "x", "c", "d"]),
    ):
        one = applying(SHAPE, live, config={"metadata": {}, "spec": {"set": said}}, owners={}, by=ONE)
        assert one.merged["spec"]["set"] == expected


@pytest.mark.parametrize("items", [[{"name": "n"}, {"name": "n"}], [{"a": "1"}], ["n"]])
def test_a_list_that_cannot_be_merged(items: Any) -> None:
    live = {"metadata": {}, "spec": {"map": [{"name": "n"}]}}
    with pytest.raises(Malformed):
        applying(SHAPE, live, config={"metadata": {}, "spec": {"map": items}}, owners={}, by=ONE)


def test_an_item_stays_as_long_as_somebody_owns_of_it() -> None:
    live, owners = apply(None, {}, {"metadata": {}, "spec": {"map": [{"name": "n", "a": "1"}]}}, ONE)
    live, owners = apply(live, owners, {"metadata": {}, "spec": {"map": [{"name": "n", "b": "2"}]}}, TWO)
    live, owners = apply(live, owners, {"metadata": {}, "spec": {"x": "a"}}, ONE)
    assert live["spec"] == {"x": "a", "map": [{"name": "n", "b": "2"}]}
    live, owners = apply(live, owners, {"metadata": {}, "spec": {"y": "a"}}, TWO)
    assert live["spec"] == {"x": "a", "y": "a"}


def test_past_ten_updaters_the_oldest_become_one() -> None:
    body: dict[str, Any] = {"metadata": {}, "spec": {"free": {"w0": "0"}}}
    body["metadata"]["managedFields"] = managed.updated(SHAPE, None, new=body, by=Owner("m0", "Update", "v1"), now="00")
    for number in range(1, 13):
        new = {"metadata": dict(body["metadata"]), "spec": {"free": {**body["spec"]["free"], f"w{number}": "0"}}}
        by = Owner(f"m{number}", "Update", "v1")
        new["metadata"]["managedFields"] = managed.updated(SHAPE, body, new=new, by=by, now=f"{number:02}")
        body = new
    managers = managed.read(body["metadata"]["managedFields"]) or {}
    assert len(managers) == managed.UPDATERS_MAX
    ancient = managers[Owner(managed.ANCIENT, "Update", "v1")]
    assert ".spec.free.w2" in paths(ancient.fields, 100)
    owned: Any = {}
    for held in managers.values():
        owned = union(owned, held.fields)
    assert {f".spec.free.w{number}" for number in range(13)} <= set(paths(owned, 100))


@pytest.mark.parametrize(
    ("said", "agent", "name"),
    [("me", "kubectl/v1", "me"), ("", "kubectl/v1.37 (linux)", "kubectl"), ("", "", "unknown"), ("", "\x00a\n/", "a")],
)
def test_who_writes(said: str, agent: str, name: str) -> None:
    assert managed.manager_name(said, agent) == name


@pytest.mark.parametrize(
    "entries",
    [
        [{"manager": "m", "operation": "Steal", "fieldsType": "FieldsV1", "fieldsV1": {}}],
        [{"manager": "m", "operation": "Apply", "fieldsType": "FieldsV2", "fieldsV1": {}}],
        [{"manager": 1, "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": {}}],
        [{"manager": "m", "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": {"spec": {}}}],
        [{"manager": "m", "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": {"k:nope": {}}}],
        [{"manager": "m", "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": {"f:a": 1}}],
        ["m"],
    ],
)
def test_entries_that_cannot_be_read(entries: Any) -> None:
    assert managed.read(entries) is None
