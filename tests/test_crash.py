"""The crash matrix as tests: some stops always, one kind's whole in `make test`, everything in `make test-long`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from bessemer.kinds.compute.instance import host
from tests import crash

KINDS = list(crash.SCENARIOS)


def check(matrix: crash.Matrix, *, tried: int) -> None:
    assert not matrix.problems(), "\n".join([str(matrix), *matrix.problems()])
    assert matrix.tried == tried


@pytest.mark.parametrize("kind", KINDS)
async def test_converges_after_some_stops(kind: str) -> None:
    matrix = await crash.explore(kind, victims=crash.VICTIMS, every=41, offset=3)
    assert not matrix.problems(), "\n".join(matrix.problems())
    assert matrix.tried >= 3 * len(crash.VICTIMS)


@pytest.mark.real
async def test_an_endpoint_converges_after_every_stop() -> None:
    matrix = await crash.explore("Endpoint")
    check(matrix, tried=len(crash.points(matrix.first)))


@pytest.mark.long
@pytest.mark.parametrize("victims", crash.VICTIMS)
@pytest.mark.parametrize("kind", KINDS)
async def test_converges_after_a_stop_at_every_driver_call_and_every_commit(
    kind: str, victims: str, record_property: Callable[[str, object], None]
) -> None:
    """A life stopped before and after each driver call and each commit ends as the one that was not."""
    matrix = await crash.explore(kind, victims=[victims])
    check(matrix, tried=len(crash.points(matrix.first)))
    record_property("stops", matrix.reached)
    record_property("unreached", len(matrix.unreached))


async def test_a_kind_that_forgets_what_it_did_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The matrix is worth its time only if it fails for a host side whose effects cannot be found again."""
    words = iter(range(1000))
    monkeypatch.setattr(host, "nonce_of", lambda _claim: f"word-{next(words)}")
    with pytest.raises(AssertionError, match="ReportInvalid"):
        await crash.live("Instance")


async def test_stops_that_are_never_reached_are_no_success() -> None:
    first = await crash.live("Endpoint")
    padded = replace(first, drivers=[*first.drivers, "engine.never"])
    matrix = crash.Matrix("Endpoint", padded)
    for index in (0, len(first.drivers)):
        await crash.check(matrix, ("driver", index, "before"), "everything")
    assert (matrix.reached, len(matrix.unreached), matrix.wrong) == (1, 1, [])
    assert "only 1 of 2 stops were reached" in matrix.problems()[0]
