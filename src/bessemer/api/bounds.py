"""What a credential may do at most, whatever its owner may: `access` holds every decision within it.

A bound takes away and never gives. A part that is None takes nothing away. Roles are names of built-in or custom Roles:
what none of them gives is not allowed, and so a tenant-admin's credential of the role ``reader`` reads, wherever its
owner may. Whose credential it is, and whether it still counts, is said by who authenticates.
"""

from __future__ import annotations

from dataclasses import dataclass

COLLECTED = frozenset(["list", "watch", "deletecollection"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """``roles``: names of Roles. ``verbs``: get, list, create … ``kinds``: as ``Instance``, each with its subresources.
    ``names``: of objects."""

    roles: frozenset[str] | None = None
    verbs: frozenset[str] | None = None
    kinds: frozenset[str] | None = None
    names: frozenset[str] | None = None

    def covers(self, verb: str, kind: str) -> bool:
        """Whether that verb upon that kind, or upon a part of it, is left to it at all."""
        return (self.verbs is None or verb in self.verbs) and (self.kinds is None or kind in self.kinds)

    def knows(self, tenant: str) -> bool:
        """Whether what is of a tenant, and has no place of its own, is left to it."""
        del tenant
        return True

    def allows(self, verb: str, kind: str, *, namespace: str = "", name: str = "", subresource: str = "") -> bool:
        """All but the roles, which need a directory. ``name`` "" is a collection: a list is narrowed to `names` by who
        makes it, as is what of it is deleted, and nothing is created there, since what is not there yet has no name."""
        del namespace, subresource  # A kind is bounded with its subresources, and in all projects alike.
        named = self.names is None or (name in self.names if name else verb in COLLECTED)
        return named and self.covers(verb, kind)
