"""Whoever loses a place to somebody faster hears that it is decided anew, and not that it should want less."""

from __future__ import annotations

from typing import Any, NoReturn

import pytest

from bessemer.core.errors import Taken
from bessemer.store.capacity import CapacityTable
from tests.kinds.world import PROJECT, World

WANTS = {
    "Instance": {"flavor": "small", "image": "micro"},
    "Endpoint": {"flavor": "serve", "model": "smol"},
    "Job": {"flavor": "serve", "script": "true"},
}


@pytest.mark.parametrize("kind", WANTS)
async def test_who_is_too_late_need_do_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*_: Any, **__: Any) -> NoReturn:
        raise Taken("somebody else has it")

    async with World() as world:
        monkeypatch.setattr(CapacityTable, "take", refused)
        await world.create(kind, "late", WANTS[kind])
        await world.until_reason(kind, "late", "Taken")

        async def stuck() -> str:
            found = await world.object(kind, "late", namespace=PROJECT)
            assert found is not None
            conditions = found["status"]["conditions"]
            return next((c["message"] for c in conditions if c["type"] == "Stuck" and c["status"] == "True"), "")

        await world.until(stuck, seconds=3000)
        words = await stuck()
        assert "it is decided anew by itself" in words
        assert "smaller" not in words
        assert "mend" not in words
