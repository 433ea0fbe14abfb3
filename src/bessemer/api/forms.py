"""One object in several versions, for who set which field of it: each author's fields are named in the version in which
they wrote, so a write is looked at in each version that somebody owns fields in. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from bessemer.api.fields import Fields
from bessemer.api.shape import Body, Shape

if TYPE_CHECKING:
    from bessemer.api.shown import Shown


@dataclass(frozen=True, slots=True)
class Form:
    """How an object of the version that is spoken looks in another, and the way back."""

    shape: Shape
    convert: Callable[[Body], Body]
    back: Callable[[Body], Body]


Forms = Mapping[str, Form]
"""By apiVersion. What is in none of them is taken to be of the version that is spoken."""

ONE: Forms = MappingProxyType({})


class Moves:
    """What a write brings about and what it takes away, in the words of whichever version somebody owns fields in."""

    def __init__(self, shape: Shape, old: Body | None, *, new: Body, forms: Forms) -> None:
        self._old, self._new = old, new
        self._forms = forms
        self._own = shape.changes(old, new)
        self._found: dict[str, tuple[Fields, Fields]] = {}

    def of(self, version: str) -> tuple[Fields, Fields]:
        """(changed, gone)."""
        form = self._forms.get(version)
        if form is None:
            return self._own
        if version not in self._found:
            old = None if self._old is None else form.convert(self._old)
            self._found[version] = form.shape.changes(old, form.convert(self._new))
        return self._found[version]


def forms_of(spoken: Shown, siblings: Iterable[Shown]) -> Forms:
    """The other versions of a resource, as they look from the one that is spoken."""
    return {
        other.api_version: Form(other.shape, _between(spoken, other), _between(other, spoken))
        for other in siblings
        if other.api_version != spoken.api_version
    }


def _between(spoken: Shown, other: Shown) -> Callable[[Body], Body]:
    return lambda body: other.seen(spoken.stored_form(body))
