"""What models are brought and read by, as the operator's settings have it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import orjson

from bessemer.core.kept import Sealed
from bessemer.drivers.fetch.bringing import Limits, SourceModels
from bessemer.drivers.fetch.protocol import Place
from bessemer.drivers.fetch.reach import Reach
from bessemer.drivers.fetch.real import HostContent
from bessemer.drivers.fetch.telling import bound
from bessemer.drivers.weights.real import FileWeights
from bessemer.kinds.inference.model import SOURCE_SECRET
from bessemer.main.importer import ModelDrivers
from bessemer.main.settings import Settings


def model_drivers(settings: Settings, content: HostContent, *, sealed: Sealed) -> ModelDrivers:
    """Those of a control plane. Raises Invalid for a setting that cannot be read."""
    limits = Limits(
        reach=Reach.of(settings.sources_allowed),
        own_reach=Reach.of(settings.project_sources_allowed),
        endpoint=settings.hub_endpoint,
        folders=tuple(Path(folder) for folder in settings.model_folders.split(":") if folder),
    )

    async def secrets(uid: str, place: Place) -> Mapping[str, str]:
        said = await sealed.get(uid, SOURCE_SECRET)
        found: dict[str, str] = orjson.loads(said) if said else {}
        return bound(found, place)

    return ModelDrivers(sources=SourceModels(content, limits), weights=FileWeights(), secrets=secrets)
