"""One contract for whoever wraps: the fake and the key files. Then what is a file's alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from bessemer.core.errors import Conflict, Unavailable
from bessemer.core.sealing import key_id
from bessemer.drivers.kms.fake import FakeKms
from bessemer.drivers.kms.local import LocalKeys
from bessemer.drivers.kms.protocol import Kms

KEY = bytes(range(32))


@dataclass
class Site:
    kms: Kms
    rotate: Callable[[], object]
    forget: Callable[[str], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "seal.key").write_bytes(KEY)
    return tmp_path


@pytest.fixture(params=["fake", "local"])
def site(request: pytest.FixtureRequest, folder: Path) -> Site:
    if request.param == "fake":
        fake = FakeKms()
        return Site(fake, fake.rotate, fake.forget)
    local = LocalKeys(folder)
    return Site(local, local.rotate, lambda name: (folder / f"seal-{name}.key").unlink())


async def test_what_is_wrapped_unwraps_in_its_context_alone(site: Site) -> None:
    name, wrapped = await site.kms.wrap(b"secret", context=b"a")
    assert name == await site.kms.current()
    assert b"secret" not in wrapped
    assert await site.kms.unwrap(wrapped, name=name, context=b"a") == b"secret"
    with pytest.raises(Unavailable):
        await site.kms.unwrap(wrapped, name=name, context=b"b")
    with pytest.raises(Unavailable):
        await site.kms.unwrap(wrapped[:-1], name=name, context=b"a")
    assert (await site.kms.wrap(b"secret", context=b"a"))[1] != wrapped


async def test_an_old_key_unwraps_until_it_is_gone(site: Site) -> None:
    before, wrapped = await site.kms.wrap(b"secret", context=b"a")
    site.rotate()
    assert await site.kms.current() != before
    assert await site.kms.unwrap(wrapped, name=before, context=b"a") == b"secret"
    site.forget(before)
    with pytest.raises(Unavailable, match=before):
        await site.kms.unwrap(wrapped, name=before, context=b"a")


async def test_a_kms_that_is_away_says_why(site: Site) -> None:
    if isinstance(site.kms, FakeKms):
        site.kms.away = "no route"
        with pytest.raises(Unavailable, match="no route"):
            await site.kms.current()


def test_files_are_private_and_whole(folder: Path) -> None:
    keys = LocalKeys(folder)
    name = keys.rotate()
    assert sorted(file.name for file in folder.iterdir()) == [f"seal-{key_id(KEY)}.key", "seal.key"]
    assert all(file.stat().st_mode & 0o077 == 0 for file in folder.iterdir())
    assert key_id((folder / "seal.key").read_bytes()) == name
    assert name in LocalKeys(folder).ring.ids


async def test_a_rotation_that_was_stopped_between_its_files_is_none(folder: Path) -> None:
    (folder / f"seal-{key_id(KEY)}.key").write_bytes(KEY)
    keys = LocalKeys(folder)
    assert await keys.current() == key_id(KEY)
    os.utime(folder / "seal.key", (1, 1))
    assert keys.remove(frozenset()) == [], "the current key's own copy is kept"
    assert keys.rotate() != key_id(KEY)


async def test_a_staged_key_is_the_next_everywhere(folder: Path) -> None:
    keys = LocalKeys(folder)
    name = keys.stage()
    assert keys.stage() == name
    assert name in keys.ring.ids, "what another replica sealed with it already opens here"
    assert await keys.current() == key_id(KEY)
    os.utime(folder / "seal.key", (1, 1))
    assert await keys.ahead() == {name}
    with pytest.raises(Conflict, match="is staged"):
        keys.remove(frozenset())
    assert keys.rotate() == name
    assert not (folder / "seal-next.key").exists()


def test_old_files_go_once_nothing_is_under_them(folder: Path) -> None:
    keys = LocalKeys(folder)
    keys.rotate()
    with pytest.raises(Conflict, match="60 s"):
        keys.remove(frozenset())
    os.utime(folder / "seal.key", (1, 1))
    assert keys.remove(frozenset([key_id(KEY)])) == []
    assert keys.remove(frozenset()) == [key_id(KEY)]
    assert [file.name for file in folder.iterdir()] == ["seal.key"]


async def test_a_key_from_elsewhere_is_staged_taken_and_left_to_others(folder: Path) -> None:
    """Two replicas: each may have either set of keys at any moment of a rotation."""
    old, new = bytes(32), b"n" * 32
    before, staged = LocalKeys(folder, given=[old]), LocalKeys(folder, given=[old], coming=new)
    turned = LocalKeys(folder, given=[new, old])
    assert [await keys.current() for keys in (before, staged, turned)] == [key_id(old), key_id(old), key_id(new)]
    assert await staged.ahead() == frozenset([key_id(new)]), "what others bring under it is left there"
    assert await before.ahead() == await turned.ahead() == frozenset()
    name, wrapped = await turned.wrap(b"x", context=b"")
    assert await staged.unwrap(wrapped, name=name, context=b"") == b"x"
    for act in (staged.stage, staged.rotate):
        with pytest.raises(Conflict, match="next:KEY"):
            act()
    assert not (folder / "seal-next.key").exists()


async def test_keys_from_elsewhere_come_first(folder: Path) -> None:
    given = bytes(32)
    name, wrapped = await LocalKeys(folder).wrap(b"x", context=b"")
    keys = LocalKeys(folder, given=[given])
    assert await keys.current() == key_id(given)
    assert await keys.unwrap(wrapped, name=name, context=b"") == b"x"
    with pytest.raises(Conflict, match="environment"):
        keys.rotate()
    (folder / "seal.key").unlink()
    assert await LocalKeys(folder, given=[given]).current() == key_id(given)
    with pytest.raises(Unavailable):
        await LocalKeys(folder).current()
