"""A store per executor. Every test of the contract takes ``store`` and asks nothing of what is under it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bessemer.core.clock import FakeClock
from bessemer.store import Store, StoreKind, open_store, places
from bessemer.store.leases import SteadyTime
from bessemer.store.transaction import Tx
from tests.store.server import Server, empty, running

KINDS = {
    "Thing": StoreKind(namespaced=True),
    "Guarded": StoreKind(namespaced=True, finalizer="bessemer.dev/guarded"),
    "Instance": StoreKind(namespaced=True, finalizer="bessemer.dev/instance", meter="instances"),
    "Claim": StoreKind(namespaced=True),
    "ProjectModel": StoreKind(namespaced=True, meter="content_bytes", counts="heldBytes"),
    "Paper": StoreKind(namespaced=True, api_version="v1", parts=("text", "sealed"), most=3),
    "Lease": StoreKind(namespaced=True),
    "ApiKey": StoreKind(namespaced=True, meter="api_keys"),
    "Host": StoreKind(namespaced=False),
    "PricePlan": StoreKind(namespaced=False),
    "Tenant": StoreKind(namespaced=False, finalizer="bessemer.dev/tenant"),
    "Project": StoreKind(namespaced=False, finalizer="bessemer.dev/project", meter="projects"),
}
KEY = bytes(range(32))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One server for the run of the tests."""
    with running() as found:
        yield found


@pytest.fixture
def by_the_tests_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases in a database are measured by a clock that a test moves, and not by the server's."""
    monkeypatch.setattr(places.Server, "time", lambda _, clock: SteadyTime(clock))
    monkeypatch.setattr(Tx, "server_time", property(lambda tx: tx.now))


@pytest.fixture
def database(server: Server) -> str:
    """The URL of an empty database, or of one whose tables are empty."""
    empty(server.url())
    return server.url()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.real)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store may be kept: a file, or a database."""
    if request.param == "sqlite":
        return str(tmp_path / "store.db")
    found: str = request.getfixturevalue("database")
    return found


@pytest.fixture
def file_store(tmp_path: Path, clock: FakeClock) -> Iterator[Store]:
    """For what is SQLite's alone."""
    opened = open_store(tmp_path / "store.db", clock=clock, kinds=KINDS, seal_key=KEY)
    yield opened
    opened.close()


@pytest.fixture
def store(place: str, clock: FakeClock, by_the_tests_clock: None) -> Iterator[Store]:
    opened = open_store(place, clock=clock, kinds=KINDS, seal_key=KEY)
    yield opened
    opened.close()
