"""Ledger rows for tests, a line each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from bessemer.core.units import GIB
from bessemer.core.values import LedgerEntry
from bessemer.metering import Plan, Rates, TokenRates

HOUR = 3600
PLAN = Plan(
    rates=Rates(
        device_hour={"H100": 2_400_000, "*": 1_200_000},
        core_hour=20_000,
        memory_gib_hour=4_000,
        million_input_tokens=50_000,
        million_cached_input_tokens=12_500,
        million_output_tokens=200_000,
    )
)

NAMED = PLAN.model_copy(
    update={
        "models": {
            name: TokenRates(
                million_input_tokens=each, million_cached_input_tokens=each // 3, million_output_tokens=each
            )
            for name, each in {"smollm2": 7_001, "legal": 90_000, "acme--lab/mine": 11, "external/qwen2:7b": 3}.items()
        }
    }
)
"""The same with rates of some models."""

MODELS = (
    *("smollm2", "llama", "smollm2:legal", "smollm2:other", "llama:legal", "acme--lab/mine", "acme--lab/mine:legal"),
    *("acme--lab/smollm2", "external/qwen2:7b", "external/smollm2", "qwen2:7b", ""),
)
"""As records say who answered."""


def row(number: int, at: int, kind: str, **fields: Any) -> LedgerEntry:
    """A row of claim ``c1`` of Instance ``vm`` unless ``fields`` say otherwise."""
    base: dict[str, Any] = {
        "tenant": "acme",
        "project": "acme--research",
        "workload_kind": "Instance",
        "workload_name": "vm",
        "workload_uid": "u1",
        "claim_uid": "" if kind == "tokens" else "c1",
    }
    return LedgerEntry.model_validate({**base, **fields, "id": number, "at": at, "kind": kind})


def opened(number: int, at: int, **fields: Any) -> LedgerEntry:
    held = {"milli_cores": 2000, "memory_bytes": GIB, "state": "deploying"}
    return row(number, at, "open", **{**held, **fields})


@st.composite
def ledgers(draw: st.DrawFn) -> list[LedgerEntry]:
    """Whole ledgers: claims in all states, tokens, corrections of both."""
    rows: list[LedgerEntry] = []
    at = 0
    for claim in range(draw(st.integers(1, 4))):
        fields: dict[str, Any] = {
            "claim_uid": f"c{claim}",
            "workload_uid": f"u{claim % 2}",
            "workload_name": f"w{claim % 2}",
            "fake": claim == 3,
            "milli_cores": draw(st.integers(0, 64_001)),
            "memory_bytes": draw(st.integers(0, 1 << 38)),
            "devices": draw(st.integers(0, 8)),
            "device_milli": draw(st.sampled_from((1000, 1000, 1, 125, 250, 999))),
            "device_model": draw(st.sampled_from(["", "H100", "A2"])),
        }
        rows.append(opened(len(rows) + 1, at, **fields))
        for _ in range(draw(st.integers(0, 4))):
            at += draw(st.integers(0, 5000))
            state = draw(st.sampled_from(["deploying", "running", "stopped", "lost"]))
            rows.append(row(len(rows) + 1, at, "state", **{**fields, "state": state}))
        if draw(st.booleans()):
            rows.append(row(len(rows) + 1, at + draw(st.integers(0, 5000)), "close", **fields))
    for _ in range(draw(st.integers(0, 3))):
        counts = draw(st.lists(st.integers(0, 10**7), min_size=3, max_size=3))
        rows.append(tokens(len(rows) + 1, draw(st.integers(0, 20_000)), counts, model=draw(st.sampled_from(MODELS))))
    for _ in range(draw(st.integers(0, 3))):
        corrects = draw(st.integers(1, len(rows)))
        counts = draw(st.lists(st.integers(0, 10**7), min_size=3, max_size=3))
        rows.append(
            row(
                len(rows) + 1,
                30_000,
                "correction",
                corrects=corrects,
                input_tokens=counts[0],
                cached_input_tokens=counts[1],
                output_tokens=counts[2],
                milli_cores=counts[0] % 9000,
                devices=counts[1] % 9,
            )
        )
    return rows


def tokens(number: int, at: int, counts: Sequence[int], *, model: str = "smollm2") -> LedgerEntry:
    """A row of tokens: read and not cached, cached, written."""
    return row(
        number,
        at,
        "tokens",
        workload_kind="Endpoint",
        workload_name="chat",
        workload_uid="e1",
        model=model,
        requests=1,
        input_tokens=counts[0] + counts[1],
        cached_input_tokens=counts[1],
        output_tokens=counts[2],
    )
