"""The demo's road over PostgreSQL: as a person takes it, with the address in the environment."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import psycopg
import pytest

from tests.failover.cluster import ROOT
from tests.store import invariants
from tests.store.server import Server


@pytest.mark.long
@pytest.mark.real
async def test_the_demo_takes_its_road_over_postgresql(server: Server, tmp_path: Path) -> None:
    """`bessemer demo` with BESSEMER_STORE: a real guest, a real engine, an invoice; all of it is in the database."""
    database = server.database("demo")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bessemer", "demo", "--fake-hosts", "2", "--no-stay", "--state", str(tmp_path / "s")),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "BESSEMER_STORE": database},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), 240)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert process.returncode == 0, said.decode()
    assert not (tmp_path / "s" / "store.db").exists()
    invariants.check(database)
    with psycopg.connect(database) as connection:
        kinds = {kind for (kind,) in connection.execute("SELECT DISTINCT kind FROM objects")}
        billed = connection.execute("SELECT count(*) FROM ledger WHERE kind = 'tokens'").fetchone()
    assert {"Tenant", "Host", "Model"} <= kinds
    assert billed is not None
    assert billed[0] > 0
