"""Envelope encryption: data keys, rotation while everything goes on, a KMS that is away; on both databases."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from bessemer.core.clock import FakeClock
from bessemer.core.errors import Conflict, NotFound, Unavailable
from bessemer.core.sealing import KeyRing
from bessemer.drivers.kms.fake import FakeKms
from bessemer.drivers.kms.local import LocalKeys
from bessemer.store import Guard, Store, open_store, rotation, sealed, vault
from bessemer.store.heads import Signing
from bessemer.store.sealed import SealedTable
from tests.store.conftest import KEY, KINDS
from tests.store.invariants import check, connect
from tests.store.make import ALICE, body

ROOT = Path(__file__).parents[2]


@dataclass
class Site:
    """A store whose data keys a fake KMS wraps."""

    place: str
    clock: FakeClock
    kms: FakeKms
    store: Store

    async def fill(self, count: int = 6) -> list[str]:
        made = await asyncio.gather(
            *(self.store.objects.create(body("Thing", f"t{number:03}"), ALICE) for number in range(count))
        )
        for thing in made:
            await self.store.sealed.put(thing.uid, "f", thing.uid.encode())
        return [thing.uid for thing in made]

    async def all_open(self, uids: list[str]) -> bool:
        return all([await self.store.sealed.get(uid, "f") == uid.encode() for uid in uids])

    def again(self) -> None:
        """Another process: nothing is unwrapped."""
        self.store.close()
        self.store = opened(self.place, self.clock, self.kms)

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        connection = connect(self.place)
        cursor = connection.execute(statement)  # type: ignore[arg-type]
        found = cursor.fetchall() if cursor.description else []
        connection.close()
        return found


def opened(place: str, clock: FakeClock, kms: FakeKms) -> Store:
    guard = Guard(kms, lambda: KeyRing([KEY]), Signing(KEY))
    return open_store(place, clock=clock, kinds=KINDS, guard=guard)


@pytest.fixture
async def site(place: str, clock: FakeClock) -> AsyncIterator[Site]:
    kms = FakeKms()
    made = Site(place, clock, kms, opened(place, clock, kms))
    yield made
    made.store.close()


@pytest.fixture
def each_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A data key per value."""
    monkeypatch.setattr(vault, "VALUES_EACH", 1)
    monkeypatch.setattr(rotation, "BATCH", 2)


async def keys_of(site: Site) -> tuple[int, int]:
    """Data keys under the current key, and what is left to do."""
    keys = await site.store.sealed.keys()
    return keys.data_keys.get(keys.current, 0), keys.left


async def test_values_share_a_data_key_that_the_database_has_wrapped_alone(site: Site) -> None:
    uids = await site.fill()
    assert await site.all_open(uids)
    ((name, kek, wrapped),) = site.sql("SELECT id, kek, wrapped FROM data_keys")
    assert kek == await site.kms.current()
    key = await site.kms.unwrap(bytes(wrapped), name=kek, context=b"bessemer data key " + name.encode())
    assert not any(key in bytes(row[0]) or key.hex() in row[1] for row in site.sql("SELECT wrapped, id FROM data_keys"))
    for (ciphertext,) in site.sql("SELECT ciphertext FROM sealed"):
        assert bytes(ciphertext)[4:20].hex() == name
    assert site.kms.calls.count("wrap") == 1
    check(site.place)


async def test_a_data_key_seals_so_many_values_for_so_long(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vault, "VALUES_EACH", 3)
    uids = await site.fill(7)
    assert (await keys_of(site))[0] == 3
    await site.clock.advance(vault.SEALS_SECONDS + 1)
    await site.store.sealed.put(uids[0], "f", uids[0].encode())
    assert (await keys_of(site))[0] == 4
    assert await site.all_open(uids)


TAMPERS = (
    "UPDATE sealed SET ciphertext = (SELECT ciphertext FROM sealed WHERE uid = '{1}') WHERE uid = '{0}'",
    "UPDATE sealed SET field = 'g'",
    "UPDATE sealed SET ciphertext = substr(ciphertext, 1, 24)",
    "UPDATE sealed SET ciphertext = substr(ciphertext, 5)",
    "UPDATE data_keys SET kek = 'another'",
    "DELETE FROM data_keys",
)


