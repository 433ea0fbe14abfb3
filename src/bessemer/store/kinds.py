"""What the store has to know of each kind, as values. By itself it knows Claim, Host, Tenant, Project and Event."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bessemer.core.resource import API_VERSION, Kind
from bessemer.core.values import Quota
from bessemer.core.versions import Forward, forward

CLAIM = "Claim"
HOST = "Host"
TENANT = "Tenant"
PROJECT = "Project"
EVENT = "Event"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreKind:
    """``finalizer`` is put on at creation ("" puts none); ``meter`` is the quota meter that each object counts on;
    ``forward`` converts what is stored in an older version, where the kind has some."""

    namespaced: bool
    finalizer: str = ""
    meter: str = ""
    api_version: str = API_VERSION
    forward: Forward | None = None


def store_kinds(kinds: Iterable[Kind[Any, Any]]) -> dict[str, StoreKind]:
    """The facts of `Kind` values. A kind counts on the field of `Quota` that has its plural; Claims count in `take`."""
    return {
        kind.name: StoreKind(
            namespaced=kind.namespaced,
            finalizer=kind.finalizer if kind.finalize is not None else "",
            meter=kind.plural if kind.plural in Quota.model_fields and kind.name != CLAIM else "",
            api_version=kind.api_version,
            forward=forward(kind),
        )
        for kind in kinds
    }
