"""A world per test; the store in memory takes a few milliseconds."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.api.world import World, world


@pytest.fixture
async def w() -> AsyncIterator[World]:
    async with world() as made:
        yield made