async def test_a_value_opens_in_its_place_under_its_key_alone(site: Site) -> None:
    for tamper in TAMPERS:
        made = await site.store.objects.create(body("Thing", f"a{TAMPERS.index(tamper)}"), ALICE)
        other = await site.store.objects.create(body("Thing", f"b{TAMPERS.index(tamper)}"), ALICE)
        for thing in (made, other):
            await site.store.sealed.put(thing.uid, "f", b"x")
        site.again()
        site.sql(tamper.format(made.uid, other.uid))
        with pytest.raises(Unavailable):
            await site.store.sealed.get(made.uid, "g" if "'g'" in tamper else "f")
        site.sql("DELETE FROM sealed")


async def test_what_does_not_exist_keeps_no_secret(site: Site) -> None:
    with pytest.raises(NotFound):
        await site.store.sealed.put("nobody", "f", b"x")
    assert site.sql("SELECT id FROM data_keys") == []


async def test_all_values_of_an_object_are_replaced_with_it(site: Site) -> None:
    (uid,) = await site.fill(1)
    table = site.store.sealed
    assert isinstance(table, SealedTable)
    await table.vault.ready()
    values = {"a": b"1", "b": b"2"}
    await table._committer.submit(lambda tx: sealed.reseal(tx, table.vault, uid=uid, values=values))
    assert [await table.get(uid, field) for field in ("f", "a", "b")] == [None, b"1", b"2"]


# --- rotation -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("each_its_own")
async def test_a_new_key_is_followed_and_the_old_one_may_go(site: Site) -> None:
    uids = await site.fill(7)
    before = dict(site.sql("SELECT uid, ciphertext FROM sealed"))
    old = await site.kms.current()
    site.kms.rotate()
    assert await keys_of(site) == (0, 7)
    assert await site.all_open(uids), "old keys are readable until it is done"
    keys = await site.store.sealed.rotate()
    assert (keys.left, keys.data_keys, keys.values) == (0, {keys.current: 7}, {keys.current: 7})
    site.kms.forget(old)
    site.again()
    assert await site.all_open(uids)
    assert dict(site.sql("SELECT uid, ciphertext FROM sealed")) == before, "no value was touched"


