"""The door: signing in with a password or a one-time link, and signing out.

The cookie holds the api session's bearer and nothing else: HttpOnly, Secure, SameSite=Strict, for this host alone. A
link's secret is exchanged by POST only, after a click, so that nothing that merely follows links can use it up.
"""

from __future__ import annotations

from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from bessemer.client import Client, Offer, SignedIn
from bessemer.core.clock import epoch
from bessemer.core.errors import BessemerError, Malformed, TooLarge, TooMany, Unauthenticated
from bessemer.portal.told import for_stranger
from bessemer.portal.visit import COOKIE, body_of, site_of, theme

_FIELD_MAX = 1024
_FIELDS_MAX = 8
_FORM_BYTES_MAX = 16 << 10


async def show(request: Request) -> Response:
    """The form; with ``link`` a button that exchanges it."""
    return await door(request, link=request.query_params.get("link", ""))


async def enter(request: Request) -> Response:
    """Sign in with user and password."""
    user, back = "", "/"
    client = stranger(request)
    try:
        form = await _form(request)
        user, back = form.get("user", ""), safe(form.get("back", ""))
        signed = await client.account.login(user, form.get("password", ""), purpose="portal")
        return let_in(request, signed, response=RedirectResponse(back, 303))
    except Unauthenticated:
        text = "User and password do not belong together. Check both, or ask an administrator for a sign-in link."
        return await door(request, user=user, back=back, error=("Not signed in", text), code=401)
    except BessemerError as error:
        return await door(request, user=user, back=back, error=said(error), code=status_of(error))
    finally:
        await client.close()


async def follow(request: Request) -> Response:
    """Exchange a one-time link."""
    client = stranger(request)
    try:
        form = await _form(request)
        signed = await client.account.follow_link(form.get("link", ""))
        return let_in(request, signed, response=RedirectResponse("/", 303))
    except Unauthenticated:
        title = "This sign-in link was used, or has expired"
        text = "A link works once. Sign in below, or ask an administrator for a new one: bessemer user link NAME"
        return await door(request, error=(title, text), code=401)
    except BessemerError as error:
        return await door(request, error=said(error), code=status_of(error))
    finally:
        await client.close()


async def leave(request: Request) -> Response:
    """Sign out: the session ends at the api, and with it every stream and key that was made for it; the issuer's own,
    where it is of one, ends where the browser is sent to."""
    bearer = request.cookies.get(COOKIE, "")
    url = await site_of(request).desks.end(bearer) if bearer else ""
    response = onward(request, url, title="Signed out") if url else RedirectResponse("/signin", 303)
    response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="strict")
    response.headers["Clear-Site-Data"] = '"cache"'
    return response


def onward(request: Request, url: str, *, title: str) -> Response:
    """A page of ours that goes on by itself: a cookie that is for our own pages alone is not sent where another site
    led to, and a form's policy does not let one be led to another site."""
    drawn = site_of(request).pen.plain("onward.html", title=title, url=url, theme=theme(request))
    return HTMLResponse(drawn)


def stranger(request: Request) -> Client:
    """A client for somebody who has no session yet."""
    return for_stranger(site_of(request).settings, request.client.host if request.client else "")


def let_in(request: Request, signed: SignedIn, *, response: Response) -> Response:
    """The answer, with the session's cookie."""
    left = int(epoch(signed.expires_at) - site_of(request).clock.now())
    response.set_cookie(
        COOKIE, signed.token, max_age=max(0, left), path="/", secure=True, httponly=True, samesite="strict"
    )
    return response


async def door(
    request: Request,
    *,
    user: str = "",
    link: str = "",
    back: str = "",
    error: tuple[str, str] | None = None,
    code: int = 200,
) -> Response:
    """The page at the door. A part of it is by whom else one can sign in, as far as that is known now."""
    site = site_of(request)
    back = back or safe(request.query_params.get("back", ""))
    drawn = site.pen.plain(
        "signin.html",
        title="Sign in",
        user=user,
        link=link,
        back=back,
        error=error,
        theme=theme(request),
        providers=() if link else await _providers(request),
    )
    return HTMLResponse(drawn, code)


async def _providers(request: Request) -> tuple[Offer, ...]:
    client = stranger(request)
    try:
        return await client.account.providers()
    except BessemerError:
        return ()  # who has a password needs none of them
    finally:
        await client.close()


def said(error: BessemerError) -> tuple[str, str]:
    """Why somebody is not signed in: a title and a text."""
    if isinstance(error, TooMany):
        return "Too many attempts", f"Try again in {error.retry_after_seconds} s. The password was not looked at."
    if isinstance(error, Malformed):
        return "Not signed in", "Give a user and a password."
    return "Not signed in", f"{error.message[:1].upper()}{error.message[1:]}. Try again in a moment."


def status_of(error: BessemerError) -> int:
    """The status of a page that says so."""
    codes = ((TooMany, 429), (Malformed, 400), (TooLarge, 413))
    return next((code for kind, code in codes if isinstance(error, kind)), 503)


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form, cut to what anybody would write. Raises Malformed, TooLarge."""
    data = await body_of(request, limit=_FORM_BYTES_MAX)
    try:
        fields = parse_qsl(data.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=_FIELDS_MAX)
    except ValueError as error:
        raise Malformed(f"a form has at most {_FIELDS_MAX} fields") from error
    return {name: value[:_FIELD_MAX] for name, value in fields}


def safe(back: str) -> str:
    """A path of our own to go on to; anything else leads home."""
    local = back.startswith("/") and not back.startswith(("//", "/\\")) and back.isprintable()
    return back if local and not back.startswith("/signin") else "/"
