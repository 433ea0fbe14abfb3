"""Resources that are served in several versions: by which of them what is written is judged.

What is written in an older version is judged by that version's schema, so that errors name its fields; then it is
converted, and judged by the newest. All that is stored is of the newest. Nothing here knows a kind: see
`core.versions` for the conversion itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from bessemer.api import admission
from bessemer.api.admission import Admitted, Body
from bessemer.api.errors import invalid
from bessemer.api.query import FieldValidation
from bessemer.api.shown import Shown
from bessemer.core.errors import Cause
from bessemer.core.versions import annotation


def admit(resource: Shown, said: Body, *, old: Body | None, validation: FieldValidation) -> Admitted:
    """As `admission.admit`; ``old`` is as the version that is spoken has it, what is admitted is of the newest."""
    if resource.older is None:
        _refuse_kept(resource, said)
        return admission.admit(resource, said, old=old, validation=validation)
    admitted = admission.admit(resource, said, old=old, validation=validation)
    body, before = resource.stored_form(admitted.body), None if old is None else resource.stored_form(old)
    newest = admission.admit(resource.newest, body, old=before, validation="Strict")
    return Admitted(newest.body, admitted.warnings)


def _refuse_kept(resource: Shown, said: Body) -> None:
    """The newest version says itself what older ones keep. Raises Invalid."""
    annotations = said["metadata"].get("annotations")
    if not resource.source.older or not isinstance(annotations, Mapping):
        return
    if (name := annotation(resource.source)) in annotations:
        words = f"Forbidden: {resource.api_version} says it in its spec"
        cause = Cause(f"metadata.annotations[{name}]", words, "FieldValueForbidden")
        raise invalid(resource.subject(str(said["metadata"].get("name") or "")), [cause])
