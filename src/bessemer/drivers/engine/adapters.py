"""Adapters of this machine's engines: what each has, and those that it is given while it runs."""

from __future__ import annotations

from typing import Any

import orjson

from bessemer.core.errors import DriverError
from bessemer.drivers.engine.asking import Asking
from bessemer.drivers.engine.loaded import Loaded
from bessemer.drivers.engine.protocol import Adapter, check_adapter
from bessemer.drivers.engine.recipe import LoadingRecipe, Recipe


class HostAdapters:
    """Implements `protocol.Adapters`."""

    def __init__(self, asking: Asking, loaded: Loaded) -> None:
        self._asking = asking
        self._loaded = loaded

    async def names(self, uid: str, secret: str) -> tuple[str, ...]:
        recipe = await self._asking.recipe(uid)
        return tuple(recipe.names(await self._listed(uid, secret, recipe=recipe)))

    async def load(self, uid: str, secret: str, *, adapter: Adapter) -> None:
        recipe = await self._loading(uid)
        listed = await self._listed(uid, secret, recipe=recipe)
        if adapter.name not in recipe.names(listed):
            self._loaded.put(uid, adapter)
            path, body = recipe.loading(listed, adapter.name)
            await self._asking.ask(uid, path, secret=secret, body=body)

    async def unload(self, uid: str, secret: str, *, name: str) -> None:
        recipe = await self._loading(uid)
        listed = await self._listed(uid, secret, recipe=recipe)
        if name in recipe.names(listed):
            path, body = recipe.unloading(listed, name)
            await self._asking.ask(uid, path, secret=secret, body=body)
        self._loaded.drop(uid, name)

    async def _loading(self, uid: str) -> LoadingRecipe:
        recipe = await self._asking.recipe(uid)
        if not isinstance(recipe, LoadingRecipe):
            raise DriverError("AdaptersFixed", f"{recipe.sort.name} gets its adapters when it starts")
        return recipe

    async def _listed(self, uid: str, secret: str, *, recipe: Recipe) -> Any:
        """What the engine says of its adapters, in which nothing is believed that is no name of one."""
        raw = await self._asking.ask(uid, recipe.listing, secret=secret)
        try:
            listed = orjson.loads(raw)
            for name in recipe.names(listed):
                check_adapter(name)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DriverError("ProbeFailed", "the engine's adapters cannot be read", internal=repr(error)) from error
        return listed
