"""An installation that runs is backed up and checked; then it is moved to PostgreSQL, and is the same there."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bessemer.cli.verbs import BackupOptions, CheckOptions, CopyOptions, RestoreOptions
from bessemer.client import Client, an_object, from_kubeconfig
from bessemer.core.clock import SystemClock
from bessemer.core.ports import Scope
from bessemer.core.resource import Key
from bessemer.core.values import LedgerEntry
from bessemer.main.backups import backup
from bessemer.main.down import stop_all
from bessemer.main.keeping import check, copy
from bessemer.main.restoring import restore
from bessemer.main.settings import Paths, load, save
from bessemer.main.storage import open_state
from bessemer.main.up import LOCK
from tests.main.starting import is_up, start, until
from tests.store.lived import usage
from tests.store.make import PROJECT
from tests.store.server import running

pytestmark = [pytest.mark.real, pytest.mark.long]

KEPT = ("Tenant", "Project", "Flavor", "PricePlan", "User", "Host", "Instance")


async def told(client: Client) -> dict[str, Any]:
    """What somebody hears of an installation."""
    objects = {}
    for kind in KEPT:
        for item in (await client.list(Scope(kind=kind))).items:
            objects[str(item.key)] = item.uid
    rows, _ = await client.audit.find({"limit": "5", "verb": "create", "kind": "Project"})
    return {
        "objects": objects,
        "trail": [(row["id"], row["digest"]) for row in rows],
        "secrets": (await client.sealed.keys())["values"],
    }


async def used(paths: Paths) -> list[LedgerEntry]:
    """Tokens, as a gateway tells them; the ledger then."""
    with closing(open_state(paths, load(paths), clock=SystemClock())) as store:
        await store.ledger.settle(usage(1))
        return [*await store.ledger.entries()]


async def up(paths: Paths) -> Any:
    (paths.state / LOCK).unlink(missing_ok=True)  # it says of the one before that it is up
    process = await start(paths)
    await until(lambda: is_up(paths))
    return process


async def down(paths: Paths, process: Any) -> None:
    process.send_signal(signal.SIGINT)
    await process.wait()
    await stop_all(paths)


async def test_a_running_installation_is_kept_and_moved(
    state_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths, key, file = Paths(state_dir), tmp_path / "key", tmp_path / "monday"
    key.write_bytes(bytes(range(32)))
    process = await up(paths)
    try:
        client = from_kubeconfig(paths.kubeconfig)
        await client.create(an_object(Key("Tenant", "", "acme"), {}))
        await client.create(an_object(Key("Project", "", "acme--lab"), {}))
        assert await asyncio.to_thread(check, CheckOptions(state=paths.state)) == 0, capsys.readouterr().out
        written = BackupOptions(file=file, state=paths.state, key_file=key)
        assert await asyncio.to_thread(backup, written) == 0
        before = await told(client)
        await client.close()
    finally:
        await down(paths, process)
    bill = await used(paths)
    there = RestoreOptions(file=file, state=tmp_path / "there", key_file=key)
    assert await asyncio.to_thread(restore, there) == 0, capsys.readouterr().out
    with running() as server:
        assert copy(CopyOptions(source=str(paths.store), target=server.url())) == 0
        paths.store.rename(paths.store.with_suffix(".old"))
        save(paths, load(paths, store=server.url()))
        process = await up(paths)
        try:
            client = from_kubeconfig(paths.kubeconfig)
            assert await told(client) == before
            rows = (await client.projects.ledger(PROJECT, 0, int(time.time()) + 60))["rows"]
            assert [(row["kind"], row["inputTokens"]) for row in rows] == [("tokens", 5)]
            assert str((await client.projects.invoice(PROJECT, 0, int(time.time()) + 60))["lines"]).count("tok")
            await client.close()
            assert await asyncio.to_thread(check, CheckOptions(state=paths.state)) == 0, capsys.readouterr().out
        finally:
            await down(paths, process)
        with closing(open_state(paths, load(paths), clock=SystemClock())) as store:
            assert [*await store.ledger.entries()] == bill
            assert await store.audit.verify() is None
