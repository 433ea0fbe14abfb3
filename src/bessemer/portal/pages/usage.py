"""How a project's endpoints answered: a row for each endpoint, key, member or model, and plots of what is chosen.

The figures are fetched by ``plots.js`` from `using.figures`; the page itself holds none.
"""

from __future__ import annotations

from bessemer.portal import code, words
from bessemer.portal.desk import Desk
from bessemer.portal.live import Page
from bessemer.portal.pages.shell import EVERYTHING, Here, page, within

_LEAD = "What was asked, what it costs at present prices, and how fast it was. What is owed stands on the invoice."
_NONE = "There is no project yet, and so nothing was used."


def build(desk: Desk, scope: str) -> Page:
    """Raises NotFound once the project is gone."""
    within(desk, scope)
    project = "" if scope == EVERYTHING else scope
    place = project or "TENANT--PROJECT"
    here = Here(
        section="usage",
        title="Usage",
        scope=scope,
        crumbs=((words.place(project) if project else "Everything", ""), ("Usage", "")),
        code=(("CLI", f"bessemer usage -n {place} --by key --since 24h\nbessemer usage -n {place} --plot usage.html"),),
        request=code.path("projects", place) + "/usage?by=endpoint",
    )
    href = f"/in/{project}/usage/figures" if project else ""
    return page(desk, here, template="usage.html", lists={}, lead=_LEAD if project else _NONE, href=href)
