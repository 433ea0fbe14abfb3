"""Whose an ApiKey is, and in which class it waits: written by us where who asks has no say in it.

Who may change the project, and so states its bounds, may make keys for anybody in it or for nobody, and let them wait
before others. Anybody else who may make keys makes their own, by which their bounds hold for all that they ask; and
the secret of one that has an owner is the owner's.
"""

from __future__ import annotations

from typing import Any

from bessemer.api.access import Target
from bessemer.api.errors import invalid
from bessemer.api.names import show
from bessemer.api.state import Call
from bessemer.core.errors import Cause, Forbidden
from bessemer.kinds.tenancy.apikey import ApiKey
from bessemer.kinds.tenancy.project import Project

_CLASSES = ("flex", "default", "priority")


def judge(call: Call, target: Target, *, body: dict[str, Any], old: dict[str, Any] | None) -> None:
    """Make a key its maker's, where they may not make it another's; and let it stay whose it is. Raises Invalid."""
    if target.resource.stored != ApiKey.KIND:
        return
    spec, causes = body["spec"], []
    if old is not None and (owner := old["spec"].get("owner")):
        spec["owner"] = owner  # one who says nothing of it says nothing against it
    if _decides(call, target):
        return
    if old is None and spec.setdefault("owner", call.who.name) != call.who.name:
        words = f"Forbidden: {show(spec['owner'])}: you may make keys of your own; who may change the project, others'"
        causes.append(Cause("spec.owner", words, "FieldValueForbidden"))
    said, before = (one.get("spec", {}).get("priority", "default") for one in (body, old or {}))
    if _CLASSES.index(said) > _CLASSES.index(before):
        words = f"Forbidden: {show(said)}: raised by who may change the project"
        causes.append(Cause("spec.priority", words, "FieldValueForbidden"))
    if causes:
        raise invalid(target.subject, causes)


def require_own(call: Call, body: dict[str, Any]) -> None:
    """A new secret of a key is for its owner, or who could make them another. Raises Forbidden."""
    owner = body["spec"].get("owner")
    if owner and owner != call.who.name and not _decides(call, call.about):
        raise Forbidden(f"only {owner}, whose key it is, may make its secret, or who may change the project")


def _decides(call: Call, target: Target) -> bool:
    project = call.state.resources.of_kind(Project.KIND)
    assert project is not None, "it is one of ours"
    return call.state.access.may(call.who, "update", on=Target(project, "", target.namespace))
