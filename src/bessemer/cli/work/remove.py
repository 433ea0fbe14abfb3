"""Deleting objects, by name or as files declare them, in the reverse of the order in which they are made."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import typer

from bessemer.cli.work.objects import gone
from bessemer.cli.work.sets import in_order
from bessemer.client import Client
from bessemer.core.errors import Invalid, NotFound
from bessemer.core.resource import Key


async def delete_all(
    client: Client, keys: Sequence[Key], *, timeout: float, missing_is_fine: bool = False, dry_run: bool = False
) -> None:
    """Delete, last first, and wait until all are gone unless ``timeout`` is 0. Raises Invalid when it runs out, and
    NotFound unless ``missing_is_fine``."""
    asked = []
    for key in reversed(in_order(keys)):
        try:
            await client.delete(key, dry_run=dry_run)
        except NotFound:
            if not missing_is_fine:
                raise
            typer.echo(f"{key.kind.lower()}/{key.name} not there")
            continue
        asked.append(key)
        typer.echo(f"{key.kind.lower()}/{key.name} deleted{' (dry run)' if dry_run else ''}")
    if not timeout or dry_run:
        return
    try:
        async with asyncio.timeout(timeout):
            await asyncio.gather(*(gone(client, key) for key in asked))
    except TimeoutError as error:
        raise Invalid(
            f"not all is gone after {timeout:g} s; `bessemer why KIND NAME` says what it waits for"
        ) from error
