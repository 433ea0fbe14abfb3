"""A store per executor. Every test of the contract takes ``store`` and asks nothing of what is under it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bessemer.core.clock import FakeClock
from bessemer.store import Store, StoreKind, open_store

KINDS = {
    "Thing": StoreKind(namespaced=True),
    "Guarded": StoreKind(namespaced=True, finalizer="bessemer.dev/guarded"),
    "Instance": StoreKind(namespaced=True, finalizer="bessemer.dev/instance", meter="instances"),
    "Claim": StoreKind(namespaced=True),
    "Host": StoreKind(namespaced=False),
    "Tenant": StoreKind(namespaced=False, finalizer="bessemer.dev/tenant"),
    "Project": StoreKind(namespaced=False, finalizer="bessemer.dev/project"),
}
KEY = bytes(range(32))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> Iterator[Store]:
    opened = open_store(tmp_path / "store.db", clock=clock, kinds=KINDS, seal_key=KEY)
    yield opened
    opened.close()
