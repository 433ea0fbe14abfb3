"""A real installation is lived in with secrets that can be known again, and then all that it ever wrote is searched.

Each secret stands where it is said to be. Which there are is not for this test to say: each subresource that makes one
must have been used, and each value that the store keeps sealed is opened afterwards and looked for.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import resource
import signal
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from bessemer.api.credentials import SECRETS
from bessemer.api.routes import ROUTES
from bessemer.core.clock import SystemClock
from bessemer.drivers.process.parts import HostParts
from bessemer.main.down import stop_all
from bessemer.main.parts import CONTROL, ORDER, command
from bessemer.main.settings import SEAL_KEYS, Paths, Settings, load, save, with_ports
from bessemer.main.storage import keys_of, located, open_state
from tests.main import deeds
from tests.main.life import LEAST_BYTES, Life
from tests.main.starting import is_up, start, until
from tests.store.conftest import server as server  # noqa: PLC0414
from tests.store.invariants import connect
from tests.store.server import Server

pytestmark = pytest.mark.real

SEAL_KEY = hashlib.sha256(b"of a key that seals").digest()
LOOKED_FOR = {"a password typed as a name": {"postgresql/log"}}
"""A name that is typed is looked for among the users: whoever has a database tell its statements reads it there."""
FIELDS = {"password", "join", "client-secret", "id-token", "data", "source", "external", "logging"}
"""Under which names the store keeps sealed values: what is new here has a deed of its own."""
ROUTES_OF_SECRETS = {"/".join(rule.path.split("/")[-3:]) for rule in ROUTES if rule.path.rpartition("/")[2] in SECRETS}


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.long)])
async def life(
    request: pytest.FixtureRequest, state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Life]:
    paths, outside = Paths(state_dir), tmp_path / "outside"
    outside.mkdir()
    monkeypatch.setenv(SEAL_KEYS, base64.b64encode(SEAL_KEY).decode())
    found: Server | None = None
    if request.param == "postgresql":
        found = request.getfixturevalue("server")
        url = found.database("leaks")
        with psycopg.connect(url, autocommit=True) as connection:  # its log then has each value that is given to it
            connection.execute("ALTER DATABASE leaks SET log_statement = 'all'")
        save(paths, with_ports(Settings(store=url, api_port=0, portal_port=0, gateway_port=0), find_free=True))
    with (outside / "up").open("wb") as output:
        up = await start(paths, fake_hosts=1, output=output.fileno())
    try:
        await until(lambda: is_up(paths))
        yield Life(paths, outside, found)
    finally:
        await stop_all(paths)
        await up.wait()


async def keys(life: Life) -> None:
    """With the store to ourselves: each data key, unwrapped, and each value that was sealed, opened."""
    with closing(connect(located(life.paths, load(life.paths)))) as connection:
        rows = connection.execute("SELECT id, kek, wrapped FROM data_keys").fetchall()
        sealed = connection.execute("SELECT uid, field FROM sealed").fetchall()
    assert rows
    for name, kek, wrapped in rows:
        context = b"bessemer data key " + name.encode()
        life.know(f"data key {name}", await keys_of(life.paths).unwrap(bytes(wrapped), name=kek, context=context))
    with closing(open_state(life.paths, load(life.paths), clock=SystemClock())) as store:
        for uid, field in sealed:
            value = await store.sealed.get(uid, field)
            if value is not None and len(value) >= LEAST_BYTES and value not in life.secrets.values():
                life.know(f"{field} of {uid}", value)
    assert {field.partition("/")[0] for _, field in sealed} == FIELDS


async def test_each_secret_stands_where_it_is_said_to_be_and_nowhere_else(life: Life, tmp_path: Path) -> None:
    admin = life.client()
    await deeds.people(life, admin)
    await deeds.outside(life, admin, tmp_path)
    await deeds.programs(life, admin)
    await deeds.secrets(life, admin)
    await deeds.backup(life)
    await deeds.listen(life)
    await deeds.note(life, admin)
    await admin.close()
    life.hold("as it ran")
    await ends(life)
    life.collect()
    life.know("a key that seals, given by the environment", SEAL_KEY)
    await keys(life)
    assert life.routes == ROUTES_OF_SECRETS, "each subresource that makes a secret was used"
    found = {name: places for name, secret in life.secrets.items() if (places := life.places(secret))}
    assert found == (LOOKED_FOR if life.server is not None else {})
    where_notes_are(life)
    where_keys_are(life)


async def ends(life: Life) -> None:
    """As a crash of its own would be, and then in order."""
    for name in ORDER:
        for part in await HostParts().find(command(life.paths, name).marker):
            assert resource.prlimit(part.pid, resource.RLIMIT_CORE) == (0, 0)
            assert (SEAL_KEYS in deeds.environment(part.pid)) == (name == CONTROL), (
                "who opens no store has no key to it"
            )
    (control,) = await HostParts().find(command(life.paths, CONTROL).marker)
    os.kill(control.pid, signal.SIGABRT)
    await asyncio.sleep(0)
    await stop_all(life.paths)


def where_notes_are(life: Life) -> None:
    """What is no secret is found: in the object's body, and neither in audit nor logs. So the search can find."""
    old, late = (life.places(note.encode()) for note in (deeds.ANNOTATION, deeds.LATE))
    if life.server is None:
        assert old
        assert "store.db-wal as it ran" in late, "whoever opened the file first has not taken its log away"
        assert {place.partition(" ")[0] for place in old | late} <= {"store.db", "store.db-wal"}
    else:
        assert "postgresql/log" in old & late
        assert any(place.startswith("postgresql/data/base/") for place in old)
        assert any(place.startswith("postgresql/data/pg_wal/") for place in late)
        assert all(place.startswith("postgresql/") for place in old | late)


def where_keys_are(life: Life) -> None:
    for name in ("seal.key", "gateway.key", "audit.key"):
        assert life.places((life.paths.keys / name).read_bytes()) == {f"keys/{name}"}
    for folder in (life.paths.ca, life.paths.certs):
        for file in folder.glob("*.key"):
            line = file.read_bytes().splitlines()[2]
            assert life.places(line) == {str(file.relative_to(life.paths.state))}
            assert file.stat().st_mode & 0o077 == 0
    assert [name for name in life.names if Path(name).name.startswith("core")] == []
    assert life.dumps() == []
