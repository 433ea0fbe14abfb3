"""What each role may, in the words of docs/roles.md and not by the rows of kinds: who should be let in where.

A kind stands here by what it is (a tenant's work, its papers, its secrets, the floor, the catalogue …), and each of
these says once who may what. Letters are those of the matrix: r get, list and watch, c create, u change, d delete. It
knows nothing of how the api decides; a kind or a part that has no line here is an error.
"""

from __future__ import annotations

from collections.abc import Mapping

ALL, READ = "rcud", "r"
EVERYBODY = ("admin", "operator", "auditor", "billing-reader", "tenant-admin", "member", "reader", "new")
NAMES = {"billing": "billing-reader"}
PLATFORMS = frozenset(["admin", "operator", "auditor", "billing"])

_READERS = {"tenant-admin": READ, "member": READ, "reader": READ, "auditor": READ}
_MAKERS = {"admin": ALL, "tenant-admin": ALL, "member": ALL}
_WORK = {**_MAKERS, "reader": READ, "auditor": READ}
_PAPER = {**_MAKERS, "reader": READ}
_GRANTING = {**_READERS, "admin": ALL, "tenant-admin": ALL}
_CATALOGUE = {**dict.fromkeys(EVERYBODY, READ), "admin": ALL, "operator": ALL}

TENANTS: Mapping[str, Mapping[str, str]] = {
    "Tenant": {**_READERS, "admin": ALL, "billing-reader": READ},
    "Project": {**_READERS, "admin": ALL, "tenant-admin": ALL, "billing-reader": READ},
    "PricePlan": {**_READERS, "admin": ALL, "billing-reader": READ},
    "Role": _GRANTING,
    "RoleBinding": _GRANTING,
    "ApiKey": _WORK,
    "ApplicationCredential": {**_WORK, "admin": "rud"},  # who asks by a certificate is no User, and has none
    "Instance": _WORK,
    "ProjectModel": _WORK,
    "Endpoint": _WORK,
    "Vetting": _WORK,
    "Job": _WORK,
    "Event": _WORK,
    "Claim": {**_READERS, "admin": READ},  # written by who places
    "ConfigMap": _PAPER,
    "Lease": _PAPER,
    "Secret": _MAKERS,
}
"""Kind → role → letters, of what is a tenant's."""

PLATFORM: Mapping[str, Mapping[str, str]] = {
    "Flavor": _CATALOGUE,
    "Image": _CATALOGUE,
    "Model": _CATALOGUE,
    "Host": {"admin": ALL, "operator": ALL, "auditor": READ},
    "Consolidation": {"admin": ALL, "auditor": READ},  # it names whose claims are moved
    "User": {"admin": ALL, "auditor": READ},
    "Role": {"admin": ALL, "auditor": READ},
    "RoleBinding": {"admin": ALL, "auditor": READ},
    "SignInPolicy": {"admin": ALL, "auditor": READ},
    "IdentityProvider": {"admin": ALL},
    "Session": {"admin": "rd"},  # made by signing in
}

_BOOKS = ("admin", "tenant-admin", "member", "reader", "auditor", "billing-reader")
_TALK = ("admin", "tenant-admin", "member", "reader")
_HANDS = ("admin", "tenant-admin", "member")
PARTS: Mapping[str, tuple[str, ...]] = {
    "Tenant/use": _BOOKS,
    "Project/use": _BOOKS,
    "Project/invoice": _BOOKS,
    "Project/ledger": _BOOKS,
    "Project/usage": _BOOKS,
    "Project/reconcile": _BOOKS,
    "Project/shares": (),  # a gateway's
    "Instance/log": _TALK,
    "Endpoint/log": _TALK,
    "Vetting/log": _TALK,
    "Job/log": _TALK,
    "Instance/console": _HANDS,
    "Endpoint/secret": _HANDS,
    "ApiKey/use": ("admin", "auditor", "tenant-admin", "member", "reader"),
    "ApiKey/token": ("admin", "tenant-admin"),  # and its owner's: this one is somebody else's
    "ApplicationCredential/token": (),  # its owner's, in person
    "Claim/secrets": (),  # its host's
    "User/password": ("admin",),
    "User/signinlink": ("admin",),
    "IdentityProvider/clientsecret": ("admin",),
    "Model/token": ("admin",),
    "ProjectModel/token": ("admin", "tenant-admin"),
    "Host/token": ("admin", "operator"),
    "Host/heartbeat": (),  # its agent's
    "Host/stream": (),
}

_OF_A_TENANT_WHOLE = frozenset(["Tenant", "Role", "RoleBinding"])
"""Which lie in no project, so that nobody who holds a role in one has them."""


def expected(row: str, place: str, asker: str) -> str:
    """Letters, or x for a part. ``asker`` is ``operator``, ``t.admin``, ``p.reader``, ``new``. Raises KeyError for what
    has no line."""
    kind = row.partition("/")[0]
    if "/" in row:
        return "x" if _role(asker) in PARTS[row] and _holds(kind, place, asker) else ""
    if place == "platform":
        found = PLATFORM[kind]
        common = found.get("new", "")  # everybody's
        return found.get(_role(asker), common) if asker in PLATFORMS else common
    letters = TENANTS[kind].get(_role(asker), "")
    return letters if _holds(kind, place, asker) else ""


def _role(asker: str) -> str:
    where, _, name = asker.rpartition(".")
    return "tenant-admin" if where and name == "admin" else NAMES.get(name, name)


def _holds(kind: str, place: str, asker: str) -> bool:
    """Whether the asker's role is held where that is."""
    if asker in PLATFORMS:
        return True
    if asker.startswith("t."):
        return place in ("own", "beside")
    return asker.startswith("p.") and place == "own" and kind not in _OF_A_TENANT_WHOLE
