"""Who accepted a model's terms, and when: written by us, whatever is said."""

from __future__ import annotations

from typing import Any

from bessemer.api.access import Target
from bessemer.api.state import Call
from bessemer.core.clock import rfc3339
from bessemer.kinds.inference.model import Model


def sign(call: Call, target: Target, *, body: dict[str, Any], old: dict[str, Any] | None) -> None:
    """Write into a Model who accepts its terms now; of the same terms as before, who had accepted them."""
    said = body.get("spec", {}).get("accepted")
    if target.resource.kind != Model.KIND or not said:
        return
    before = (old or {}).get("spec", {}).get("accepted") or {}
    if before.get("licence") == said["licence"]:
        body["spec"]["accepted"] = before
        return
    signed = {"by": call.who.name, "at": rfc3339(call.state.context.clock.now())}
    body["spec"]["accepted"] = {"licence": said["licence"], **signed}
