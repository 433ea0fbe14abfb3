"""Hosts with guests for the tests: fake, and real below a temporary directory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bessemer.drivers.guest.protocol import BuiltImage
from tests.drivers import micro_guest
from tests.drivers.qemu.rig import FakeRig, RealRig, Rig


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    return micro_guest.build(tmp_path_factory.mktemp("image") / "micro-guest.tar")


@pytest.fixture
async def real(tmp_path: Path, image: BuiltImage) -> AsyncIterator[RealRig]:
    rig = RealRig(tmp_path, image)
    yield rig
    await rig.close()


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.real)])
def rig(request: pytest.FixtureRequest) -> Rig:
    if request.param == "fake":
        return FakeRig()
    found: Rig = request.getfixturevalue("real")
    return found
