"""From pages and parts to HTML: Jinja with autoescape, one macro per part, `words` as filters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from bessemer.core.clock import Clock
from bessemer.portal import words
from bessemer.portal.live import Page, Part

TEMPLATES = Path(__file__).parent / "templates"


class Pen:
    """Draws. ``facts`` are what every page may say of the product."""

    def __init__(self, *, clock: Clock, asset: Callable[[str], str], facts: Mapping[str, Any]) -> None:
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
            auto_reload=False,
        )
        names = ("money", "duration", "bound", "utc", "iso", "gib", "cores", "count", "place", "tone", "device")
        self._environment.filters.update({name: getattr(words, name) for name in names})
        self._environment.filters["ago"] = lambda then: words.since(then, clock.now())
        self._environment.globals.update(asset=asset, product=facts)
        self._macros: Any = self._environment.get_template("parts.html").module

    def part(self, part: Part) -> str:
        """A part by itself. Lists within it are empty: what is in them is sent after it."""
        return str(self._macro(part, _nothing)).strip()

    def page(self, page: Page, **more: Any) -> str:
        """A whole page."""

        def live(name: str) -> Markup:
            drawn = (str(self._macro(part, live)).strip() for part in page.lists.get(name, ()))
            return Markup("").join(Markup(text) for text in drawn)

        context = {"title": page.title, "live": live, **page.fixed, **more}
        return self._environment.get_template(page.template).render(context)

    def plain(self, template: str, **context: Any) -> str:
        """A page without a shell: the door, an error."""
        return self._environment.get_template(template).render(context)

    def _macro(self, part: Part, live: Callable[[str], Markup]) -> Any:
        return getattr(self._macros, part.macro)(part, live)


def _nothing(_name: str) -> Markup:
    return Markup("")
