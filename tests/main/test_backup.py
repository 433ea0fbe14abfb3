"""`bessemer backup`, `restore`, `store check` and `store copy` over state directories, also where they are killed."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from bessemer.cli.verbs import BackupOptions, CheckOptions, CopyOptions, RestoreOptions
from bessemer.core import strongbox
from bessemer.core.clock import SystemClock
from bessemer.core.errors import Conflict, Invalid
from bessemer.core.parcel import Packing
from bessemer.core.ports import CONTROLLER, Scope, Writer
from bessemer.core.sealing import key_id
from bessemer.main import identities
from bessemer.main.backups import ASIDE, PASSPHRASE, backup
from bessemer.main.keeping import check, copy
from bessemer.main.restoring import restore
from bessemer.main.settings import Paths, Settings, load, save, with_ports
from bessemer.main.storage import open_state
from bessemer.main.up import held
from bessemer.store import Store
from bessemer.store.backup import facts
from tests.store.conftest import server as server  # noqa: PLC0414
from tests.store.invariants import connect
from tests.store.server import Server

SECRET = b"mark-of-a-secret-5b1d"
HOST = {"apiVersion": "bessemer.dev/v1alpha1", "kind": "Host", "metadata": {"name": "rack1-07"}, "spec": {}}
KILLED = """
import os, signal, sys
from pathlib import Path
from bessemer.cli.verbs import BackupOptions, CopyOptions, RestoreOptions
from bessemer.core import strongbox
from bessemer.main.backups import backup
from bessemer.main.keeping import copy
from bessemer.main.restoring import restore
from bessemer.store import loading

verb, state, place, key, left = sys.argv[1:]
left = int(left)

def dying(call):
    def until(*given, **named):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*given, **named)
    return until

if verb == "backup":
    strongbox.Writer._write = dying(strongbox.Writer._write)
    backup(BackupOptions(file=Path(place), state=Path(state), key_file=Path(key)))
loading._File.load = dying(loading._File.load)
loading._Database.load = dying(loading._Database.load)
if verb == "restore":
    restore(RestoreOptions(file=Path(place), state=Path(state), key_file=Path(key)))
else:
    copy(CopyOptions(source=str(Path(state) / "store.db"), target=place))
