"""The wires between any two are cut, each in every way."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.failover.cluster import cluster
from tests.failover.faults import CUTS
from tests.failover.test_failover import check_times
from tests.failover.work import furnish_all, working
from tests.store.server import Server

pytestmark = [pytest.mark.real, pytest.mark.long]

MENDED_SECONDS = 40.0
"""Before a wire is whole again somebody may just have dialled: until that is given up, ten seconds pass."""


@pytest.mark.parametrize("count", [2, 3])
async def test_every_wire_is_cut(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int
) -> None:
    """Each wire between any two, dropping, deaf and closed: nothing is lost, usage is counted once."""
    async with cluster(server, tmp_path, count=count) as replicas:
        await furnish_all(replicas)
        async with working(replicas) as work:
            for name, cut in CUTS.items():
                await replicas.whole()
                await cut(replicas, work, name)
    check_times(replicas, work, capsys, most=MENDED_SECONDS)
