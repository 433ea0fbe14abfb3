"""A command line as a public client of an issuer: by a browser on this machine, by a code on another device, and again
by a refresh token. What comes is verified here as the server will, so that a wrong issuer is known at once."""

from __future__ import annotations

import asyncio
import hmac
import html
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from bessemer.cli.logins import Login, Logins
from bessemer.core.errors import Invalid, Unauthenticated
from bessemer.drivers.oidc import verify
from bessemer.drivers.oidc.pkce import Attempt, attempt, authorization_url
from bessemer.drivers.oidc.protocol import DEVICE_GRANT, GrantRefused, Metadata, Party, Reach, Tokens
from bessemer.drivers.oidc.real import HttpIssuers

if TYPE_CHECKING:
    from bessemer.client import Offer

BROWSER_SECONDS_MAX = 300.0
FIRST_SECONDS = 1.0
REQUEST_BYTES_MAX = 16 << 10
Say = Callable[[str], None]

_PAGE = "<!doctype html><meta charset=utf-8><title>Bessemer</title><p>{}</p>"


async def by_browser(offer: Offer, *, server: str, show: Say) -> Login:
    """Listen on loopback for the code that a browser brings; ``show`` gets the URL to open. Raises Unauthenticated,
    DriverError."""
    reach, metadata = await _found(offer)
    made = attempt()
    back: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    listener = _Listener(made, metadata, back=back)
    async with await asyncio.start_server(listener.answer, "127.0.0.1", 0, limit=REQUEST_BYTES_MAX) as bound:
        redirect = f"http://127.0.0.1:{bound.sockets[0].getsockname()[1]}/callback"
        show(authorization_url(metadata, made, client_id=offer.client_id, redirect_uri=redirect, scope=_scope(offer)))
        try:
            code = await asyncio.wait_for(back, BROWSER_SECONDS_MAX)
        except TimeoutError as error:
            raise Unauthenticated("nobody signed in within five minutes") from error
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect, "code_verifier": made.verifier}
    tokens = await HttpIssuers().grant(reach, metadata, party=Party(client_id=offer.client_id), form=form)
    return await _login(offer, tokens, server=server, nonce=made.nonce)


async def by_device(offer: Offer, *, server: str, show: Say) -> Login:
    """Wait until somebody has typed the code that ``show`` gets. Raises Unauthenticated, DriverError."""
    reach, metadata = await _found(offer)
    issuers, party = HttpIssuers(), Party(client_id=offer.client_id)
    prompt = await issuers.device(reach, metadata, party=party, scope=_scope(offer))
    show(f"Open {prompt.url_complete or prompt.url} and compare the code: {prompt.user_code}")
    form = {"grant_type": DEVICE_GRANT, "device_code": prompt.device_code}
    interval, end = prompt.interval, time.monotonic() + prompt.seconds
    wait = min(FIRST_SECONDS, interval)  # the interval is between two questions, and this is the first
    while time.monotonic() < end:
        await asyncio.sleep(wait)
        wait = interval
        try:
            tokens = await issuers.grant(reach, metadata, party=party, form=form)
        except GrantRefused as error:
            if error.code == "slow_down":
                wait = interval = interval + 5.0
            elif error.code != "authorization_pending":
                raise Unauthenticated(error.message) from error
        else:
            return await _login(offer, tokens, server=server)
    raise Unauthenticated("nobody typed the code in time")


async def fresh(logins: Logins) -> Login:
    """The sign-in with a token that can be shown, asked for anew where it is old. Raises Unauthenticated where that is
    over, DriverError where the issuer is silent."""
    found = logins.read()
    if found is None:
        raise Unauthenticated("nobody is signed in: bessemer login")
    if found.good(time.time()):
        return found
    with logins.alone():
        found = logins.read() or found
        if found.good(time.time()):
            return found
        if not found.refresh_token:
            raise Unauthenticated(f"the sign-in is over: bessemer login --provider {found.provider}")
        reach = reach_of(found)
        issuers = HttpIssuers()
        metadata = await issuers.metadata(reach)
        form = {"grant_type": "refresh_token", "refresh_token": found.refresh_token}
        try:
            tokens = await issuers.grant(reach, metadata, party=Party(client_id=found.client_id), form=form)
        except GrantRefused as error:
            raise Unauthenticated(f"the sign-in is over: bessemer login --provider {found.provider}") from error
        expires = await _expires(reach, metadata, tokens=tokens, client_id=found.client_id)
        token, again = tokens.id_token, tokens.refresh_token or found.refresh_token
        found = replace(found, id_token=token, refresh_token=again, expires=expires)
        logins.write(found)
        return found


