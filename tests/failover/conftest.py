"""A PostgreSQL server of the tests' own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.store.server import Server, running


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One server for the run of the tests."""
    with running() as found:
        yield found
