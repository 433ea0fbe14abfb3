"""``bessemer credential``: made by who is signed in, good in a kubeconfig, rotated, revoked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.api.world import PASSWORD
from tests.cli.conftest import Cli

PROJECT = ("-n", "acme--lab")


@pytest.fixture
def mine(cli: Cli) -> tuple[str, str]:
    """The options of somebody who is signed in."""
    return "--token", cli("login", "mia", stdin=f"{PASSWORD}\n").raw.strip()


def test_a_program_gets_a_kubeconfig_that_is_good(cli: Cli, mine: tuple[str, str], tmp_path: Path) -> None:
    file = tmp_path / "ci.conf"
    bounds = ("--verb", "get", "--verb", "list", "--kind", "vm", "--from", "127.0.0.0/8", "--role", "member")
    made = cli(*mine, "credential", "create", "ci", *PROJECT, *bounds, "--kubeconfig", str(file))
    assert (made.code, made.raw) == (0, f"{file} holds the token, readable by you alone\n")
    assert file.stat().st_mode & 0o777 == 0o600
    assert cli("get", "instances", *PROJECT, kubeconfig=file).code == 0
    assert cli("get", "apikeys", *PROJECT, kubeconfig=file).code != 0
    (listed,) = json.loads(cli(*mine, "credential", "list", *PROJECT, "-o", "json").raw)["items"]
    assert (listed["spec"]["kinds"], listed["spec"]["verbs"]) == (["Instance"], ["get", "list"])
    assert listed["status"]["lastSource"] == "127.0.0.1"
    assert "mia" in cli(*mine, "credential", "list", *PROJECT).raw


def test_a_token_is_printed_rotated_and_revoked(cli: Cli, mine: tuple[str, str]) -> None:
    first = cli(*mine, "credential", "create", "turn", *PROJECT, "--days", "1").raw.strip()
    assert first.startswith("bsc_acme--lab/turn.")
    second = cli(*mine, "credential", "rotate", "turn", *PROJECT).raw.strip()
    assert cli("--token", first, "whoami").code == 0
    third = cli(*mine, "credential", "rotate", "turn", *PROJECT, "--overlap", "0").raw.strip()
    assert [cli("--token", token, "whoami").code == 0 for token in (second, third)] == [False, True]
    assert cli(*mine, "credential", "revoke", "turn", *PROJECT).raw == "applicationcredential/turn revoked\n"


def test_what_cannot_be_is_said(cli: Cli, mine: tuple[str, str]) -> None:
    assert "-n TENANT--PROJECT" in cli(*mine, "credential", "create", "ci").err
    assert "sign in as one" in cli("credential", "create", "admins", *PROJECT).err
    assert "reach" in cli(*mine, "credential", "create", "far", *PROJECT, "--reach", "moon").err
    assert cli(*mine, "credential", "create", "whole", *PROJECT, "--unrestricted").code == 0
