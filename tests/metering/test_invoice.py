"""Invoices: what is billed, how it is rounded, and that the same comes out of a second implementation."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.core.money import Prices
from bessemer.core.units import GIB
from bessemer.core.values import LedgerEntry
from bessemer.metering import Account, Invoice, Plan, Rates, derive, export
from bessemer.metering.invoice import RANGES_MAX, half_up
from tests.metering.ledgers import HOUR, MODELS, NAMED, PLAN, ledgers, opened, row, tokens
from tests.oracle import program
from tests.oracle.invoice import total_micro


def amounts(invoice: Invoice) -> dict[str, int]:
    return {line.meter: line.amount_micro for line in invoice.lines}


def test_an_hour_of_two_cores_and_a_gib() -> None:
    rows = [opened(1, 0), row(2, 60, "state", state="running"), row(3, 60 + HOUR, "close")]
    invoice = derive(rows, PLAN, start=0, end=10 * HOUR)
    assert amounts(invoice) == {"cores": 40_000, "memory": 4_000}
    assert invoice.total_micro == 44_000
    assert invoice.running == 0
    line = invoice.lines[0]
    assert (line.seconds, line.rows, line.unit) == (HOUR, "1-3", "core-hour")
    assert line.formula == "2 cores × 1 h = 2 core-hours × EUR 0.02 per core-hour = EUR 0.04"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (147, "8 devices × 2 min 27 s = 0.326667 device-hours ×"),
        (7200, "8 devices × 2 h = 16 device-hours ×"),
        (450, "8 devices × 7 min 30 s = 1 device-hour ×"),
        (31 * 24 * HOUR + 1, "8 devices × 744 h 1 s = 5,952.002222 device-hours ×"),
    ],
)
def test_time_is_said_for_people_and_to_the_second(seconds: int, said: str) -> None:
    claim = {"milli_cores": 0, "memory_bytes": 0, "devices": 8, "device_model": "H100"}
    rows = [opened(1, 0, state="running", **claim), row(2, seconds, "close")]
    (line,) = derive(rows, PLAN, start=0, end=40 * 24 * HOUR).lines
    assert line.formula.startswith(said)


def test_an_open_interval_is_billed_to_the_stated_instant() -> None:
    rows = [opened(1, 0, state="running")]
    first, later = (derive(rows, PLAN, start=0, end=end) for end in (HOUR, 2 * HOUR))
    assert later.total_micro == 2 * first.total_micro == 88_000
    assert first.running == 1


def test_deploying_and_lost_are_the_platforms_own_cost_unless_the_plan_names_them() -> None:
    rows = [
        opened(1, 0),
        row(2, HOUR, "state", state="running"),
        row(3, 2 * HOUR, "state", state="lost"),
        row(4, 3 * HOUR, "state", state="stopped"),
        row(5, 4 * HOUR, "close"),
    ]
    assert derive(rows, PLAN, start=0, end=9 * HOUR).total_micro == 88_000
    all_states = PLAN.model_copy(update={"billed_states": ["deploying", "running", "stopped", "lost"]})
    assert derive(rows, all_states, start=0, end=9 * HOUR).total_micro == 176_000


def test_a_month_is_the_sum_of_its_days() -> None:
    rows = [opened(1, 10, state="running"), row(2, 5 * HOUR + 10, "close")]
    whole = derive(rows, PLAN, start=0, end=9 * HOUR)
    parts = [derive(rows, PLAN, start=h * HOUR, end=(h + 1) * HOUR) for h in range(9)]
    assert sum(line.quantity for part in parts for line in part.lines) == sum(line.quantity for line in whole.lines)


def test_tokens_have_three_prices() -> None:
    counts = {"input_tokens": 1_500_000, "cached_input_tokens": 500_000, "output_tokens": 250_000}
    rows = [row(1, 10, "tokens", workload_kind="Endpoint", model="smollm2", requests=9, **counts)]
    expected = {"input_tokens": 50_000, "cached_input_tokens": 6_250, "output_tokens": 50_000}
    assert amounts(derive(rows, PLAN, start=0, end=11)) == expected
    assert derive(rows, PLAN, start=0, end=10).lines == []


def test_a_line_rounds_once_and_half_goes_up() -> None:
    assert [half_up(n, 2) for n in (0, 1, 2, 3)] == [0, 1, 1, 2]
    assert [half_up(n, 3) for n in (1, 2, 4, 5)] == [0, 1, 1, 2]
    plan = Plan(rates=Rates(core_hour=1800))
    rows = [opened(n, n, claim_uid=f"c{n}", state="running", milli_cores=1) for n in range(1, 11)]
    rows += [row(10 + n, n + 1, "close", claim_uid=f"c{n}") for n in range(1, 11)]
    # Ten times 0.0005 micro-units: each alone rounds to nothing, together they are 0.005.
    assert derive(rows, plan, start=0, end=99).total_micro == 0
    dearer = Plan(rates=Rates(core_hour=180_000))
    assert derive(rows, dearer, start=0, end=99).total_micro == 1


def test_devices_cost_by_model_and_any_other_by_the_star() -> None:
    rows = [
        opened(1, 0, state="running", milli_cores=0, memory_bytes=0, devices=8, device_model="H100"),
        opened(2, 0, state="running", milli_cores=0, memory_bytes=0, devices=1, device_model="A2", claim_uid="c2"),
    ]
    invoice = derive(rows, PLAN, start=0, end=HOUR)
    assert [(line.model, line.amount_micro) for line in invoice.lines] == [("A2", 1_200_000), ("H100", 19_200_000)]


def test_a_part_of_a_device_costs_that_part() -> None:
    rows = [
        opened(1, 0, state="running", milli_cores=0, memory_bytes=0, devices=1, device_milli=250, device_model="H100"),
        opened(
            2,
            0,
            state="running",
            milli_cores=0,
            memory_bytes=0,
            devices=1,
            device_milli=125,
            device_model="A2",
            claim_uid="c2",
        ),
    ]
    invoice = derive(rows, PLAN, start=0, end=HOUR)
    assert [(line.model, line.amount_micro, line.quantity) for line in invoice.lines] == [
        ("A2", 150_000, 125 * HOUR),
        ("H100", 600_000, 250 * HOUR),
    ]
    assert invoice.lines[1].formula.startswith("0.25 devices × 1 h = 0.25 device-hours")
    assert sum(rows[0].milli_devices for _ in range(4)) == 1000, "four quarters cost what a device costs"
    whole = [row.model_copy(update={"device_milli": 1000}) for row in rows]
    assert derive(whole, PLAN, start=0, end=HOUR).lines[1].amount_micro == 4 * invoice.lines[1].amount_micro


def test_what_ran_on_fake_hosts_says_so() -> None:
    rows = [opened(1, 0, state="running"), opened(2, 0, state="running", claim_uid="c2", fake=True)]
    invoice = derive(rows, PLAN, start=0, end=HOUR)
    assert invoice.fake
    assert [line.fake for line in invoice.lines] == [False, False, True, True]
    assert invoice.fake_micro * 2 == invoice.total_micro
    assert not derive(rows[:1], PLAN, start=0, end=HOUR).fake


def test_a_correction_takes_the_place_of_its_row_and_may_be_corrected() -> None:
    rows = [opened(1, 0, state="running"), row(2, HOUR, "close")]
    once = [*rows, row(3, 9 * HOUR, "correction", corrects=1, milli_cores=1000, memory_bytes=GIB)]
    assert amounts(derive(once, PLAN, start=0, end=HOUR)) == {"cores": 20_000, "memory": 4_000}
    twice = [*once, row(4, 9 * HOUR, "correction", corrects=3, milli_cores=500, memory_bytes=GIB)]
    assert amounts(derive(twice, PLAN, start=0, end=HOUR)) == {"cores": 10_000, "memory": 4_000}


def test_a_correction_after_the_window_counts_and_nothing_else_after_it_does() -> None:
    rows = [opened(1, 0, state="running"), row(2, 10, "tokens", input_tokens=1_000_000)]
    then = derive(rows, PLAN, start=0, end=HOUR)
    later = [
        *rows,
        row(3, HOUR, "close"),
        row(4, 2 * HOUR, "tokens", input_tokens=1_000_000),
        opened(5, 3 * HOUR, claim_uid="c2", state="running"),
    ]
    assert derive(later, PLAN, start=0, end=HOUR) == then
    corrected = [*later, row(6, 9 * HOUR, "correction", corrects=1, milli_cores=1000, memory_bytes=GIB)]
    assert amounts(derive(corrected, PLAN, start=0, end=HOUR))["cores"] == amounts(then)["cores"] // 2
    document = export(corrected, PLAN, start=0, end=HOUR)
    assert total_micro(document) == derive(corrected, PLAN, start=0, end=HOUR).total_micro


def test_a_clock_that_went_back_bills_nothing_negative() -> None:
    rows = [opened(1, HOUR, state="running"), row(2, HOUR - 500, "close")]
    assert derive(rows, PLAN, start=0, end=2 * HOUR).total_micro == 0


@given(rows=ledgers(), start=st.integers(0, 9000), length=st.integers(0, 30_000), plan=st.sampled_from((PLAN, NAMED)))
@settings(max_examples=150, deadline=None)
def test_the_oracle_comes_to_the_same_total(rows: list[LedgerEntry], start: int, length: int, plan: Plan) -> None:
    invoice = derive(rows, plan, start=start, end=start + length)
    document = json.loads(json.dumps(export(rows, plan, start=start, end=start + length)))
    assert total_micro(document) == invoice.total_micro
    assert all(line.amount_micro >= 0 for line in invoice.lines)


# --- rates of models --------------------------------------------------------------------------------------------

COUNTS = st.tuples(*(st.integers(0, 10**7) for _ in range(3)))


@given(asked=st.lists(st.tuples(st.sampled_from(MODELS), COUNTS), max_size=12))
@settings(max_examples=200, deadline=None)
def test_lines_come_to_what_each_record_costs_at_its_own_rate(asked: list[tuple[str, tuple[int, int, int]]]) -> None:
    """To within the one rounding of each line; and each line is its quantity by its rate."""
    rows = [tokens(number, 0, counts, model=model) for number, (model, counts) in enumerate(asked, 1)]
    prices = Prices.read(NAMED.dump())
    exact = 0
    for model, counts in asked:
        due = prices.of(model)
        exact += sum(count * rate for count, rate in zip(counts, due.rate, strict=True))
    invoice = derive(rows, NAMED, start=0, end=1)
    assert abs(invoice.total_micro * 10**6 - exact) <= len(invoice.lines) * 10**6 // 2
    for line in invoice.lines:
        assert line.amount_micro == half_up(line.quantity * line.unit_price_micro, line.divisor)
        of = {row.model for row in rows if prices.of(row.model) == prices.of(line.model)}
        assert line.model in of, "a line is of one model, and goes by its rate"


def test_a_plan_that_names_none_says_of_models_what_it_said_before() -> None:
    """Whoever answered, one line of its bare name, in the export, too."""
    rows = [tokens(n, 0, (600, 0, 0), model=model) for n, model in enumerate(("mine", "acme--lab/mine", "mine:tuned"))]
    (line,) = derive(rows, PLAN, start=0, end=1).lines
    assert (line.model, line.quantity, line.unit_price_micro, line.amount_micro) == ("mine", 1800, 50_000, 90)
    assert "models" not in export(rows, PLAN, start=0, end=1)["pricePlan"]
    named = derive(rows, NAMED, start=0, end=1).lines
    assert [(one.model, one.unit_price_micro) for one in named] == [
        ("acme--lab/mine", 11),
        ("mine", 50_000),
        ("mine:tuned", 50_000),
    ]


def test_another_plan_derives_all_anew_and_this_one_again() -> None:
    rows = [tokens(1, 0, (10**6, 0, 0), model="smollm2"), tokens(2, 0, (10**6, 0, 0), model="llama")]
    assert [derive(rows, plan, start=0, end=1).total_micro for plan in (PLAN, NAMED, PLAN)] == [
        100_000,
        57_001,
        100_000,
    ]


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    rows = [
        opened(1, 0, devices=1, device_model="H100"),
        row(2, 77, "state", state="running"),
        row(3, 100, "tokens", workload_kind="Endpoint", model="smollm2", input_tokens=123, output_tokens=77),
        row(4, 5001, "close"),
    ]
    path = tmp_path / "export.json"
    path.write_text(json.dumps(export(rows, PLAN, start=0, end=6000)))
    return path


def as_rows(path: Path) -> list[LedgerEntry]:
    return [LedgerEntry.model_validate(entry) for entry in json.loads(path.read_text())["rows"]]


def test_the_oracle_as_a_program_agrees_to_the_micro_unit(exported: Path) -> None:
    invoice = derive(as_rows(exported), PLAN, start=0, end=6000)
    assert program.total(exported) == program.shown(invoice.total_micro)


@pytest.mark.parametrize(
    ("number", "field", "value"), [(1, "milliCores", 2001), (2, "at", 78), (3, "outputTokens", 99)]
)
def test_the_oracle_sees_one_changed_row(exported: Path, number: int, field: str, value: int) -> None:
    invoice = derive(as_rows(exported), PLAN, start=0, end=6000)
    document = json.loads(exported.read_text())
    next(entry for entry in document["rows"] if entry["id"] == number)[field] = value
    exported.write_text(json.dumps(document))
    assert program.total(exported) != program.shown(invoice.total_micro)


@given(rows=ledgers(), start=st.integers(0, 9000), length=st.integers(0, 30_000))
@settings(max_examples=100, deadline=None)
def test_rows_claim_by_claim_come_to_the_same_as_rows_by_id(rows: list[LedgerEntry], start: int, length: int) -> None:
    """As the store hands them out: corrections, then claim after claim without what came later, then tokens."""
    end = start + length
    account = Account(PLAN, start=start, end=end)
    ours = [entry for entry in rows if entry.kind == "correction" or entry.at < end]
    for entry in sorted(ours, key=lambda e: (e.kind != "correction", e.kind == "tokens", e.claim_uid, e.id)):
        account.take(entry)
    assert account.invoice() == derive(rows, PLAN, start=start, end=end)


def test_a_long_account_takes_no_more_memory_than_a_short_one() -> None:
    def bill(count: int) -> int:
        account = Account(PLAN, start=0, end=count)
        tracemalloc.start()
        for number in range(count):
            fields = {"workload_kind": "Endpoint", "workload_uid": f"e{number % 3}", "input_tokens": 5}
            account.take(row(number + 1, number, "tokens", **fields))
        claims = {"claim_uid": "x", "state": "running"}
        for number in range(count, count + 2000, 2):
            account.take(opened(number, 0, **{**claims, "claim_uid": f"c{number}"}))
            account.take(row(number + 1, 1, "close", claim_uid=f"c{number}"))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert sum(line.quantity for line in account.invoice().lines if line.meter == "input_tokens") == 5 * count
        return peak

    bill(100)  # what is made once
    assert bill(20_000) < 2 * bill(5_000)


def test_a_line_names_its_rows_as_ranges_and_of_very_many_only_some() -> None:
    few = [row(number, 1, "tokens", input_tokens=1) for number in (3, 4, 5, 9)]
    line = derive(few, PLAN, start=0, end=2).lines[0]
    assert (line.rows, line.rows_cut) == ("3-5,9", False)
    solid = [row(number, 1, "tokens", input_tokens=1) for number in range(1, 5000)]
    assert derive(solid, PLAN, start=0, end=2).lines[0].rows == "1-4999"
    many = derive(solid[::2], PLAN, start=0, end=2).lines[0]
    assert many.rows_cut
    assert many.rows.count(",") == RANGES_MAX - 1
    assert many.quantity == 2500
