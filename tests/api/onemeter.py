"""A tree of the product whose register of meters has one line more, and what an api of it does.

``python -m tests.api.onemeter`` runs with that tree before the product's own on the path: a tenant bounds the meter,
comes up to the bound, is refused, is shown it, and gives something back.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
from pathlib import Path
from typing import Any

import structlog

SOURCE = Path(__file__).parents[2] / "src" / "bessemer"
LINE = (
    '    config_maps: Annotated[int | None, Meter(kind="ConfigMap")] = Field(None, description="Files of settings.")\n'
)
BEFORE = "    spend_micro: "


def with_one_line_more(target: Path) -> None:
    """The product's package there, all of it links but the one file."""
    shutil.copytree(SOURCE, target / "bessemer", copy_function=_link)
    register = target / "bessemer" / "core" / "quota.py"
    text = register.read_text(encoding="utf-8")
    assert text.count(BEFORE) == 1
    register.unlink()
    register.write_text(text.replace(BEFORE, LINE + BEFORE), encoding="utf-8")


def _link(source: str, target: str) -> None:
    Path(target).symlink_to(source)


async def _ask(place: str) -> None:
    from bessemer.cli.quota import quota_text
    from bessemer.core.quota import METERS
    from bessemer.portal.pages import quota
    from tests.api.world import BASE, World, world

    async def use(w: World, token: str) -> list[dict[str, Any]]:
        found = (await w.call("GET", f"{BASE}/tenants/acme/use", token=token)).json["meters"]
        return [meter for meter in found if meter["meter"] == "config_maps"]

    def paper(name: str) -> dict[str, Any]:
        return {"metadata": {"name": name}, "data": {"a": "b"}}

    assert "config_maps" in [meter.name for meter in METERS]
    async with world(place=place) as w:
        media = "application/merge-patch+json"
        bound = {"spec": {"quota": {"configMaps": 2}}}
        assert (await w.call("PATCH", f"{BASE}/tenants/acme", bound, media=media)).code == 200
        mia, papers = await w.login("mia"), "/api/v1/namespaces/acme--lab/configmaps"
        for name in ("a", "b"):
            await w.create(papers, paper(name), token=mia)
        refused = await w.call("POST", papers, paper("c"), token=mia)
        assert refused.code == 403
        words = "tenant acme: 1 config maps asked, 0 of 2 left; an administrator of the platform may raise the quota"
        assert words in refused.json["message"], refused.json
        (meter,) = await use(w, mia)
        assert (meter["used"], meter["limit"], meter["title"]) == (2, 2, "config maps")
        assert quota_text([meter]).splitlines()[1].split()[:6] == ["tenant/acme", "config", "maps", "2", "2", "0"]
        row = repr(quota._row(meter, colour={}))
        assert "Config maps: 2 config maps of 2" in row, row
        assert (await w.call("DELETE", f"{papers}/a", token=mia)).code == 200
        assert (await use(w, mia))[0]["used"] == 1
        await w.create(papers, paper("c"), token=mia)
    print("counted, shown and refused")  # noqa: T201


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    asyncio.run(_ask(sys.argv[1]))
