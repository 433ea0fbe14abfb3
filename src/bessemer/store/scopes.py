"""Whose bounds a thing counts on: ``project/NAME`` and ``tenant/NAME``; and who may raise them."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType

from bessemer.core.resource import Key
from bessemer.store.kinds import PROJECT, TENANT
from bessemer.store.rows import find
from bessemer.store.transaction import Tx

WHO = MappingProxyType({"tenant": "an administrator of the platform", "project": "an administrator of the tenant"})
_KINDS = MappingProxyType({"tenant": TENANT, "project": PROJECT})


def scopes(project: str, tenant: str) -> Iterator[str]:
    """Whose quota a thing in the project counts on."""
    if project:
        yield f"project/{project}"
    if tenant:
        yield f"tenant/{tenant}"


def raise_it(scope: str) -> str:
    """Who may raise the bounds of the scope, as the end of a sentence."""
    return f"{WHO[scope.partition('/')[0]]} may raise the quota"


def owner(tx: Tx, scope: str) -> str:
    """The uid of who bears the scope's name now; "" of nobody."""
    kind, _, name = scope.partition("/")
    row = find(tx, Key(_KINDS[kind], "", name))
    return row.uid if row is not None else ""
