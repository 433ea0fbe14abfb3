"""A second reading of Roles, RoleBindings, members and bounds: one question at a time, straight from what was written.

It shares no code with the sets that the api decides by. A question is about one possible object; where they are
infinitely many (projects that are yet to come), a name that nobody has written stands for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bessemer.core.resource import Kind

IMPLIED = {
    "admin": ["admin", "tenant-admin", "member", "reader", "anyone"],
    "operator": ["operator"],
    "auditor": ["auditor"],
    "tenant-admin": ["tenant-admin", "member", "reader"],
    "member": ["member", "reader"],
    "reader": ["reader"],
    "billing-reader": ["billing-reader"],
    "anyone": ["anyone"],
}


@dataclass(frozen=True)
class Question:
    """May one do this to that? ``kind`` "" is the platform itself, asked at ``tenant`` and ``project``."""

    verb: str
    kind: str
    part: str = ""
    project: str = ""
    name: str = ""
    tenant: str = ""


@dataclass(frozen=True)
class Holding:
    """One role, bound once. ``role`` is the name of a built-in one or the spec of a custom one; ``scope`` as in a
    binding of that name."""

    role: str | Mapping[str, Any]
    binding: str
    scope: Mapping[str, Any]


@dataclass(frozen=True)
class Oracle:
    kinds: Sequence[Kind[Any, Any]]

    def may(self, held: Sequence[Holding], question: Question) -> bool:
        return any(self.gives(one.role, question) and self.reaches(one, question) for one in held)

    def gives(self, role: str | Mapping[str, Any], question: Question) -> bool:
        """Whether a role is about that, wherever it may be bound."""
        if isinstance(role, str):
            return self._built_in(role, question)
        if any(self._built_in(name, question) for name in role.get("includes", [])):
            return True
        return any(self._rule(rule, question) for rule in role.get("rules", []))

    def _built_in(self, role: str, question: Question) -> bool:
        if question.kind == "":
            return role in ({"administer": ["admin"], "read": ["admin", "auditor", "tenant-admin"]}[question.verb])
        kind = next(kind for kind in self.kinds if kind.name == question.kind)
        row: Mapping[Any, Any] = kind.below[question.part] if question.part else kind.rights
        return any(question.verb in row.get(name, ()) for name in IMPLIED[role])

    def _rule(self, rule: Mapping[str, Any], question: Question) -> bool:
        if question.kind == "" or not any(self._built_in(role, question) for role in IMPLIED if role != "anyone"):
            return False  # nobody may it at all
        if question.kind not in rule["kinds"] and "*" not in rule["kinds"]:
            return False
        if question.verb not in rule["verbs"] and "*" not in rule["verbs"]:
            return False
        parts = rule.get("subresources", [])
        if question.part and question.part not in parts and "*" not in parts:
            return False
        if not question.part and parts:
            return False
        if not rule.get("names"):
            return True
        return question.name in rule["names"] and (question.verb != "create" or bool(question.part))

    def reaches(self, held: Holding, question: Question) -> bool:
        """Whether what is asked about lies where the role was bound."""
        tenant, project = self.whose(question)
        about = held.scope.get("object")
        if about and (question.kind, question.name) != (about["kind"], about["name"]):
            return False
        if about and question.verb == "create" and not question.part:
            return False
        if held.scope.get("project"):
            return project == held.scope["project"]
        bound = held.scope.get("tenant") or (held.binding.split("--")[0] if "--" in held.binding else "")
        return not bound or tenant == bound

    def whose(self, question: Question) -> tuple[str, str]:
        """The tenant and the project that it lies in."""
        if question.kind == "":
            return question.tenant, question.project
        if question.project:
            return question.project.split("--")[0], question.project
        if question.kind == "Tenant":
            return question.name, ""
        if question.kind in ("Project", "Role", "RoleBinding") and "--" in question.name:
            return question.name.split("--")[0], question.name if question.kind == "Project" else ""
        return "", ""


def questions(
    kinds: Sequence[Kind[Any, Any]], *, verbs: Sequence[str], projects: Sequence[str], names: Sequence[str]
) -> Iterator[Question]:
    """About each possible object of those places: their tenants and projects, and names that are in use or in none."""
    tenants = sorted({project.split("--")[0] for project in projects})
    whose = [f"{tenant}--fresh" for tenant in tenants]
    flat = {
        "Tenant": [*tenants, *(name for name in names if "--" not in name)],
        "Project": [*projects, *(name for name in names if "--" in name)],
        "Role": [*names, *whose],
    }
    for tenant, project in [("", ""), *((t, "") for t in tenants), *((p.split("--")[0], p) for p in projects)]:
        yield Question("administer", "", tenant=tenant, project=project)
        yield Question("read", "", "trail", tenant=tenant, project=project)
    for kind in kinds:
        for verb in verbs:
            for part in ["", *kind.below]:
                for project in projects if kind.namespaced else [""]:
                    for name in names if kind.namespaced else flat.get(kind.name, names):
                        yield Question(verb, kind.name, part, project, name)
