"""kill -9 in the middle of everything: what was acknowledged is there, and nothing contradicts itself."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from bessemer.core.clock import SystemClock
from bessemer.core.errors import NotFound, Unavailable
from bessemer.core.ports import CONTROLLER, Scope
from bessemer.core.resource import Key
from bessemer.store import Store, open_store
from tests.store.conftest import KEY, KINDS
from tests.store.faults import at_commits
from tests.store.invariants import check
from tests.store.make import ALICE, PROJECT, body, claim, inventory

ROOT = Path(__file__).resolve().parents[2]


def killed_writer(path: Path, run: str, lines: int) -> list[list[str]]:
    """Run a writer until it has acknowledged so many writes; kill it; answer all that it acknowledged."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.store.crash_writer", str(path), run],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        said = [process.stdout.readline() for _ in range(lines)]
        process.kill()
        said += process.stdout.readlines()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    return [line.decode().split() for line in said if line.endswith(b"\n")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


async def test_acknowledged_writes_survive_kill_9(path: Path) -> None:
    dice = random.Random(7)
    expected: dict[str, tuple[str, int]] = {}
    revision = 0
    for run in range(3):
        for verb, name, number in killed_writer(path, f"r{run}", dice.randrange(200, 1500)):
            expected[name] = (verb, int(number))
        check(path)
        store = open_store(path, clock=SystemClock(), kinds=KINDS, seal_key=KEY)
        try:
            assert store.revision > revision
            revision = store.revision
            assert await store.audit.verify() is None
            for name, (verb, number) in expected.items():
                await expect(store, name, verb, number)
            await store.objects.create(body("Thing", f"after-{run}"), ALICE)
        finally:
            store.close()
    check(path)


async def expect(store: Store, name: str, verb: str, revision: int) -> None:
    key = Key("Thing", PROJECT, name)
    if verb == "put":
        try:
            assert (await store.objects.get(key)).revision >= revision
        except NotFound:  # deleted, and killed before it could say so
            assert any(row.verb == "delete" and row.key == str(key) for row in await every_row(store))
    elif verb == "gone":
        with pytest.raises(NotFound):
            await store.objects.get(key)
    else:
        kinds = [row.kind for row in await store.ledger.entries() if row.claim_uid == name]
        assert kinds[0] == "open"
        assert verb == "claim" or kinds[-1] == "close"


async def every_row(store: Store) -> list[object]:
    return list(await store.audit.rows(limit=1_000_000))


async def test_a_full_disk_refuses_and_recovers(file_store: Store, tmp_path: Path) -> None:
    await file_store.capacity.declare("h1", inventory())
    await file_store.objects.create(body("Thing", "kept"), ALICE)
    session = file_store._committer._session
    pages = session._connection.execute("PRAGMA page_count").fetchone()[0]
    session.script(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(Unavailable, match="the disk of the store is full; nothing was changed"):
        await file_store.objects.create(body("Thing", "big", spec={"text": "x" * 500_000}), ALICE)
    revision = file_store.revision
    session.script("PRAGMA max_page_count = 1000000")
    await file_store.capacity.take([claim("a", devices=("gpu-0",))], CONTROLLER)
    assert file_store.revision == revision + 1
    assert [item.key.name for item in (await file_store.objects.list(Scope(kind="Thing"))).items] == ["kept"]
    assert await file_store.audit.verify() is None
    check(tmp_path / "store.db")


async def test_a_full_disk_at_the_commit_tells_every_writer_of_the_group(store: Store) -> None:
    session = store._committer._session
    broken = [session.faults[0]("database or disk is full")]
    at_commits(session, lambda: broken.pop() if broken else None)
    with pytest.raises(Unavailable, match="full"):
        await store.objects.create(body("Thing", "a"), ALICE)
    assert (store.revision, store.metrics.failures) == (0, 1)
    assert (await store.objects.create(body("Thing", "a"), ALICE)).revision == 1


async def test_a_closed_store_says_so(path: Path) -> None:
    store = open_store(path, clock=SystemClock(), kinds=KINDS, seal_key=KEY)
    store.close()
    store.close()
    with pytest.raises(Unavailable, match="closed"):
        await store.objects.create(body("Thing", "a"), ALICE)


def test_memory_leaves_nothing_behind() -> None:
    store = open_store(":memory:", clock=SystemClock(), kinds=KINDS, seal_key=KEY)
    folder = store._place.path.parent
    assert folder.exists()
    store.close()
    assert not folder.exists()
