"""The door: signing in with a password or a one-time link, and signing out.

The cookie holds the api session's bearer and nothing else: HttpOnly, Secure, SameSite=Strict, for this host alone. A
link's secret is exchanged by POST only, after a click, so that nothing that merely follows links can use it up.
"""

from __future__ import annotations

from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from bessemer.client import Client, SignedIn
from bessemer.core.clock import epoch
from bessemer.core.errors import BessemerError, Malformed, TooMany, Unauthenticated
from bessemer.portal.told import for_stranger
from bessemer.portal.visit import COOKIE, body_of, site_of, theme

_FIELD_MAX = 1024
_FORM_BYTES_MAX = 16 << 10


async def show(request: Request) -> Response:
    """The form; with ``link`` a button that exchanges it."""
    return _door(request, link=request.query_params.get("link", ""))


async def enter(request: Request) -> Response:
    """Sign in with user and password."""
    form = await _form(request)
    user, back = form.get("user", ""), _safe(form.get("back", ""))
    client = _stranger(request)
    try:
        return _let_in(request, await client.account.login(user, form.get("password", ""), purpose="portal"), back=back)
    except Unauthenticated:
        text = "User and password do not belong together. Check both, or ask an administrator for a sign-in link."
        return _door(request, user=user, back=back, error=("Not signed in", text), code=401)
    except BessemerError as error:
        return _door(request, user=user, back=back, error=_said(error), code=_code(error))
    finally:
        await client.close()


async def follow(request: Request) -> Response:
    """Exchange a one-time link."""
    form = await _form(request)
    client = _stranger(request)
    try:
        return _let_in(request, await client.account.follow_link(form.get("link", "")), back="/")
    except Unauthenticated:
        title = "This sign-in link was used, or has expired"
        text = "A link works once. Sign in below, or ask an administrator for a new one: bessemer user link NAME"
        return _door(request, error=(title, text), code=401)
    except BessemerError as error:
        return _door(request, error=_said(error), code=_code(error))
    finally:
        await client.close()


async def leave(request: Request) -> Response:
    """Sign out: the session ends at the api, and with it every stream and key that was made for it."""
    bearer = request.cookies.get(COOKIE, "")
    if bearer:
        await site_of(request).desks.end(bearer)
    response = RedirectResponse("/signin", 303)
    response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="strict")
    response.headers["Clear-Site-Data"] = '"cache"'
    return response


def _stranger(request: Request) -> Client:
    """A client for somebody who has no session yet."""
    return for_stranger(site_of(request).settings, request.client.host if request.client else "")


def _let_in(request: Request, signed: SignedIn, *, back: str) -> Response:
    response = RedirectResponse(back, 303)
    left = int(epoch(signed.expires_at) - site_of(request).clock.now())
    response.set_cookie(
        COOKIE, signed.token, max_age=max(0, left), path="/", secure=True, httponly=True, samesite="strict"
    )
    return response


def _door(
    request: Request,
    *,
    user: str = "",
    link: str = "",
    back: str = "",
    error: tuple[str, str] | None = None,
    code: int = 200,
) -> Response:
    site = site_of(request)
    back = back or _safe(request.query_params.get("back", ""))
    drawn = site.pen.plain(
        "signin.html", title="Sign in", user=user, link=link, back=back, error=error, theme=theme(request)
    )
    return HTMLResponse(drawn, code)


def _said(error: BessemerError) -> tuple[str, str]:
    if isinstance(error, TooMany):
        return "Too many attempts", f"Try again in {error.retry_after_seconds} s. The password was not looked at."
    if isinstance(error, Malformed):
        return "Not signed in", "Give a user and a password."
    return "Not signed in", f"{error.message[:1].upper()}{error.message[1:]}. Try again in a moment."


def _code(error: BessemerError) -> int:
    return 429 if isinstance(error, TooMany) else 400 if isinstance(error, Malformed) else 503


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form, cut to what anybody would write."""
    data = await body_of(request, limit=_FORM_BYTES_MAX)
    fields = parse_qsl(data.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=8)
    return {name: value[:_FIELD_MAX] for name, value in fields}


def _safe(back: str) -> str:
    """A path of our own to go on to; anything else leads home."""
    local = back.startswith("/") and not back.startswith(("//", "/\\")) and back.isprintable()
    return back if local and not back.startswith("/signin") else "/"
