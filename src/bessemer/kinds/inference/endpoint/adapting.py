"""The adapters of a replica that runs, as its intent says: loaded and unloaded where its engine can while it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bessemer.drivers.engine.protocol import Adapter
from bessemer.kinds.context import HostContext
from bessemer.kinds.host_side import Pass
from bessemer.kinds.inference.endpoint.spec import EndpointIntent, FileIntent


async def brought(ctx: HostContext, digest: str, *, files: Sequence[FileIntent]) -> tuple[Path, Mapping[str, Path]]:
    """The content on this host: its own path, and where it is several files, theirs by their paths within it."""
    found = {file.path: await ctx.content.ensure(file.digest) for file in files}
    return await ctx.content.ensure(digest), found


async def adapters_of(ctx: HostContext, intent: EndpointIntent) -> tuple[Adapter, ...]:
    """All that it should have, brought to this host."""
    return tuple([Adapter(one.name, *await brought(ctx, one.digest, files=one.files)) for one in intent.adapters])


async def adapt(this: Pass[EndpointIntent], secret: str) -> Mapping[str, Any]:
    """Have the engine have those and no others; what is remembered of it, for the claim's detail. One whose content is
    another goes before it comes. Raises DriverError."""
    driver, uid = this.ctx.drivers.adapters, this.claim.uid
    wanted = {one.name: one.digest for one in this.intent.adapters}
    had = this.claim.status.detail.get("adapters") or {}
    if wanted == had or driver is None:
        return {}
    for name in await driver.names(uid, secret):
        if name not in wanted or had.get(name, wanted[name]) != wanted[name]:
            await driver.unload(uid, secret, name=name)
    has = await driver.names(uid, secret)
    for adapter in await adapters_of(this.ctx, this.intent):
        if adapter.name not in has:
            await driver.load(uid, secret, adapter=adapter)
    return {"adapters": wanted or None}
