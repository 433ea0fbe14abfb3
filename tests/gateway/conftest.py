"""A store in memory, and its clock, which stands until somebody moves it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from bessemer.core.clock import FakeClock
from bessemer.store import Store, open_store
from tests.store.conftest import KEY, KINDS


@pytest.fixture
async def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def store(clock: FakeClock) -> AsyncIterator[Store]:
    opened = open_store(":memory:", clock=clock, kinds=KINDS, seal_key=KEY)
    yield opened
    opened.close()
