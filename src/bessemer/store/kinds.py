"""What the store has to know of each kind, as values. By itself it knows those named here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bessemer.core.quota import meter_of_kind, part_of_kind
from bessemer.core.resource import API_VERSION, Kind
from bessemer.core.versions import Forward, forward

CLAIM = "Claim"
HOST = "Host"
TENANT = "Tenant"
PROJECT = "Project"
EVENT = "Event"
PRICE_PLAN = "PricePlan"
API_KEY = "ApiKey"
LEASE = "Lease"
SESSION = "Session"

FOLLOWERS = frozenset([CLAIM, "Role", "RoleBinding", SESSION, "ApplicationCredential"])
"""What goes with its owner whatever is wished: hardware that it holds, and rights and ways in that are about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreKind:
    """``finalizer`` is put on at creation ("" puts none); ``meter`` is the quota meter that each object counts on,
    as one or as many as the field ``counts`` of its status says; ``parts`` and ``most`` are those of `Kind`;
    ``forward`` converts what is stored in an older version, where the kind
    has some."""

    namespaced: bool
    finalizer: str = ""
    meter: str = ""
    counts: str = ""
    api_version: str = API_VERSION
    parts: Sequence[str] = ("spec",)
    most: int = 0
    forward: Forward | None = None

    @property
    def files(self) -> bool:
        """Whether a body may be as large as a file, as nothing else is. (What is sealed stands beside its body.)"""
        return "binaryData" in self.parts


def store_kinds(kinds: Iterable[Kind[Any, Any]]) -> dict[str, StoreKind]:
    """The facts of `Kind` values. A kind counts on the meter that the register has for it."""
    return {
        kind.name: StoreKind(
            namespaced=kind.namespaced,
            finalizer=kind.finalizer if kind.finalize is not None else "",
            meter=meter_of_kind(kind.name),
            counts=part_of_kind(kind.name),
            api_version=kind.api_version,
            parts=kind.parts,
            most=kind.most,
            forward=forward(kind),
        )
        for kind in kinds
    }
