"""Tables of the papers that are made from the source: ``python -m tests.docs.tables`` writes them into docs/api.md.

Run it from the root of the checkout with ``src`` on the path. A test fails where a page holds something else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from bessemer.api.errors import TABLE
from bessemer.api.routes import OURS, ROUTES

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


def routes() -> Iterator[str]:
    """A line for the paths that have the same methods under the same permissions, in the order of the source."""
    answers: dict[str, dict[str, list[str]]] = {}
    for rule in ROUTES:
        answers.setdefault(rule.path.replace(OURS, "…"), {}).setdefault(rule.permission, []).append(rule.method)
    alike: dict[str, list[str]] = {}
    for path, found in answers.items():
        words = "; ".join(f"{' '.join(methods)}: {permission}" for permission, methods in found.items())
        alike.setdefault(words, []).append(f"`{path}`")
    yield "| methods: permission | routes |"
    yield "|---|---|"
    for words, paths in alike.items():
        yield f"| {words} | {'<br>'.join(paths)} |"


def errors() -> Iterator[str]:
    """A line per error."""
    yield "| error | code | reason | cause |"
    yield "|---|---|---|---|"
    for error, row in TABLE.items():
        yield f"| {error.__name__} | {row.code} | {row.reason} | {row.cause} |"


TABLES: Mapping[str, Callable[[], Iterator[str]]] = {"routes": routes, "errors": errors}


def filled(text: str) -> str:
    """The page with its tables as they should be. Raises ValueError where a mark is missing."""
    for name, lines in TABLES.items():
        begin, end = f"<!-- {name}: python -m tests.docs.tables -->\n", f"<!-- /{name} -->"
        start = text.index(begin) + len(begin)
        text = text[:start] + "\n".join(lines()) + "\n" + text[text.index(end, start) :]
    return text


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
