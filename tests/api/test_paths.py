"""Which application answers a path: beside Starlette's router, which tries one pattern after the other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import Response
from starlette.routing import Match, Route

from bessemer.api.paths import Paths
from bessemer.api.routes import ROUTES

PATTERNS = list(dict.fromkeys(rule.path for rule in ROUTES if rule.method != "WS"))
PATHS = Paths((path, path) for path in PATTERNS)
STARLETTES = [Route(path, Response()) for path in PATTERNS]
WORDS = sorted({part for path in PATTERNS for part in path[1:].split("/") if not part.startswith("{")})
SEGMENTS = st.sampled_from([*WORDS, "", "x", "{name}", "a:b", "é", " "])


def by_starlette(path: str) -> tuple[str, dict[str, str]] | None:
    for route in STARLETTES:
        match, scope = route.matches({"type": "http", "path": path, "method": "GET"})
        if match is not Match.NONE:
            return route.path, scope["path_params"]
    return None


@pytest.mark.parametrize("pattern", PATTERNS)
def test_each_route_is_found_or_stands_behind_one_that_fits_too(pattern: str) -> None:
    path = pattern.replace("{", "").replace("}", "")
    assert PATHS.find(path) == by_starlette(path) is not None


@given(st.lists(SEGMENTS, max_size=9))
def test_it_answers_as_starlettes_router_does(segments: list[str]) -> None:
    path = "/" + "/".join(segments)
    assert PATHS.find(path) == by_starlette(path)


@pytest.mark.parametrize("path", ["", "/", "//", "x", "/apis//v1", "/apis/", "/healthz/\n"])
def test_what_is_no_path_finds_nothing(path: str) -> None:
    assert PATHS.find(path) is None
