"""What a command found, as text for people or as a document for programs: the one place that knows the words of ``-o``.

``table`` fits the terminal, ``wide`` leaves nothing out and folds nothing, ``json`` and ``yaml`` are the whole value.
Where objects are many, or were not named, a document is a ``List``, however many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from bessemer.cli import render
from bessemer.core.errors import Invalid

FORMATS = ("table", "wide", "json", "yaml")
DOCUMENTS = ("json", "yaml")


def known(output: str, formats: Sequence[str] = FORMATS) -> str:
    """The word itself. Raises Invalid, with those that would do, for one that is not among ``formats``."""
    if output not in formats:
        raise Invalid(f"no output is called {output!r}; write {', '.join(formats[:-1])} or {formats[-1]}")
    return output


def _known(value: str) -> str:
    return known(value)


def _known_or_name(value: str) -> str:
    return known(value, (*FORMATS, "name"))


OutputOption = Annotated[
    str, typer.Option("--output", "-o", callback=_known, help="table, wide, json or yaml.", show_default=False)
]
NamedOutputOption = Annotated[
    str,
    typer.Option(
        "--output", "-o", callback=_known_or_name, help="table, wide, json, yaml or name.", show_default=False
    ),
]


def document(value: Any, output: str) -> str:
    """A value as JSON, or else as YAML."""
    return render.as_json(value) if output == "json" else render.as_yaml(value)


def shown(value: Any, output: str, *, text: Callable[[int], str]) -> str:
    """The value as ``output`` says. ``text`` writes it for a terminal of so many columns (0: any)."""
    if output in DOCUMENTS:
        return document(value, output)
    return text(0 if output == "wide" else render.width())


def listed(bodies: Sequence[Any]) -> dict[str, Any]:
    """Objects as one, as kubectl prints them."""
    return {"apiVersion": "v1", "kind": "List", "items": list(bodies)}
