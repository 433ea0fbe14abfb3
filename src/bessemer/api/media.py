"""Which shape an answer takes: the first of the ``Accept`` list that we speak. JSON always, YAML for one object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bessemer.api.accept import HEADER_BYTES_MAX
from bessemer.api.errors import Unacceptable

Shape = Literal["object", "table", "partial"]
_SPOKEN = "application/json, application/yaml"


@dataclass(frozen=True, slots=True)
class Wanted:
    """``shape`` of objects; ``yaml`` where that was asked for before JSON."""

    shape: Shape = "object"
    yaml: bool = False


def wanted(accept: str) -> Wanted:
    """Read an Accept header. Protobuf is passed over, as every client that sends it names JSON too.
    Raises Unacceptable where nothing of it is spoken here."""
    if not accept or len(accept) > HEADER_BYTES_MAX:
        return Wanted()
    for clause in accept.split(","):
        media, *rest = (part.strip() for part in clause.split(";"))
        parameters = dict(p.split("=", 1) for p in rest if "=" in p)
        if media in ("*/*", "application/*"):
            return Wanted()
        if media in ("application/json", "application/yaml"):
            shape = _shape(parameters)
            if shape is not None:
                return Wanted(shape, media.endswith("yaml") and shape == "object")
    raise Unacceptable(f"only the following media types are accepted: {_SPOKEN}")


def _shape(parameters: dict[str, str]) -> Shape | None:
    name = parameters.get("as", "")
    if not name:
        return "object"
    if parameters.get("g") != "meta.k8s.io" or parameters.get("v") not in ("v1", None):
        return None
    if name == "Table":
        return "table"
    return "partial" if name in ("PartialObjectMetadata", "PartialObjectMetadataList") else None
