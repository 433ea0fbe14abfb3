"""How a state directory comes to a database, and which ones do not."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from bessemer.core.clock import SystemClock
from bessemer.core.errors import Invalid
from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import Key
from bessemer.main import identities
from bessemer.main.control import run_control
from bessemer.main.parts import AGENT, CONTROL, GATEWAY, command
from bessemer.main.settings import STORE_PASSWORD, Paths, Settings, heads_of, load, save
from bessemer.main.storage import CONTENT_ID, agree, keys_of, located, open_state
from bessemer.store import Store
from tests.store.server import Server

ADDRESS = "postgresql://bessemer@db.example/bessemer"
ALL = ("ca", "keys/seal.key", "keys/gateway.key", "keys/audit.key", "content")


def founded(folder: Path, *, store: str) -> tuple[Paths, Settings]:
    paths, settings = Paths(folder), Settings(store=store)
    identities.prepare(paths, settings)
    return paths, settings


def copied(first: Paths, folder: Path, *parts: str) -> Paths:
    """Another state directory with these parts of the first, and what is missing made anew."""
    paths = Paths(folder)
    for part in parts:
        (paths.state / part).parent.mkdir(parents=True, exist_ok=True)
        if part == "content":
            paths.content.symlink_to(first.content)
        elif (first.state / part).is_dir():
            shutil.copytree(first.state / part, paths.state / part)
        else:
            shutil.copy(first.state / part, paths.state / part)
    identities.prepare(paths, Settings())
    return paths


@asynccontextmanager
async def opened(paths: Paths, settings: Settings) -> AsyncIterator[Store]:
    store = open_state(paths, settings, clock=SystemClock())
    try:
        yield store
    finally:
        store.close()


# --- the address ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://bessemer:secret@db/bessemer",
        "postgresql://bessemer@db/bessemer?password=secret",
        "postgresql://bessemer@db/bessemer?sslmode=require&sslpassword=secret",
    ],
)
def test_an_address_bears_no_password(tmp_path: Path, address: str) -> None:
    with pytest.raises(Invalid, match="leave the password out") as raised:
        load(Paths(tmp_path), store=address)
    assert "secret" not in str(raised.value)
    with pytest.raises(Invalid, match="leave the password out"):
        located(Paths(tmp_path), Settings(store=address))


@pytest.mark.parametrize("address", ["mysql://db/x", "/srv/store.db", "postgresql://[db/x"])
def test_what_is_no_address_of_a_database_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(Invalid, match="setting store"):
        located(Paths(tmp_path), Settings(store=address))


def test_the_password_lies_in_a_file_and_in_no_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, settings = founded(tmp_path, store=ADDRESS)
    assert located(paths, settings) == ADDRESS
    (paths.keys / STORE_PASSWORD).write_text("p&ss w/rd%\n")
    told = conninfo_to_dict(str(located(paths, settings)))
    assert (told["password"], told["host"], told["dbname"]) == ("p&ss w/rd%", "db.example", "bessemer")
    save(paths, settings)
    assert "p&ss" not in paths.settings.read_text()
    monkeypatch.setenv("PGPASSWORD", "another")
    for name in (CONTROL, GATEWAY, AGENT):
        started = command(paths, name)
        assert ADDRESS not in " ".join(started.argv)
        assert started.env is not None
        assert ("PGPASSWORD" in started.env) == (name == CONTROL), "nobody else has a use for it"


def test_the_setting_comes_from_the_file_the_shell_or_a_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = Paths(tmp_path)
    assert load(paths).store == ""
    assert located(paths, load(paths)) == paths.store
    save(paths, Settings(store="postgresql://of-the-file/x"))
    assert load(paths).store == "postgresql://of-the-file/x"
    monkeypatch.setenv("BESSEMER_STORE", "postgresql://of-the-shell/x")
    assert load(paths).store == "postgresql://of-the-shell/x"
    assert load(paths, store="postgresql://of-the-flag/x").store == "postgresql://of-the-flag/x"


def test_an_installation_in_a_file_is_not_passed_over(tmp_path: Path) -> None:
    paths, settings = founded(tmp_path, store=ADDRESS)
    paths.store.touch()
    with pytest.raises(Invalid, match="move one away"):
        located(paths, settings)


def test_what_stands_before_replicas_is_named_in_certificates_and_addresses(tmp_path: Path) -> None:
    settings = Settings(names="api.example, 10.0.0.9", api_url="https://api.example:7443/")
    assert {"api.example", "10.0.0.9"} <= set(identities.server_names(settings))
    assert identities.urls(settings)["api"] == "https://api.example:7443"


# --- the installation -------------------------------------------------------------------------------------------


@pytest.mark.real
async def test_a_replica_with_all_of_the_first_is_let_in(server: Server, tmp_path: Path) -> None:
    paths, settings = founded(tmp_path / "a", store=server.database("joining"))
    async with opened(paths, settings) as store:
        await agree(store, paths)
        await agree(store, paths)
        another = copied(paths, tmp_path / "b", *ALL)
        await agree(store, another)
        assert len(await store.leases.held("installation")) == 1
    async with opened(another, settings) as store:
        await agree(store, another)


@pytest.mark.real
@pytest.mark.parametrize(
    ("lacks", "told"),
    [
        ("ca", "authority is not that .*: copy `ca/` of the first replica"),
        ("keys/seal.key", "seal key is not that .*: copy `keys/seal.key`"),
        ("keys/gateway.key", "gateway key is not that .*: copy `keys/gateway.key`"),
        ("keys/audit.key", "audit key is not that .*: copy `keys/audit.key`"),
        ("content", "content is to be the folder that all replicas share"),
    ],
)
async def test_a_replica_with_something_else_is_refused_and_told_what_to_copy(
    server: Server, tmp_path: Path, lacks: str, told: str
) -> None:
    paths, settings = founded(tmp_path / "a", store=server.database("joining"))
    async with opened(paths, settings) as store:
        await agree(store, paths)
        parts = [part for part in ALL if part != lacks]
        with pytest.raises(Invalid, match=told):
            await agree(store, copied(paths, tmp_path / "b", *parts))
        await agree(store, paths)


@pytest.mark.real
async def test_a_refused_replica_signs_nothing(server: Server, tmp_path: Path) -> None:
    paths, settings = founded(tmp_path / "a", store=server.database("joining"))
    async with opened(paths, settings) as store:
        await agree(store, paths)
        await store.audit.note(CONTROLLER, "look", key=Key("Host", "", "h1"))
    another = copied(paths, tmp_path / "b", *(part for part in ALL if part != "keys/audit.key"))
    with pytest.raises(Invalid, match="audit key"):
        await run_control(another, settings, parts=("api",), stop=asyncio.Event(), ready=lambda: None)
    assert not heads_of(another).exists()
    async with opened(paths, settings) as store:
        assert await store.audit.verify() is None


@pytest.mark.real
async def test_content_that_is_lost_begins_anew_by_a_word(server: Server, tmp_path: Path) -> None:
    paths, settings = founded(tmp_path / "a", store=server.database("joining"))
    async with opened(paths, settings) as store:
        await agree(store, paths)
        kept = (paths.content / CONTENT_ID).read_text()
        shutil.rmtree(paths.content)
        with pytest.raises(Invalid, match=f"echo {kept} > ") as raised:
            await agree(store, paths)
        assert str(paths.content / CONTENT_ID) in str(raised.value)
        paths.content.mkdir()
        (paths.content / CONTENT_ID).write_text(f"{kept}\n")
        await agree(store, paths)


@pytest.mark.real
async def test_the_mark_follows_a_rotation_before_anything_is_sealed(server: Server, tmp_path: Path) -> None:
    paths, settings = founded(tmp_path / "a", store=server.database("joining"))
    async with opened(paths, settings) as store:
        await agree(store, paths)
        old = copied(paths, tmp_path / "b", *ALL)
        keys_of(paths).stage()
        staged = copied(paths, tmp_path / "c", *ALL, "keys/seal-next.key")
        keys_of(paths).rotate()
        await agree(store, paths)
        for file in paths.keys.glob("seal-*.key"):
            file.unlink()
        await agree(store, paths)
        await agree(store, staged)
        await agree(store, paths)
        with pytest.raises(Invalid, match="seal key is not that"):
            await agree(store, old)


@pytest.mark.real
async def test_the_database_learns_no_key(server: Server, tmp_path: Path) -> None:
    paths, settings = founded(tmp_path / "a", store=server.database("joining"))
    async with opened(paths, settings) as store:
        await agree(store, paths)
        (mark,) = await store.leases.held("installation")
    for name in (identities.SEAL_KEY, identities.GATEWAY_KEY, identities.AUDIT_KEY):
        assert identities.key_of(paths, name).hex() not in mark.note
