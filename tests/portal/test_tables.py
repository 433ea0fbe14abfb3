"""The table of any kind: the first rows, said to be so, and nothing kept but what is drawn."""

from __future__ import annotations

from typing import Any

import pytest

from bessemer.portal.pages import objects
from bessemer.portal.parts import Row
from tests.api.world import BASE, named
from tests.portal.test_guard import caller
from tests.portal.town import LAB, Town

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_long_table_shows_its_first_rows_and_says_so(t: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "ROWS_SHOWN", 2)
    async with caller(t, "ada") as ada:
        text = (await ada.get("/flavors")).text
        assert text.count('<tr id="row-') == 2
        assert "The first 2 flavors of 4; all of them: bessemer get flavors" in text
        few = (await ada.get(f"/in/{LAB}/keys")).text
        assert "The first" not in few


async def test_a_member_finds_what_is_theirs_behind_many_of_others(t: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "ROWS_SHOWN", 1)
    await t.w.create(f"{BASE}/projects", named("acme--aaa"))
    async with caller(t, "rita") as rita:
        text = (await rita.get("/projects")).text
        assert "rival--apps" in text
        assert "acme" not in text
    await t.w.call("DELETE", f"{BASE}/projects/acme--aaa")


async def test_a_tab_keeps_rows_and_no_objects(t: Town) -> None:
    async with caller(t, "ada") as ada:
        assert (await ada.get("/flavors")).status == 200
        desk = await t.portal.state.site.desks.of(ada.cookie)
        kept: dict[str, Any] = list(desk.tabs.values())[-1].build.keywords
        assert all(isinstance(row, Row) for row in kept["rows"])
        assert not any(isinstance(value, dict) for value in kept.values())


async def test_a_kind_of_no_project_is_asked_for_without_one(t: Town) -> None:
    async with caller(t, "ada") as ada:
        text = (await ada.get("/flavors")).text
        assert "kubectl get flavors\nkubectl get flavors -w" in text