async def revoked(login: Login) -> None:
    """Make its refresh token worth nothing. Raises DriverError."""
    if login.refresh_token:
        issuers, reach = HttpIssuers(), reach_of(login)
        party = Party(client_id=login.client_id)
        await issuers.revoke(reach, await issuers.metadata(reach), party=party, token=login.refresh_token)


def reach_of(to: Login | Offer) -> Reach:
    """How its issuer is reached."""
    return Reach(issuer=to.issuer, authorities=to.authorities, private=to.private, plain=to.plain)


# --- parts ------------------------------------------------------------------------------------------------------


class _Listener:
    """Takes one answer at ``/callback``: the first that has our state."""

    def __init__(self, made: Attempt, metadata: Metadata, *, back: asyncio.Future[str]) -> None:
        self._made = made
        self._metadata = metadata
        self._back = back

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a browser."""
        try:
            async with asyncio.timeout(10.0):
                head = await reader.readuntil(b"\r\n\r\n")
                status, text = self._judged(head.split(b"\r\n", 1)[0].decode("ascii", "replace"))
                page = _PAGE.format(html.escape(text)).encode()
                writer.write(
                    f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {len(page)}\r\n"
                    "Content-Security-Policy: default-src 'none'\r\nCache-Control: no-store\r\n"
                    "Connection: close\r\n\r\n".encode()
                    + page
                )
                await writer.drain()
        except (TimeoutError, OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever that was, it was no browser with an answer
        finally:
            writer.close()

    def _judged(self, line: str) -> tuple[str, str]:
        method, _, rest = line.partition(" ")
        url = urlsplit(rest.partition(" ")[0])
        if method != "GET" or url.path != "/callback":
            return "404 Not Found", "There is nothing here."
        query = {name: values[0] for name, values in parse_qs(url.query, max_num_fields=16).items()}
        if not hmac.compare_digest(query.get("state", "").encode(), self._made.state.encode()):
            return "400 Bad Request", "This is no answer to this sign-in."
        given = query.get("iss", "" if self._metadata.says_issuer else self._metadata.issuer)
        if given != self._metadata.issuer or not query.get("code"):
            if not self._back.done():
                self._back.set_exception(Unauthenticated("the issuer did not sign you in"))
            return "200 OK", "You are not signed in. The terminal says more."
        if not self._back.done():
            self._back.set_result(query["code"])
        return "200 OK", "Go back to the terminal. This page can be closed."


async def _found(offer: Offer) -> tuple[Reach, Metadata]:
    reach = reach_of(offer)
    return reach, await HttpIssuers().metadata(reach)


def _scope(offer: Offer) -> str:
    """With offline_access an issuer gives a refresh token."""
    return " ".join(dict.fromkeys((*offer.scopes, "offline_access")))


async def _login(offer: Offer, tokens: Tokens, *, server: str, nonce: str = "") -> Login:
    reach, metadata = await _found(offer)
    expires = await _expires(reach, metadata, tokens=tokens, client_id=offer.client_id, nonce=nonce)
    return Login(
        server=server,
        provider=offer.name,
        id_token=tokens.id_token,
        refresh_token=tokens.refresh_token,
        expires=expires,
        issuer=offer.issuer,
        client_id=offer.client_id,
        authorities=offer.authorities,
        private=offer.private,
        plain=offer.plain,
    )


async def _expires(reach: Reach, metadata: Metadata, *, tokens: Tokens, client_id: str, nonce: str = "") -> float:
    """Until when the ID token counts, once it is verified. Raises Unauthenticated."""
    keys = verify.keys_of(await HttpIssuers().keys(reach, metadata))
    rules = verify.Rules(issuer=reach.issuer, algorithms=metadata.algorithms, audiences=frozenset({client_id}))
    try:
        claims = verify.verified(verify.read(tokens.id_token), keys, rules=rules, now=time.time())
    except verify.TokenRefused as error:
        raise Unauthenticated(f"the issuer's token is refused: {error}") from error
    if nonce and claims.get("nonce") != nonce:
        raise Unauthenticated("the issuer's token is refused: it answers another sign-in")
    return float(claims["exp"])


def chosen(offers: tuple[Offer, ...], name: str) -> Offer:
    """The provider by its name; "" is the only one. Raises Invalid with what there is."""
    found = [one for one in offers if not name or one.name == name]
    if len(found) == 1:
        return found[0]
    there = ", ".join(one.name for one in offers)
    if not offers:
        raise Invalid("this server knows no provider: sign in by a user's name (bessemer login NAME)")
    raise Invalid(f"say by whom: --provider NAME; there are: {there}" if not name else f"there is no {name}: {there}")