async def test_values_are_counted_a_few_at_a_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file they are read in the event loop, where others have their turn between."""
    monkeypatch.setattr(rotation, "HEADS", 2)
    uids = await site.fill(5)
    table = site.store.sealed
    assert isinstance(table, SealedTable)
    reader, most, turns = table._rotation._reader, 0, 0
    asked = reader.ask

    async def ask(statement: Any, **values: Any) -> list[Any]:
        nonlocal most
        rows = await asked(statement, **values)
        most = max(most, len(rows))
        return rows

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(reader, "ask", ask)
    other = asyncio.ensure_future(others())
    keys = await site.store.sealed.keys()
    other.cancel()
    assert (sum(keys.values.values()), most) == (len(uids), 2)
    assert turns >= 3


async def test_a_running_process_follows_by_itself(site: Site) -> None:
    uids = await site.fill(2)
    site.kms.rotate()
    await site.store.tidy()
    assert await keys_of(site) == (1, 0)
    await site.store.sealed.put(uids[0], "f", uids[0].encode())
    assert await keys_of(site) == (2, 0), "and seals nothing more under a data key that the old one wrapped"
    assert await site.all_open(uids)


async def test_with_values_nothing_stays_under_what_the_old_key_knew(site: Site) -> None:
    uids = await site.fill(5)
    before = {bytes(row[0]) for row in site.sql("SELECT ciphertext FROM sealed")}
    known = {row[0] for row in site.sql("SELECT id FROM data_keys")}
    site.kms.rotate()
    keys = await site.store.sealed.rotate(values=True)
    assert keys.left == 0
    after = {bytes(row[0]) for row in site.sql("SELECT ciphertext FROM sealed")}
    assert not before & after
    assert not {value[4:20].hex() for value in after} & known
    await site.clock.advance(rotation.UNUSED_SECONDS + 1)
    await site.store.tidy()
    assert not {row[0] for row in site.sql("SELECT id FROM data_keys")} & known, "data keys that nothing is under go"
    assert await site.all_open(uids)


@pytest.mark.usefixtures("each_its_own")
async def test_values_that_are_written_meanwhile_stand(site: Site) -> None:
    uids = await site.fill(12)
    site.kms.rotate()

    async def write() -> None:
        for _ in range(3):
            for uid in uids:
                await site.store.sealed.put(uid, "f", b"new " + uid.encode())

    await asyncio.gather(write(), site.store.sealed.rotate(values=True), site.store.sealed.rotate())
    for uid in uids:
        assert await site.store.sealed.get(uid, "f") == b"new " + uid.encode()
    assert (await site.store.sealed.rotate()).left == 0


@pytest.mark.usefixtures("each_its_own")
async def test_a_key_that_is_gone_keeps_none_of_the_others(site: Site) -> None:
    uids = await site.fill(4)
    site.sql("UPDATE data_keys SET kek = 'gone' WHERE id = (SELECT min(id) FROM data_keys)")
    site.kms.rotate()
    with pytest.raises(Unavailable, match="gone is not here"):
        await site.store.sealed.rotate()
    keys = await site.store.sealed.keys()
    assert (keys.left, keys.data_keys["gone"], keys.values["gone"]) == (1, 1, 1)
    await site.store.tidy()
    site.again()
    results = await asyncio.gather(*(site.store.sealed.get(uid, "f") for uid in uids), return_exceptions=True)
    assert Counter(map(type, results)) == {bytes: 3, Unavailable: 1}


@pytest.mark.usefixtures("each_its_own")
async def test_who_has_not_rotated_yet_brings_nothing_back(place: str, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    (one / "seal.key").write_bytes(KEY)
    staged = LocalKeys(one).stage()
    shutil.copytree(one, two)
    site = Site(place, FakeClock(), FakeKms(), over_files(place, one))
    uids = await site.fill(5)
    LocalKeys(one).rotate()
    await site.store.sealed.rotate()
    site.store.close()
    site.store = over_files(place, two)
    await site.store.tidy()
    assert (await site.store.sealed.keys()).data_keys == {staged: 5}
    assert await site.all_open(uids)
    os.utime(two / "seal.key", (1, 1))
    with pytest.raises(Conflict, match=f"{staged} is staged"):
        LocalKeys(two).remove(frozenset([staged]))
    LocalKeys(two).rotate()
    assert (await site.store.sealed.rotate()).left == 0
    site.store.close()


async def test_values_that_nobody_can_open_are_not_looked_at_all_the_time(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    (uid,) = await site.fill(1)
    value = as_before(uid, "f", b"x", key=bytes(32)).hex()
    literal = f"'\\x{value}'" if site.place.startswith("postgresql") else f"x'{value}'"
    site.sql(f"UPDATE sealed SET ciphertext = {literal}")
    site.again()
    opened = vault.Vault.open
    tried: list[str] = []

    async def count(self: vault.Vault, *args: Any, uid: str, field: str) -> bytes:
        tried.append(uid)
        return await opened(self, *args, uid=uid, field=field)

    monkeypatch.setattr(vault.Vault, "open", count)
    for _ in range(3):
        await site.store.tidy()
    assert len(tried) == 1
    with pytest.raises(Unavailable):
        await site.store.sealed.rotate()
    await site.clock.advance(rotation.UNUSED_SECONDS + 1)
    await site.store.tidy()
    assert len(tried) == 3


# --- a KMS that is away ---------------------------------------------------------------------------------------------


async def test_what_is_unwrapped_is_read_and_written_on_for_an_hour(site: Site) -> None:
    uids = await site.fill(2)
    site.again()
    assert await site.all_open(uids[:1])
    await site.store.sealed.put(uids[0], "f", uids[0].encode())
    site.kms.away = "no route to it"
    await site.clock.advance(vault.KEPT_SECONDS / 2)
    assert await site.all_open(uids)
    await site.store.sealed.put(uids[1], "f", uids[1].encode())
    await site.clock.advance(vault.KEPT_SECONDS)
    with pytest.raises(Unavailable, match="no route to it"):
        await site.store.sealed.put(uids[0], "f", b"x")
    site.kms.away = ""
    await site.store.sealed.put(uids[0], "f", uids[0].encode())
    assert await site.all_open(uids)


async def test_what_was_not_unwrapped_is_refused_with_the_reason(site: Site) -> None:
    uids = await site.fill(2)
    site.again()
    site.kms.away = "its certificate has run out"
    for uid in uids:
        with pytest.raises(Unavailable, match="its certificate has run out"):
            await site.store.sealed.get(uid, "f")
    await site.store.tidy()  # which goes on without
    site.kms.away = ""
    assert await site.all_open(uids)


async def test_many_who_ask_at_once_ask_it_once(site: Site) -> None:
    uids = await site.fill(20)
    site.again()
    site.kms.calls.clear()
    await asyncio.gather(*(site.store.sealed.get(uid, "f") for uid in uids))
    assert site.kms.calls == ["unwrap"]


# --- from a release before data keys --------------------------------------------------------------------------------


def as_before(uid: str, field: str, secret: bytes, *, key: bytes = KEY) -> bytes:
    """A value as the first release sealed it."""
    nonce = os.urandom(12)
    cipher = ChaCha20Poly1305(hashlib.sha256(b"bessemer seal v1" + key).digest())
    return nonce + cipher.encrypt(nonce, secret, f"{uid}\0{field}".encode())


async def test_values_of_before_data_keys_open_and_come_under_one(site: Site) -> None:
    uids = await site.fill(5)
    for uid in uids[:4]:
        value = as_before(uid, "f", uid.encode()).hex()
        literal = f"'\\x{value}'" if site.place.startswith("postgresql") else f"x'{value}'"
        site.sql(f"UPDATE sealed SET ciphertext = {literal} WHERE uid = '{uid}'")
    site.again()
    assert await site.all_open(uids)
    keys = await site.store.sealed.keys()
    assert (keys.values[""], keys.left) == (4, 4)
    await site.store.tidy()
    keys = await site.store.sealed.keys()
    assert (keys.left, keys.values) == (0, {keys.current: 5})
    assert await site.all_open(uids)


# --- killed ---------------------------------------------------------------------------------------------------------

KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from tests.store.test_vault import over_files
from bessemer.store import rotation, vault

vault.VALUES_EACH, rotation.BATCH = 1, 3
left = int(sys.argv[3])
wrapped = rotation._rewrap

def until(tx, fresh):
    global left
    wrapped(tx, fresh)
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

rotation._rewrap = until
store = over_files(sys.argv[1], Path(sys.argv[2]))
asyncio.run(store.sealed.rotate())
"""


def over_files(place: str, folder: Path) -> Store:
    keys = LocalKeys(folder)
    return open_store(place, clock=FakeClock(), kinds=KINDS, guard=Guard(keys, lambda: keys.ring, Signing(KEY)))


@pytest.mark.usefixtures("each_its_own")
async def test_a_rotation_that_is_killed_goes_on_where_it_stood(place: str, tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    (folder / "seal.key").write_bytes(KEY)
    site = Site(place, FakeClock(), FakeKms(), over_files(place, folder))
    uids = await site.fill(12)
    site.store.close()
    keys = LocalKeys(folder)
    keys.rotate()
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-c", KILLED, place, str(folder), "3"]
    killed = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    site.store = over_files(place, folder)
    state = await site.store.sealed.keys()
    assert 0 < state.left < 12, "some of it was done, and stands"
    assert await site.all_open(uids)
    assert (await site.store.sealed.rotate()).left == 0
    os.utime(folder / "seal.key", (1, 1))
    assert len(keys.remove(frozenset([state.current]))) == 1
    site.store.close()
    site.store = over_files(place, folder)
    assert await site.all_open(uids)
    site.store.close()