"""


def within(paths: Paths, work: Callable[[Store], Coroutine[Any, Any, Any]]) -> Any:
    with closing(open_state(paths, load(paths), clock=SystemClock())) as store:
        return asyncio.run(work(store))


async def fill(store: Store) -> None:
    host = await store.objects.create(HOST, CONTROLLER)
    await store.sealed.put(host.uid, "f", SECRET)
    await store.audit.deny(Writer("user", "ada"), "delete", host.key, "not hers")
    await store.audit.sign()


async def read(store: Store) -> dict[str, Any]:
    (host,) = (await store.objects.list(Scope(kind="Host"))).items
    return {
        "host": (host.key, host.uid, host.revision, host.body),
        "secret": await store.sealed.get(host.uid, "f"),
        "audit": [row.digest for row in await store.audit.rows()][:2],
        "sound": await store.audit.verify() is None,
    }


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    made = Paths(tmp_path / "state")
    settings = with_ports(Settings(api_port=0, portal_port=0, gateway_port=0), find_free=True)
    identities.prepare(made, settings)
    save(made, settings)
    within(made, fill)
    return made


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = tmp_path / "backup.key"
    file.write_bytes(bytes(range(32)))
    return file


@pytest.fixture
def file(paths: Paths, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    made = tmp_path / "monday"
    assert backup(BackupOptions(file=made, state=paths.state, key_file=key)) == 0
    capsys.readouterr()
    return made


def test_an_installation_is_restored_with_all_that_it_cannot_live_without(
    paths: Paths, file: Path, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = Paths(tmp_path / "there")
    assert restore(RestoreOptions(file=file, state=there.state, key_file=key)) == 0
    said = capsys.readouterr().out
    assert "Not restored: images and models (--content)" in said
    assert f"bessemer up --state {there.state}" in said
    assert re.search(r"Valid again: what was revoked after 20\d\d-\S+Z: go through users, rolebindings, ", said)
    assert within(there, read) == within(paths, read)
    kept = {"ca/ca.crt", "ca/ca.key", "keys/seal.key", "keys/gateway.key", "keys/audit.key", "audit/audit.pub"}
    for name in kept:
        assert (there.state / name).read_bytes() == (paths.state / name).read_bytes()
        assert (there.state / name).stat().st_mode & 0o777 == 0o600
    heads = (paths.state / "audit/heads.jsonl").read_text()
    assert (there.state / "audit/heads.jsonl").read_text().startswith(heads.splitlines()[0])
    assert load(there) == load(paths)
    assert not [place for place in tmp_path.iterdir() if ".restoring" in place.name or ASIDE in place.name]
    identities.prepare(there, load(there))  # as the next start does
    assert identities.authority_of(there).certificate == identities.authority_of(paths).certificate


def test_nothing_of_it_can_be_read_without_the_key(paths: Paths, file: Path) -> None:
    written = file.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o600
    for name in ("ca/ca.key", "keys/seal.key", "keys/gateway.key", "keys/audit.key"):
        assert (paths.state / name).read_bytes() not in written
    assert not [word for word in (SECRET, b"rack1-07", b"PRIVATE KEY", b"keys/", b"objects") if word in written]


def test_a_backup_says_what_it_holds(file: Path, key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert backup(BackupOptions(file=file, key_file=key, verify=True)) == 0
    said = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1] for line in said.splitlines() if "/" in line.split()[0]}
    assert (rows["table/objects"], rows["table/sealed"], rows["file/keys/seal.key"]) == ("1", "1", "-")
    assert "table/changes" not in rows
    assert "revision: 1" in said.splitlines()


def test_a_passphrase_does_as_well(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = BackupOptions(file=tmp_path / "f", state=paths.state)
    with pytest.raises(Invalid, match="there is no terminal"):
        backup(options)
    monkeypatch.setenv(PASSPHRASE, "short")
    with pytest.raises(Invalid, match="12 characters"):
        backup(options)
    monkeypatch.setenv(PASSPHRASE, "correct horse battery")
    assert backup(options) == 0
    monkeypatch.setenv(PASSPHRASE, "correct horse bakery")
    with pytest.raises(Invalid, match="not written under this passphrase"):
        restore(RestoreOptions(file=options.file, state=tmp_path / "there"))
    (tmp_path / "key").write_bytes(bytes(32))
    with pytest.raises(Invalid, match="leave --key-file out"):
        restore(RestoreOptions(file=options.file, state=tmp_path / "there", key_file=tmp_path / "key"))
    assert not (tmp_path / "there").exists()


def test_a_key_file_that_is_none_is_refused(paths: Paths, file: Path, tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"x")
    with pytest.raises(Invalid, match="less than 32 bytes"):
        backup(BackupOptions(file=tmp_path / "f", state=paths.state, key_file=tmp_path / "short"))
    with pytest.raises(Invalid, match="give --key-file"):
        restore(RestoreOptions(file=file, state=tmp_path / "there"))
    with pytest.raises(Conflict, match="is there already"):
        backup(BackupOptions(file=file, state=paths.state, key_file=tmp_path / "backup.key"))


@pytest.mark.parametrize("harm", ["cut", "changed", "key", "none"])
def test_what_is_not_whole_is_refused_before_anything_is_written(
    file: Path, key: Path, tmp_path: Path, harm: str
) -> None:
    whole = bytearray(file.read_bytes())
    if harm == "changed":
        whole[-200] ^= 1
    if harm == "key":
        key.write_bytes(bytes(32))
    file.write_bytes({"cut": whole[:-1], "none": b"something"}.get(harm, whole))
    words = {"cut": "cut off", "changed": "changed", "key": "not written under this key file", "none": "no backup"}
    there = tmp_path / "there"
    there.mkdir()
    (there / "old").touch()
    with pytest.raises(Invalid, match=f"{file}.*{words[harm]}"):
        restore(RestoreOptions(file=file, state=there, key_file=key, force=True))
    with pytest.raises(Invalid, match=words[harm]):
        backup(BackupOptions(file=file, key_file=key, verify=True))
    assert [place.name for place in there.iterdir()] == ["old"]
    assert not (tmp_path / "there.restoring").exists()


def test_what_is_there_stays_or_is_moved_aside(
    paths: Paths, file: Path, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = RestoreOptions(file=file, state=paths.state, key_file=key)
    with pytest.raises(Conflict, match=r"is not empty.*--force"):
        restore(options)
    forced = RestoreOptions(file=file, state=paths.state, key_file=key, force=True)
    with held(paths), pytest.raises(Conflict, match="is up already"):
        restore(forced)
    with closing(open_state(paths, load(paths), clock=SystemClock())), pytest.raises(Conflict, match="being served"):
        restore(forced)
    was = within(paths, read)
    assert restore(forced) == 0
    (aside,) = tmp_path.glob("state.before-*")
    assert f"What was there is {aside} now" in capsys.readouterr().out
    assert within(Paths(aside), read) == within(paths, read) == was


def test_a_mount_point_is_refused_at_once_and_a_link_is_followed(
    file: Path, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted, link = tmp_path / "mounted", tmp_path / "link"
    mounted.mkdir()
    link.symlink_to("mounted")
    monkeypatch.setattr("os.path.ismount", lambda path: Path(path) == mounted)
    before = {place.name for place in tmp_path.iterdir()}
    for place in (mounted, link):
        with pytest.raises(Conflict, match=f"{mounted} is a mount point.*restore into it, --state {mounted}/state"):
            restore(RestoreOptions(file=file, state=place, key_file=key, force=True))
    assert {place.name for place in tmp_path.iterdir()} == before
    monkeypatch.undo()
    assert restore(RestoreOptions(file=file, state=link, key_file=key)) == 0
    assert link.is_symlink()
    assert (mounted / "store.db").exists()


def test_what_was_there_comes_back_where_the_last_step_fails(
    paths: Paths, file: Path, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    was, rename = within(paths, read), Path.rename

    def failing(place: Path, target: Path) -> Path:
        if place.name.endswith(".restoring"):
            raise OSError("no")
        return rename(place, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="no"):
        restore(RestoreOptions(file=file, state=paths.state, key_file=key, force=True))
    assert within(paths, read) == was
    assert list(tmp_path.glob("state.before-*")) == []
    assert "What was there" not in capsys.readouterr().out
    assert within(Paths(tmp_path / "state.restoring"), read) == was


def test_a_restore_that_cannot_be_checked_stands_and_says_so(
    paths: Paths, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (paths.keys / "audit.key").unlink()
    backup(BackupOptions(file=tmp_path / "f", state=paths.state, key_file=key))
    capsys.readouterr()
    assert restore(RestoreOptions(file=tmp_path / "f", state=tmp_path / "there", key_file=key)) == 1
    said = capsys.readouterr().out.splitlines()
    assert "Not restored: keys/audit.key, which is not there" in said
    assert f"Start it with: bessemer up --state {tmp_path}/there" in said
    assert said[-1].startswith("Restored; the check could not run: ")
    assert "audit.key" in said[-1]


def test_content_comes_along_when_asked_for(paths: Paths, key: Path, tmp_path: Path) -> None:
    (paths.content / "ab").mkdir(parents=True)
    (paths.content / "ab" / "image").write_bytes(bytes(3_000_000))
    (paths.content / "installation.id").write_text("ours")
    for content in (False, True):
        file, there = tmp_path / f"f{content}", Paths(tmp_path / f"there{content}")
        backup(BackupOptions(file=file, state=paths.state, key_file=key, content=content))
        assert restore(RestoreOptions(file=file, state=there.state, key_file=key)) == 0
        assert (there.content / "ab" / "image").exists() == content
        assert (there.content / "installation.id").read_text() == "ours"
    assert (there.content / "ab" / "image").read_bytes() == bytes(3_000_000)


def test_keys_that_are_elsewhere_are_named(paths: Paths, key: Path, tmp_path: Path, capsys: Any) -> None:
    seal = (paths.keys / "seal.key").read_bytes()
    (paths.keys / "seal.key").write_bytes(bytes(32))
    (paths.ca / "ca.key").unlink()
    backup(BackupOptions(file=tmp_path / "f", state=paths.state, key_file=key))
    said = capsys.readouterr().out
    assert "Not in it: ca/ca.key, which is not there" in said
    assert f"the key {key_id(seal)}, which is not in keys/" in said


def test_a_file_that_leads_out_of_the_directory_is_refused(key: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("file/../x", "file/keys/../../x", "file//etc/x", "file/x", "x", "file/keys")):
        file = tmp_path / f"f{number}"
        with file.open("wb") as out:
            packing = Packing(strongbox.Writer(out, strongbox.Secret(key.read_bytes(), passphrase=False)), facts())
            packing.part(name, [(b"x", 0)])
            packing.end({**facts(), "revision": 1, "omitted": []})
        with pytest.raises(Invalid, match="no part of an installation"):
            restore(RestoreOptions(file=file, state=tmp_path / "there", key_file=key))
    assert not (tmp_path / "there").exists()
    assert not (tmp_path / "x").exists()


def killed(verb: str, state: Path, place: object, key: Path, left: int) -> None:
    argv = [sys.executable, "-c", KILLED, verb, str(state), str(place), str(key), str(left)]
    done = subprocess.run(argv, capture_output=True, check=False, timeout=180)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def test_who_is_killed_leaves_nothing_that_looks_whole(paths: Paths, file: Path, key: Path, tmp_path: Path) -> None:
    killed("backup", paths.state, tmp_path / "late", key, 20)
    assert not (tmp_path / "late").exists()
    with pytest.raises(Invalid, match=r"cut off|no backup"):
        backup(BackupOptions(file=tmp_path / "late.part", key_file=key, verify=True))
    assert backup(BackupOptions(file=tmp_path / "late", state=paths.state, key_file=key)) == 0
    there = Paths(tmp_path / "there")
    killed("restore", there.state, file, key, 9)
    assert not there.state.exists()
    assert restore(RestoreOptions(file=file, state=there.state, key_file=key)) == 0
    killed("copy", paths.state, tmp_path / "copy.db", key, 9)
    assert not (tmp_path / "copy.db").exists()
    assert copy(CopyOptions(source=str(paths.store), target=str(tmp_path / "copy.db"))) == 0
    assert [place.name for place in tmp_path.iterdir() if place.suffix in (".part", ".restoring", ".copying")] == []


def test_the_check_names_what_is_wrong(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(CheckOptions(state=paths.state)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["CHECK", "ROWS", "RESULT", "HOLDS"]
    assert len(lines) == 27
    with closing(connect(paths.store)) as connection:
        connection.execute("UPDATE objects SET generation = 9")
    assert check(CheckOptions(state=paths.state)) == 1
    assert "  Host rack1-07: body and row differ in generation" in capsys.readouterr().out.splitlines()
    assert check(CheckOptions(state=paths.state, output="json")) == 1
    said = json.loads(capsys.readouterr().out)
    assert not said["ok"]
    assert [one for one in said["checks"] if not one["ok"]] == [
        {
            "check": "bodies",
            "holds": "a body says the kind, name, project, uid, revision, labels and host of its row",
            "rows": 1,
            "ok": False,
            "faults": 1,
            "wrong": ["Host rack1-07: body and row differ in generation"],
        }
    ]


UNNAMED = """
import os, signal, sys
from pathlib import Path
from bessemer.cli.verbs import RestoreOptions
from bessemer.main import restoring

