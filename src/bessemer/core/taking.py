"""What goes into the transaction that takes Claims, and how an outcome says that its status is to go there.

A place that is taken and the status that says so are one write: who dies in between leaves neither, and nobody sees one
without the other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bessemer.core.errors import BessemerError
from bessemer.core.notices import Happening
from bessemer.core.resource import Key, Outcome
from bessemer.core.values import ClaimSpec

Wanted = tuple[Key, ClaimSpec, Mapping[str, Any]]
"""A Claim's key, spec, and metadata: labels and ownerReferences."""


@dataclass(frozen=True, slots=True)
class Telling:
    """The body of a status write, under its resourceVersion, and what it tells. Nobody changes it any more."""

    body: Mapping[str, Any]
    happenings: Sequence[Happening] = ()


@dataclass(frozen=True, slots=True)
class Within:
    """How an outcome's status is written with what the outcome says of it. ``write`` does both or neither and answers
    the revision that the object has then; where it raises, ``failed`` says what came of it instead."""

    write: Callable[[Telling], Awaitable[int]]
    failed: Callable[[BessemerError], Awaitable[Outcome]]
