"""Vetting, both sides together: placed, asked, measured, priced, and let go whatever happens meanwhile."""

from __future__ import annotations

from typing import Any

from tests.kinds.five import (
    Case,
    check_converges,
    check_converges_after_a_crash_at_every_call,
    check_converges_when_run_twice,
    check_deletes_cleanly,
    check_is_denied_to_another_tenant,
    distinct,
)

SPEC: dict[str, Any] = {
    "model": "smol",
    "flavor": "serve",
    "load": {"rates": [0.5, 1.0], "seconds": 4},
    "target": {"ttftMs": 60_000},
}
CASE = Case("Vetting", "v", SPEC, reason="Succeeded")


async def test_converges() -> None:
    found = await check_converges(CASE)
    status = found["status"]
    assert status["phase"] == "Succeeded"
    assert [point["rate"] for point in status["points"]] == [0.5, 1.0]
    assert {one["name"]: one["verdict"] for one in status["checks"]} == dict.fromkeys(
        ("answers", "template", "deterministic", "length", "tools", "schema", "stop", "target"), "Passed"
    )
    assert "claim" not in status or not status["claim"]
    assert status["vetted"]["rate"] == 1.0


async def test_converges_when_run_twice() -> None:
    await check_converges_when_run_twice(CASE)


async def test_converges_after_a_crash_at_every_driver_call() -> None:
    await check_converges_after_a_crash_at_every_call(CASE, chosen=distinct)


async def test_deletes_cleanly() -> None:
    await check_deletes_cleanly(CASE)


async def test_is_denied_to_another_tenant() -> None:
    await check_is_denied_to_another_tenant(CASE)
