"""Tables on a terminal: closed up, relieved of what can be spared, folded in the last column, and no word broken."""

from __future__ import annotations

import pytest

from bessemer.cli import render
from bessemer.cli.money import invoice_text
from bessemer.cli.work.objects import SPARE
from bessemer.cli.work.reasons import placed
from bessemer.kinds import KINDS

HEAD = ["NAME", "READY", "MESSAGE"]
ROWS = [["vm", "True", "3 hosts: short of 2 cores; 1 host: has no GPU"], ["another-name", "False", "1,200,000 tokens"]]
BILL = {
    "project": "acme--lab",
    "currency": "EUR",
    "start": 0,
    "end": 3600,
    "totalMicro": 2_470_000,
    "fake": True,
    "lines": [
        {
            "workloadKind": "Endpoint",
            "workloadName": "chat-with-a-long-name",
            "meter": "cores",
            "formula": "1.5 cores × 3,600 s = 1.5 core-hours × EUR 0.02 per core-hour = EUR 0.03",
            "amountMicro": 30_000,
        },
        {
            "workloadKind": "Endpoint",
            "workloadName": "chat-with-a-long-name",
            "meter": "cached_input_tokens",
            "formula": "122,000,000 tokens × EUR 0.02 per million tokens = EUR 2.44",
            "amountMicro": 2_440_000,
            "fake": True,
        },
    ],
}


def longest(text: str) -> int:
    return max(map(len, text.splitlines()))


def test_without_a_terminal_a_table_is_as_wide_as_it_is() -> None:
    assert render.columns(HEAD, ROWS).splitlines()[1] == (
        "vm             True    3 hosts: short of 2 cores; 1 host: has no GPU"
    )


@pytest.mark.parametrize("within", [40, 60, 66, 80])
def test_a_table_fits_its_terminal(within: int) -> None:
    text = render.columns(HEAD, ROWS, within=within, spare=["READY"])
    assert longest(text) <= within
    assert set(" ".join(ROWS[0]).split()) - {"True"} <= set(text.split()), "nothing is cut"


def test_spare_columns_go_only_where_they_must() -> None:
    assert "READY" in render.columns(HEAD, ROWS, within=68, spare=["READY"])
    assert "READY" not in render.columns(HEAD, ROWS, within=64, spare=["READY"])


@pytest.mark.parametrize("within", [72, 76, 80, 120])
def test_an_invoice_fits_its_terminal_with_every_number_whole(within: int) -> None:
    text = invoice_text(BILL, within=within)
    assert longest(text) <= within
    for number in ("1.5 cores", "3,600 s", "EUR 0.02 per core-hour", "122,000,000 tokens", "EUR 0.030000", "EUR 2.44"):
        assert number in text
    assert text.endswith("Total: EUR 2.47")


def test_a_wide_terminal_has_the_formula_beside_its_line() -> None:
    wide = invoice_text(BILL, within=160).splitlines()
    assert wide[3].startswith("endpoint/chat-with-a-long-name   cores                 1.5 cores × 3,600 s = 1.5")
    assert wide == invoice_text(BILL).splitlines()


def test_why_tells_of_the_hosts_that_were_set_aside() -> None:
    why = {"fitting": 3, "reasons": [{"code": "Cordoned", "hosts": 1, "text": "cordoned"}]}
    one = {"spec": {"host": "a", "placement": why}}
    assert placed([one]) == [
        "It is on a.",
        "When it was chosen, a was one of 3 hosts with room. Not taken:",
        "       1 host: cordoned",
    ]
    six = [{"spec": {"host": f"h{i}", "placement": {"fitting": 1, "reasons": []}}} for i in range(6)]
    assert placed(six) == [
        "It is on h0, h1, h2, h3 and 2 more.",
        "When it was chosen, h5 was the only host with room.",
    ]
    assert placed([{"spec": {"host": "old"}}]) == ["It is on old."]
    assert placed([]) == []


@pytest.mark.parametrize("name", ["Host", "Claim", "Instance", "Endpoint"])
def test_what_is_fake_says_so_in_every_table(name: str) -> None:
    (kind,) = (kind for kind in KINDS if kind.name == name)
    (column,) = (column for column in kind.columns if column.name == "Fake")
    assert not column.wide
    assert "FAKE" not in SPARE, "nor does it go where the terminal is narrow"
