"""What a credential may do at most, whatever its owner may: asked before every decision of `access`.

A bound takes away and never gives. A part that is None takes nothing away. Roles are names of built-in or custom Roles:
what none of them allows is not allowed, and so a tenant-admin's credential of the role ``reader`` reads, in every tenant
of its owner's. Whose credential it is, and whether it still counts, is said by who authenticates.
"""

from __future__ import annotations

from dataclasses import dataclass

from bessemer.core.resource import tenant_of

COLLECTED = frozenset(["list", "watch"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """``roles``: names of Roles. ``verbs``: get, list, create … ``kinds``: as ``Instance``, each with its subresources.
    ``names``: of objects. ``places``: tenants (``acme``) and projects (``acme--lab``)."""

    roles: frozenset[str] | None = None
    verbs: frozenset[str] | None = None
    kinds: frozenset[str] | None = None
    names: frozenset[str] | None = None
    places: frozenset[str] | None = None

    def allows(self, verb: str, kind: str, *, namespace: str = "", name: str = "", subresource: str = "") -> bool:
        """All but the roles, which need a directory. ``name`` "" is a collection: a list is narrowed to `names` by who
        makes it, and nothing is created there whose name is not said."""
        del subresource  # It goes with its kind.
        parts = ((self.verbs, verb), (self.kinds, kind))
        if any(bound is not None and said not in bound for bound, said in parts):
            return False
        if self.names is not None and name not in self.names and (name or verb not in COLLECTED):
            return False
        return self.places is None or not namespace or not self.places.isdisjoint((namespace, tenant_of(namespace)))
