"""`bessemer store rotate-key` over a state directory on which nothing runs, and keys that the environment gives."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bessemer.cli.verbs import KeyOptions
from bessemer.core.clock import SystemClock
from bessemer.core.errors import Conflict, Invalid, Unavailable
from bessemer.core.ports import CONTROLLER
from bessemer.core.sealing import key_id
from bessemer.main import identities
from bessemer.main.keys import keys
from bessemer.main.parts import CONTROL, ORDER, command
from bessemer.main.settings import SEAL_KEYS, Paths, Settings, load, save, with_ports
from bessemer.main.storage import open_state
from bessemer.store import Store

HOST = {"apiVersion": "bessemer.dev/v1alpha1", "kind": "Host", "metadata": {"name": "h1"}, "spec": {}}
GIVEN = bytes(range(32))


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    made = Paths(tmp_path / "state")
    settings = with_ports(Settings(api_port=0, portal_port=0, gateway_port=0), find_free=True)
    identities.prepare(made, settings)
    save(made, settings)
    within(made, fill)
    return made


def within(paths: Paths, work: Callable[[Store], Coroutine[Any, Any, Any]]) -> Any:
    with closing(open_state(paths, load(paths), clock=SystemClock())) as store:
        return asyncio.run(work(store))


async def fill(store: Store) -> None:
    host = await store.objects.create(HOST, CONTROLLER)
    await store.sealed.put(host.uid, "f", b"hush")


async def read(store: Store) -> bytes | None:
    ((uid, _),) = [(item.uid, item) for item in (await store.objects.list(_scope())).items]
    return await store.sealed.get(uid, "f")


def _scope() -> Any:
    from bessemer.core.ports import Scope

    return Scope(kind="Host")


def test_a_key_is_rotated_and_the_old_one_removed(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    old = key_id(identities.key_of(paths, identities.SEAL_KEY))
    assert keys(KeyOptions(state=paths.state, act="rotate")) == 0
    new = key_id(identities.key_of(paths, identities.SEAL_KEY))
    said = capsys.readouterr().out
    assert f"{new} seals from now on" in said
    assert [line.split() for line in said.splitlines()[2:]] == sorted(
        [[new, "current", "1", "1"], [old, "here", "0", "0"]]
    )
    assert within(paths, read) == b"hush"
    with pytest.raises(Conflict, match="60 s"):
        keys(KeyOptions(state=paths.state, act="follow", remove=True))
    os.utime(paths.keys / "seal.key", (1, 1))
    capsys.readouterr()
    assert keys(KeyOptions(state=paths.state, act="follow", values=True, remove=True)) == 0
    assert f"removed: {old}" in capsys.readouterr().out
    assert within(paths, read) == b"hush"


def test_a_key_that_was_rotated_too_far_is_missed_by_name(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody has removed the old file by hand, before anything followed."""
    old = key_id(identities.key_of(paths, identities.SEAL_KEY))
    (paths.keys / "seal.key").write_bytes(bytes(32))
    with pytest.raises(Unavailable, match=old):
        keys(KeyOptions(state=paths.state, act="follow"))
    assert keys(KeyOptions(state=paths.state)) == 1
    assert [old, "missing", "1", "1"] in [line.split() for line in capsys.readouterr().out.splitlines()]
    with pytest.raises(Unavailable, match=old):
        within(paths, read)


def test_a_staged_key_is_named_and_taken(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    assert keys(KeyOptions(state=paths.state, act="stage")) == 0
    staged = capsys.readouterr().out.partition(" ")[0]
    assert keys(KeyOptions(state=paths.state, act="rotate")) == 0
    assert key_id(identities.key_of(paths, identities.SEAL_KEY)) == staged


def test_keys_of_the_environment_take_over_from_a_file(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SEAL_KEYS, base64.b64encode(GIVEN).decode())
    with pytest.raises(Conflict, match="environment"):
        keys(KeyOptions(state=paths.state, act="rotate"))
    assert keys(KeyOptions(state=paths.state, act="follow")) == 0
    (paths.keys / "seal.key").unlink()
    identities.prepare(paths, Settings())
    (paths.keys / "seal.key").unlink(missing_ok=True)
    assert within(paths, read) == b"hush"


def test_replicas_follow_keys_of_the_environment_one_after_the_other(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At no step of the page's three does a replica hold what another does not open, or take back what it did."""
    coming = b"c" * 32
    old, new = (base64.b64encode(key).decode() for key in (GIVEN, coming))
    monkeypatch.setenv(SEAL_KEYS, old)
    assert keys(KeyOptions(state=paths.state, act="follow")) == 0
    for said, under in ((f"{old},next:{new}", GIVEN), (f"{new},{old}", coming), (f"{old},next:{new}", coming)):
        monkeypatch.setenv(SEAL_KEYS, said)
        keys(KeyOptions(state=paths.state, act="follow"))
        assert within(paths, kept_under) == {key_id(under)}, said
        assert within(paths, read) == b"hush"
    monkeypatch.setenv(SEAL_KEYS, new)
    assert keys(KeyOptions(state=paths.state)) == 0


async def kept_under(store: Store) -> set[str]:
    return set((await store.sealed.keys()).data_keys)


@pytest.mark.parametrize("text", [f"next:{'A' * 44}", f"{'A' * 43}=,next:{'B' * 43}=,next:{'C' * 43}="])
def test_one_key_is_staged_beside_one_that_seals(paths: Paths, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(SEAL_KEYS, text)
    with pytest.raises(Invalid, match="staged"):
        keys(KeyOptions(state=paths.state))


@pytest.mark.parametrize("text", ["not base64!", base64.b64encode(b"short").decode()])
def test_a_key_that_is_none_is_refused_and_not_repeated(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv(SEAL_KEYS, text)
    with pytest.raises(Invalid, match=SEAL_KEYS) as refused:
        keys(KeyOptions(state=paths.state))
    assert text not in refused.value.message


def test_none_but_the_control_plane_is_given_keys(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SEAL_KEYS, "x")
    assert [name for name in ORDER if SEAL_KEYS in (command(paths, name).env or {})] == [CONTROL]
