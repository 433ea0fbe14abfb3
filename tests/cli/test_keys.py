"""``bessemer key``: made with limits and a budget, shown with what is left, revoked."""

from __future__ import annotations

import json

import pytest

from tests.api.world import PASSWORD
from tests.cli.conftest import Cli

PROJECT = ("-n", "acme--lab")


@pytest.fixture
def mine(cli: Cli) -> tuple[str, str]:
    """The options of somebody who is signed in."""
    return "--token", cli("login", "mia", stdin=f"{PASSWORD}\n").raw.strip()


def test_a_key_is_made_with_bounds_and_shown_with_what_is_left(cli: Cli, mine: tuple[str, str]) -> None:
    bounds = ("--limit", "requests/minute=60", "--limit", "concurrent=4", "--budget", "2.5/month")
    made = cli(*mine, "key", "create", "app", *PROJECT, *bounds)
    assert made.code == 0
    assert made.raw.startswith("bsk_")
    spec = json.loads(cli(*mine, "get", "apikeys/app", *PROJECT, "-o", "json").raw)["spec"]
    assert spec["limits"] == {"requestsPerMinute": 60, "concurrent": 4}
    assert spec["budget"] == {"period": "Month", "micro": 2_500_000}
    shown = json.loads(cli(*mine, "key", "show", "app", *PROJECT, "-o", "json").raw)["bounds"]
    assert {one["meter"]: one["left"] for one in shown} == {
        "requests/minute": 60,
        "concurrent": 4,
        "micro/month": 2_500_000,
    }
    table = cli(*mine, "key", "show", "app", *PROJECT).raw
    assert "key/acme--lab/app" in table
    assert "2.50" in table
    assert cli(*mine, "key", "revoke", "app", *PROJECT).raw == "apikey/app revoked\n"
    assert cli(*mine, "key", "show", "app", *PROJECT).code != 0


def test_a_key_says_whose_it_is_from_where_and_when_its_turn_is(cli: Cli, mine: tuple[str, str]) -> None:
    said = ("--owner", "mia", "--network", "192.0.2.0/24", "--network", "2001:db8::/32", "--priority", "flex")
    assert cli(*mine, "key", "create", "app", *PROJECT, *said).code == 0
    spec = json.loads(cli(*mine, "get", "apikeys/app", *PROJECT, "-o", "json").raw)["spec"]
    networks = ["192.0.2.0/24", "2001:db8::/32"]
    assert (spec["owner"], spec["networks"], spec["priority"]) == ("mia", networks, "flex")
    refused = cli(*mine, "key", "create", "first", *PROJECT, "--priority", "priority")
    assert refused.code != 0
    assert "who may change the project" in refused.err
    assert cli(*mine, "key", "create", "bad", *PROJECT, "--priority", "soon").code != 0


def test_what_cannot_be_meant_is_refused_before_anything_is_made(cli: Cli, mine: tuple[str, str]) -> None:
    for said in (
        ("--limit", "requests=5"),
        ("--limit", "concurrent=-1"),
        ("--limit", "concurrent"),
        ("--budget", "5"),
        ("--budget", "5/year"),
        ("--budget", "-5/month"),
        ("--budget", "tokens=1.5/day"),
        ("--budget", "nan/day"),
        ("--budget", "0.0000001/day"),
    ):
        refused = cli(*mine, "key", "create", "bad", *PROJECT, *said)
        assert refused.code != 0
        assert f"{said[0]} {said[1]}: write" in refused.err
    assert cli(*mine, "key", "create", "free", *PROJECT).code == 0
    assert "Nothing bounds it" in cli(*mine, "key", "show", "free", *PROJECT).raw
    told = cli(*mine, "key", "create", "t", *PROJECT, "--budget", "tokens=1000/total")
    assert told.code == 0
    shown = json.loads(cli(*mine, "key", "show", "t", *PROJECT, "-o", "json").raw)["bounds"]
    assert [(one["meter"], one["limit"], one["until"]) for one in shown] == [("tokens/total", 1000, None)]
