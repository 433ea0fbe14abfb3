"""What models are brought and read by, as the operator's settings have it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import orjson

from bessemer.core.errors import DriverError
from bessemer.core.kept import Sealed
from bessemer.drivers.fetch.bringing import Limits, SourceModels
from bessemer.drivers.fetch.protocol import Place
from bessemer.drivers.fetch.reach import Reach
from bessemer.drivers.fetch.real import HostContent
from bessemer.drivers.weights.real import FileWeights
from bessemer.kinds.inference.model import AUDIENCE, SOURCE_SECRET
from bessemer.main.importer import ModelDrivers
from bessemer.main.settings import Settings


def model_drivers(settings: Settings, content: HostContent, *, sealed: Sealed) -> ModelDrivers:
    """Those of a control plane. Raises Invalid for a setting that cannot be read."""
    limits = Limits(
        reach=Reach.of(settings.sources_allowed),
        endpoint=settings.hub_endpoint,
        folders=tuple(Path(folder) for folder in settings.model_folders.split(":") if folder),
    )

    async def secrets(uid: str, place: Place) -> Mapping[str, str]:
        said = await sealed.get(uid, SOURCE_SECRET)
        found: dict[str, str] = orjson.loads(said) if said else {}
        return bound(found, place)

    return ModelDrivers(sources=SourceModels(content, limits), weights=FileWeights(), secrets=secrets)


def bound(secrets: Mapping[str, str], place: Place) -> Mapping[str, str]:
    """The secrets, for the place that they were set for. Raises DriverError ``SecretOfAnother`` where that is another:
    who may change where a model comes from may not have what somebody else set told to a place of their own."""
    said = {name: value for name, value in secrets.items() if name != AUDIENCE}
    if said and secrets.get(AUDIENCE) != place.audience:
        words = f"what its source is shown was set for {secrets.get(AUDIENCE) or 'an earlier source'}, and this is"
        raise DriverError("SecretOfAnother", f"{words} {place.audience or 'a folder'}: set it anew, or take it away")
    return said
