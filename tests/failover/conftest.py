"""A PostgreSQL server of the tests' own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.store.server import Server, running


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One server for the tests of a module: what they start anew ends with the thread that did, and their loop."""
    with running() as found:
        yield found
