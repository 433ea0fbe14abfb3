"""The crash matrix as tests: some stops always, all of them in `make test`."""

from __future__ import annotations

import pytest

from bessemer.kinds.compute.instance import host
from tests import crash

KINDS = list(crash.SCENARIOS)


@pytest.mark.parametrize("kind", KINDS)
async def test_converges_after_some_stops(kind: str) -> None:
    first, tried, wrong = await crash.matrix(kind, every=29, offset=3)
    assert not wrong, "\n".join(wrong)
    assert tried >= 3
    assert len(first.drivers) >= crash.SCENARIOS[kind][1]


@pytest.mark.real
@pytest.mark.parametrize("kind", KINDS)
async def test_converges_after_a_stop_at_every_driver_call_and_every_commit(kind: str) -> None:
    first, tried, wrong = await crash.matrix(kind)
    assert not wrong, "\n".join(wrong)
    assert tried == 2 * (len(first.drivers) + len(first.commits))


async def test_a_kind_that_forgets_what_it_did_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The matrix is worth its time only if it fails for a host side whose effects cannot be found again."""
    words = iter(range(1000))
    monkeypatch.setattr(host, "nonce_of", lambda _claim: f"word-{next(words)}")
    with pytest.raises(AssertionError, match="ReportInvalid"):
        await crash.live("Instance")
