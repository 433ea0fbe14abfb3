"""`bessemer audit`: rows are found, a trail is taken home and judged there, and what was archived goes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bessemer.core.trail import Head, Signer, line
from tests.cli.conftest import Cli, terminal
from tests.oracle import trail as oracle


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    with terminal(tmp_path_factory.mktemp("audit")) as made:
        yield made


def key_of(file: Path) -> str:
    return str(json.loads(file.read_bytes().splitlines()[0])["key"])


def test_acts_are_listed_and_found(site: Cli) -> None:
    site("user", "disable", "rob")
    said = site("audit", "list", "--object", "user/rob", "--verb", "update")
    assert said.code == 0
    head, row = said.out.splitlines()
    assert head.split() == ["ID", "AT", "WHO", "FROM", "VERB", "OBJECT", "CHANGED"]
    assert row.split()[2:] == ["user:admin", "127.0.0.1", "update", "User", "rob", "spec.disabled"]
    (found,) = json.loads(site("audit", "list", "--object", "User/rob", "--verb", "update", "-o", "json").raw)["rows"]
    assert found["change"]["after"] == {"spec": {"disabled": True}}
    assert site("audit", "list", "--who", "nobody").err == "Nothing that you may see."
    assert len(site("audit", "list", "--limit", "3").out.splitlines()) == 4
    assert site("audit", "list", "--since", "yesterday").code == 1
    assert "denied: " not in site("audit", "list").out


def test_a_file_is_judged_without_a_server(site: Cli, tmp_path: Path) -> None:
    file, nowhere = tmp_path / "trail.jsonl", tmp_path / "none"
    assert site("audit", "export", str(file)).code == 0
    assert file.stat().st_mode & 0o077 == 0
    assert oracle.check(file.read_bytes().splitlines(), key=key_of(file)) is None
    good = site("audit", "verify", str(file), "--key", key_of(file), kubeconfig=nowhere)
    assert (good.code, good.err) == (0, "")
    assert good.out.startswith("sound: ")
    assert "you must know" in site("audit", "verify", str(file), kubeconfig=nowhere).err
    assert site("audit", "verify", str(file), "--key", "00" * 32, kubeconfig=nowhere).code == 1
    assert site("audit", "verify", str(file), "--key", "xyz", kubeconfig=nowhere).code == 1
    assert site("audit", "export", str(file)).code == 1, "it writes over nothing"

    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:3], *lines[4:]]))
    bad = site("audit", "verify", str(file), kubeconfig=nowhere)
    assert bad.code == 1
    assert "row 3 before row 4 was taken out" in bad.err
    file.write_bytes(b"".join(lines[:-2]))
    cut = site("audit", "verify", str(file), kubeconfig=nowhere)
    assert cut.code == 0
    assert "No head vouches for what follows row 0." in cut.err, "a file whose end was cut has no head there"
    file.write_bytes(b"nothing of the kind\n")
    assert site("audit", "verify", str(file), kubeconfig=nowhere).code == 1


def test_heads_that_one_kept_are_held_against_the_server(site: Cli, tmp_path: Path) -> None:
    assert site("audit", "verify").out.startswith("sound: ")
    kept = tmp_path / "heads.jsonl"
    kept.write_bytes(line(Signer(b"k" * 32).sign(Head(id=2, digest="ab", at=1.0))))
    said = site("audit", "verify", "--heads", str(kept))
    assert said.code == 1
    assert "signed by nobody who is trusted" in said.err
    assert site("audit", "verify", "--heads", str(tmp_path / "none")).code == 1


def test_what_is_archived_goes_and_both_files_fit(site: Cli, tmp_path: Path) -> None:
    old, new, third = (tmp_path / name for name in ("old.jsonl", "new.jsonl", "third.jsonl"))
    nothing = site("audit", "archive", str(tmp_path / "early.jsonl"), "--before", "2001-01-01")
    assert "nothing was dropped" in nothing.out
    said = site("audit", "archive", str(old), "--before", "2100-01-01")
    assert said.code == 0, said.err
    assert "rows up to row" in said.out
    assert site("audit", "verify").code == 0
    assert site("audit", "export", str(new)).code == 0
    assert json.loads(new.read_bytes().splitlines()[0])["after"] > 0
    assert site("audit", "verify", str(old), str(new)).code == 0
    assert site("audit", "verify", str(new), str(old)).code == 1
    rows = new.read_bytes().splitlines(keepends=True)
    opening = json.loads(rows[0])
    third.write_bytes(json.dumps({**opening, "digest": "0" * 64}).encode() + b"\n" + b"".join(rows[1:]))
    assert site("audit", "verify", str(old), str(third)).code == 1
