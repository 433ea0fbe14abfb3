"""What goes wrong in a loop is told with the object's uid, by which its other lines are found."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from bessemer.core.errors import DriverError
from bessemer.core.resource import Key, Outcome
from tests.loop.shelf import pots, start

A = Key("Pot", "acme--one", "a")


@pytest.mark.parametrize(
    ("error", "event", "level"),
    [
        (DriverError("DiskFull", "no space on the pot"), "reconcile refused", "warning"),
        (RuntimeError("a defect"), "reconcile raised", "error"),
    ],
)
async def test_a_line_names_its_object(error: Exception, event: str, level: str) -> None:
    async def fails(ctx: Any, obj: Any) -> Outcome:
        raise error

    bench = start(pots(fails))
    try:
        with capture_logs() as logs:
            stored = bench.shelf.put(A)
            await bench.idle()
    finally:
        await bench.loop.stop()
        await bench.task
    line = next(line for line in logs if line["event"] == event)
    assert line["object_uid"] == stored.uid
    assert (line["kind"], line["namespace"], line["name"], line["log_level"]) == ("Pot", "acme--one", "a", level)
