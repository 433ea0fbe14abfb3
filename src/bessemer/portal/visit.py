"""One request of somebody: the portal it came to, the desk of its session, and how an answer is made.

`signed_in` turns a page's function into a route: it finds the desk by the cookie, sends strangers to the door, and
turns every refusal into a page that says what happened, what to do, and what did not happen.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from bessemer.core.clock import Clock
from bessemer.core.errors import (
    BessemerError,
    Conflict,
    Forbidden,
    Invalid,
    Malformed,
    NotFound,
    TooLarge,
    TooMany,
    Unauthenticated,
    Unavailable,
)
from bessemer.core.resource import Key, Kind
from bessemer.portal.assets import Assets
from bessemer.portal.desk import Desk, Desks
from bessemer.portal.draw import Pen
from bessemer.portal.live import Page, Tab
from bessemer.portal.playground import Playground
from bessemer.portal.settings import PortalSettings

COOKIE = "__Host-bessemer"
THEME = "theme"
_CODES: Mapping[type[BessemerError], int] = {
    Malformed: 400,
    Invalid: 422,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    TooLarge: 413,
    TooMany: 429,
    Unavailable: 503,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One portal, built by `make_portal`."""

    settings: PortalSettings
    clock: Clock
    desks: Desks
    pen: Pen
    assets: Assets
    playground: Playground
    kinds: Mapping[str, Kind[Any, Any]]


@dataclass(frozen=True, slots=True)
class Visit:
    """A request with a session behind it."""

    site: Site
    desk: Desk
    request: Request

    def part(self, name: str) -> str:
        """A part of the path."""
        return str(self.request.path_params.get(name, ""))

    def show(
        self, build: Callable[[], Page], *, log: Key | None = None, ask: Callable[[], Awaitable[None]] | None = None
    ) -> Response:
        """Draw a page and remember it for its stream."""
        page = build()
        tab = Tab(build, page.lists, log, ask)
        self.desk.keep(tab)
        drawn = self.site.pen.page(page, tab=tab.token, theme=theme(self.request))
        return HTMLResponse(drawn)


Handler = Callable[[Visit], Awaitable[Response]]


def site_of(request: Request) -> Site:
    """The portal that a request came to."""
    site: Site = request.app.state.site
    return site


def theme(request: Request) -> str:
    """light or dark as chosen, or "" for what the system says."""
    chosen = request.cookies.get(THEME, "")
    return chosen if chosen in {"light", "dark"} else ""


def signed_in(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """A route for those who are signed in."""

    async def route(request: Request) -> Response:
        site = site_of(request)
        try:
            desk = await site.desks.of(_bearer(request))
            return await handler(Visit(site, desk, request))
        except Unauthenticated:
            return _to_the_door(request)
        except BessemerError as error:
            return refused(request, error)

    return route


def _bearer(request: Request) -> str:
    bearer = request.cookies.get(COOKIE, "")
    if not bearer:
        raise Unauthenticated("sign in first")
    return bearer


def _to_the_door(request: Request) -> Response:
    if wants_data(request):
        return JSONResponse({"error": "The session has ended. Sign in again."}, 401)
    back = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    to = "/signin" if back == "/" or request.method != "GET" else f"/signin?back={quote(back, safe='')}"
    response = RedirectResponse(to, 303)
    response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="strict")
    return response


def wants_data(request: Request) -> bool:
    """Whether a script asks, who wants no page."""
    return "text/html" not in request.headers.get("accept", "text/html")


def refused(request: Request, error: BessemerError) -> Response:
    """An error as a page, or as JSON for a script."""
    code = code_of(error)
    if wants_data(request):
        return JSONResponse({"error": error.message}, code)
    return error_page(request, code, message=error.message)


def code_of(error: BessemerError) -> int:
    """The status of an answer that refuses."""
    return next((code for kind, code in _CODES.items() if isinstance(error, kind)), 500)


def error_page(request: Request, code: int, *, message: str = "") -> Response:
    """What happened, what to do, what did not happen."""
    title, remedy = _WORDS.get(code, _WORDS[500])
    site = site_of(request)
    kept = "" if request.method == "GET" else "Nothing was changed."
    drawn = site.pen.plain(
        "error.html", title=title, message=message, remedy=remedy, kept=kept, code=code, theme=theme(request)
    )
    return HTMLResponse(drawn, code)


_WORDS: Mapping[int, tuple[str, str]] = {
    400: ("This request cannot be read", "Go back and try again."),
    403: ("This is not allowed", "Ask an administrator of the tenant for the right."),
    404: ("There is nothing here", "It was deleted, never existed, or is not yours to see."),
    409: ("Somebody else changed it first", "Open it again and decide anew."),
    413: ("This is too much at once", "Begin anew with less."),
    422: ("This cannot be", "Correct what is named and try again."),
    429: ("Too many attempts", "Wait a moment, then try again."),
    500: ("Something went wrong here", "Try again; if it stays, the portal's log says why."),
    503: ("The control plane cannot be reached", "It may be starting. This page can be loaded again in a moment."),
}


async def body_of(request: Request, *, limit: int) -> bytes:
    """A request's body. Raises TooLarge past ``limit`` bytes, before the rest is read, and Malformed for one that
    breaks off."""
    data = bytearray()
    try:
        async for chunk in request.stream():
            data += chunk
            if len(data) > limit:
                raise TooLarge(f"at most {limit >> 10} KiB are taken: begin anew with less")
    except ClientDisconnect as error:
        raise Malformed("the request ended before its body did") from error
    return bytes(data)
