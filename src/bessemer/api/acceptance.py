"""Who accepted a model's terms, and when: written by us, whatever is said."""

from __future__ import annotations

from typing import Any

from bessemer.api.access import Target
from bessemer.api.state import Call
from bessemer.core.clock import rfc3339
from bessemer.kinds.inference.model import Model
from bessemer.kinds.inference.projectmodel import ProjectModel
from bessemer.kinds.inference.sources import ModelSource

_OF_NO_TERMS = frozenset(("revision", "files"))


def sign(call: Call, target: Target, *, body: dict[str, Any], old: dict[str, Any] | None) -> None:
    """Write into a Model who accepts its terms now; of the same terms of the same source, who had accepted them. What
    was accepted of one source does not come along to another."""
    said = body.get("spec", {}).get("accepted")
    if target.resource.kind not in (Model.KIND, ProjectModel.KIND) or not said:
        return
    before = (old or {}).get("spec", {}).get("accepted") or {}
    elsewhere = old is not None and _whence(old) != _whence(body)
    if elsewhere and said == before:
        del body["spec"]["accepted"]
        return
    if before.get("licence") == said["licence"] and not elsewhere:
        body["spec"]["accepted"] = before
        return
    signed = {"by": call.who.name, "at": rfc3339(call.state.context.clock.now())}
    body["spec"]["accepted"] = {"licence": said["licence"], **signed}


def _whence(body: dict[str, Any]) -> dict[str, Any]:
    """Whose terms they are: all of a source but which of its files, at which commit."""
    source = ModelSource.model_validate(body["spec"]["source"])
    return {type(one).__name__: one.model_dump(exclude=set(_OF_NO_TERMS)) for one in source.said()}