file, state, key, store = sys.argv[1:]
restoring._replace = lambda state, stage: os.kill(os.getpid(), signal.SIGKILL)
restoring.restore(RestoreOptions(file=Path(file), state=Path(state), key_file=Path(key), store=store))
"""


@pytest.mark.real
def test_who_is_killed_behind_the_commit_of_a_database_leaves_both_whole(
    paths: Paths, file: Path, key: Path, tmp_path: Path, server: Server
) -> None:
    place, there = server.database("unnamed"), Paths(tmp_path / "there")
    argv = [sys.executable, "-c", UNNAMED, str(file), str(there.state), str(key), place]
    assert subprocess.run(argv, capture_output=True, check=False, timeout=180).returncode == -signal.SIGKILL
    assert not there.state.exists()
    with pytest.raises(Conflict, match="the database holds tables already"):
        restore(RestoreOptions(file=file, state=there.state, key_file=key, store=place))
    (tmp_path / "there.restoring").rename(there.state)
    assert load(there).store == place
    assert within(there, read) == within(paths, read)


@pytest.mark.real
@pytest.mark.long
def test_a_database_is_backed_up_restored_and_copied_to(
    paths: Paths, file: Path, key: Path, tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = server.database("one"), server.database("two")
    assert copy(CopyOptions(source=str(paths.store), target=one)) == 0
    assert f"then: bessemer up --store '{one}'" in capsys.readouterr().out
    was = within(paths, read)
    paths.store.rename(paths.store.with_suffix(".old"))
    save(paths, load(paths, store=one))
    assert within(paths, read) == was
    backup(BackupOptions(file=tmp_path / "f", state=paths.state, key_file=key))
    there = Paths(tmp_path / "there")
    killed_at = [sys.executable, "-c", KILLED.replace("key_file=Path(key)", f"key_file=Path(key), store={two!r}", 2)]
    argv = [*killed_at, "restore", str(there.state), str(tmp_path / "f"), str(key), "9"]
    done = subprocess.run(argv, capture_output=True, check=False, timeout=180)
    assert done.returncode == -signal.SIGKILL
    with psycopg.connect(two) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
    options = RestoreOptions(file=tmp_path / "f", state=there.state, key_file=key, store=two)
    assert restore(options) == 0
    assert load(there).store == two
    assert within(there, read) == was
    with pytest.raises(Conflict, match="the database holds tables already"):
        restore(RestoreOptions(file=tmp_path / "f", state=tmp_path / "third", key_file=key, store=two, force=True))
    back = Paths(tmp_path / "back")
    assert restore(RestoreOptions(file=tmp_path / "f", state=back.state, key_file=key)) == 0
    assert load(back).store == ""
    assert within(back, read) == was
