"""A replica of yesterday's build reads what this one stores, where nobody has used what is new."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, Field

from tests.kinds import stored

FIELDS = stored.fields()


def joined(found: dict[str, stored.Field], before: frozenset[str]) -> list[str]:
    """What joined since and is always there: neither it nor what it joined within is left out. A model that is new
    brings its fields along, and of a kind that is new no older replica reads an object."""
    known = {path.split(".")[0] for path in before}

    def left_out(path: str) -> bool:
        parts = path.split(".")
        if parts[0] not in known:
            return True
        above = (".".join(parts[:end]) for end in range(2, len(parts) + 1))
        return any(at not in before and at in found and found[at].left_out is not None for at in above)

    return sorted(path for path in found if path not in before and not left_out(path))


def test_what_joins_within_a_schema_is_left_out_where_it_says_nothing() -> None:
    missing = joined(FIELDS, stored.recorded())
    assert not missing, f"older replicas of this schema refuse these; see {stored.__name__}: {missing}"


def test_what_was_stored_is_read() -> None:
    gone = sorted(stored.recorded() - FIELDS.keys() - stored.FORGOTTEN)
    assert not gone, f"objects have these, and nobody would read them: {gone}"


def test_what_is_left_out_is_what_it_is_by_default() -> None:
    """Else a field that says nothing would be there, or one that says something would not come back."""
    for path, field in FIELDS.items():
        if field.left_out is not None:
            assert not field.info.is_required(), path
            assert field.left_out(field.info.get_default(call_default_factory=True, validated_data={})), path


class _Inner(BaseModel):
    always: int = 1


class _Old(BaseModel):
    there: list[_Inner] = Field(default_factory=list)


class _New(BaseModel):
    class Part(_Inner):
        more: int = 1
        seldom: int = Field(0, exclude_if=lambda said: not said)

    there: list[Part] = Field(default_factory=list)
    whole: _Inner | None = Field(None, exclude_if=lambda said: said is None)
    forgotten: _Inner | None = None


@pytest.mark.parametrize("model", [_Old, _New])
def test_the_rule_itself(model: type[Any]) -> None:
    before = frozenset(field.path for field in stored.of_model(_Old, "Thing"))
    assert before == {"Thing.there", "Thing.there.always"}
    found = {field.path: field for field in stored.of_model(model, "Thing")}
    wrong = ["Thing.forgotten", "Thing.forgotten.always", "Thing.there.more"] if model is _New else []
    assert joined(found, before) == wrong
