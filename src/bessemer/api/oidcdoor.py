"""Signing in and out by an OpenID provider, over HTTP.

A sign-in is two requests: `begin` gives a browser's address and secrets that the asker keeps, `enter` takes the code
back with them; nothing is kept here in between. The client's secret is sealed and never comes out again. Signing out
ends all Sessions of that person by that provider, makes worth nothing what the issuer signed for them until then, and
says where the issuer's own session is ended. An issuer that says so itself (`logged_out`) does the first two.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode

import orjson
from starlette.responses import Response

from bessemer.api import account
from bessemer.api import body as bodies
from bessemer.api.account import LOGIN, UNKNOWN, note_sign_in
from bessemer.api.authn import NewSession
from bessemer.api.context import Identity
from bessemer.api.oidcpeople import Vouched
from bessemer.api.oidcproviders import Provider
from bessemer.api.refusals import Refusal
from bessemer.api.resources import load
from bessemer.api.state import Call, answer
from bessemer.core.clock import rfc3339
from bessemer.core.errors import Conflict, DriverError, Malformed, NotFound, Unauthenticated, Unavailable
from bessemer.core.ports import Scope, Writer
from bessemer.core.resource import Key
from bessemer.drivers.oidc.keyring import Known
from bessemer.drivers.oidc.pkce import attempt, authorization_url
from bessemer.drivers.oidc.protocol import GrantRefused, Party, Tokens
from bessemer.kinds.tenancy.session import LABEL_PROVIDER, session_labels, vouched_labels

CLIENT_SECRET, ID_TOKEN = "client-secret", "id-token"
SECRET_LENGTH_MAX = 1024
HINT_LENGTH_MAX = 4096
"""Of an ID token that goes into a URL."""
CALLBACK = "/signin/callback"
ATTEMPTS = 8
_NO_STORE = {"Cache-Control": "no-store"}


async def providers(call: Call) -> Response:
    """GET /login/providers: by whom people may sign in, and what a command line needs to ask them itself."""
    offered = await call.state.federation.providers.all()
    return answer({"providers": [_shown(one) for one in offered]}, headers=_NO_STORE)


def _shown(provider: Provider) -> dict[str, Any]:
    spec = provider.spec
    return {
        "name": provider.name,
        "displayName": provider.body.spec.display_name or provider.name,
        "issuer": spec.issuer,
        "clientId": spec.cli_client_id or spec.client_id,
        "scopes": spec.scopes,
        "caBundle": spec.ca_bundle,
        "allowPrivateAddress": spec.allow_private_address,
        "allowLoopbackHttp": spec.allow_loopback_http,
    }


async def begin(call: Call) -> Response:
    """POST /login/providers/NAME/attempt: where a browser goes, and what whoever sends it there keeps."""
    await call.state.sign_ins.admit(call.credentials.source)
    provider = await call.state.federation.providers.named(call.parameter("provider"))
    known = await _known(provider)
    made, spec = attempt(), provider.spec
    url = authorization_url(
        known.metadata, made, client_id=spec.client_id, redirect_uri=_callback(call), scope=" ".join(spec.scopes)
    )
    told = {"url": url, "state": made.state, "nonce": made.nonce, "verifier": made.verifier, "issuer": spec.issuer}
    return answer({**told, "saysIssuer": known.metadata.says_issuer}, 201, headers=_NO_STORE)


async def enter(call: Call) -> Response:
    """POST /login/providers/NAME: a code, and the verifier and nonce of its attempt, for a portal session."""
    said = await _said(call)
    code, verifier, nonce = (_text(said, name) for name in ("code", "verifier", "nonce"))
    call.state.following.require()
    await call.state.sign_ins.admit(call.credentials.source)
    federation = call.state.federation
    try:
        provider = await federation.providers.named(call.parameter("provider"))
        tokens = await _exchange(call, provider, code=code, verifier=verifier)
        claims = await federation.claims(provider, tokens.id_token)
        if claims.get("nonce") != nonce or provider.spec.client_id not in _listed(claims["aud"]):
            raise Unauthenticated("the token is refused: it answers another sign-in")
        who = federation.vouched(provider, claims)
        person = await federation.people.admitted(who, create=provider.spec.create_users)
    except Unauthenticated as error:
        call.state.sign_ins.failed(call.credentials.source)
        refused = Refusal(call.acting, LOGIN, Key("User", "", UNKNOWN), error.message)
        await call.state.refusals.stranger(refused)
        raise
    call.identity = federation.identity(who.name, person, groups=who.groups, provider=provider.name)
    made = await _session(call, who, uid=person.uid, id_token=tokens.id_token)
    return answer({"token": made.token, "user": made.user, "expiresAt": made.expires_at}, 201, headers=_NO_STORE)


async def _exchange(call: Call, provider: Provider, *, code: str, verifier: str) -> Tokens:
    secret = await call.state.ports.sealed.get(provider.body.uid, CLIENT_SECRET)
    party = Party(client_id=provider.spec.client_id, secret=secret.decode() if secret else "")
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": _callback(call),
        "code_verifier": verifier,
    }
    known = await _known(provider)
    issuers = call.state.context.issuers
    try:
        return await issuers.grant(provider.keyring.reach, known.metadata, party=party, form=form)
    except GrantRefused as error:
        raise Unauthenticated(error.message) from error
    except DriverError as error:
        raise Unavailable(error.message, retry_after_seconds=10, internal=error.internal) from error


async def _known(provider: Provider) -> Known:
    try:
        return await provider.keyring.known()
    except DriverError as error:
        raise Unavailable(error.message, retry_after_seconds=10, internal=error.internal) from error


async def _session(call: Call, who: Vouched, *, uid: str, id_token: str) -> NewSession:
    """A session of ours for somebody whom a provider vouched for just now."""
    user = Key("User", "", who.name)
    writer = Writer("user", who.name, request_id=call.request_id, source=call.credentials.source)
    call.uid = uid
    await call.state.ports.audit.note(writer, LOGIN, key=user, uid=uid)
    made = await call.state.sessions.make(
        user,
        uid,
        purpose="portal",
        seconds=call.state.context.terms.portal_session,
        writer=call.acting,
        vouched=who,
    )
    await call.state.ports.sealed.put(made.uid, ID_TOKEN, id_token.encode())
    await note_sign_in(call, user)
    return made


async def client_secret(call: Call) -> Response:
    """POST identityproviders/NAME/clientsecret: kept sealed, never shown again; "" takes it away."""
    said = await _said(call)
    secret = said.get("secret")
    if not isinstance(secret, str) or len(secret) > SECRET_LENGTH_MAX:
        raise Malformed(f"secret must be text of at most {SECRET_LENGTH_MAX} characters")
    provider = await load(call, call.about)
    await call.still()
    await call.note(provider)
    await call.state.ports.sealed.put(provider.uid, CLIENT_SECRET, secret.encode())
    return answer({})


# --- signing out ------------------------------------------------------------------------------------------------


async def leave(call: Call) -> Response:
    """DELETE /login: ends the session that asks; of somebody whom a provider vouched for, everywhere. ``endSession``
    is where a browser ends the issuer's own."""
    who = call.who
    if not who.provider:
        return await account.logout(call)
    url = await _end_session_url(call, who)
    await _sign_out(call, who.name, provider=who.provider)
    return answer({"endSession": url} if url else {}, headers=_NO_STORE)


async def logged_out(call: Call) -> Response:
    """POST /login/providers/NAME/logout (OpenID back-channel logout): the issuer says that somebody has left."""
    call.state.backchannel.take(call.credentials.source)
    raw = await bodies.read(call.request, call.state.context.limits)
    try:
        form = dict(parse_qsl(raw.decode("ascii", "replace"), max_num_fields=8))
    except ValueError as error:
        raise Malformed("the form has too many fields") from error
    federation = call.state.federation
    try:
        provider = await federation.providers.named(call.parameter("provider"))
        claims = await federation.claims(provider, form.get("logout_token", ""), leaving=True)
    except Unauthenticated as error:
        await call.state.refusals.stranger(Refusal(call.acting, "logout", Key("User", "", UNKNOWN), error.message))
        raise Malformed(error.message) from error
    names = {federation.people.name_of(provider.spec.issuer, claims["sub"])} if "sub" in claims else set()
    if "sid" in claims:
        names |= await _of_sid(call, provider, sid=claims["sid"])
    for name in sorted(names - {""}):
        await _sign_out(call, name, provider=provider.name)
    return Response(status_code=200, headers=_NO_STORE)


async def _of_sid(call: Call, provider: Provider, *, sid: str) -> set[str]:
    """Who is signed in by a session of the issuer's."""
    labels = vouched_labels(provider.name, provider.body.uid, sid=sid)
    page = await call.state.ports.objects.list(Scope(kind="Session", labels=labels))
    return {orjson.loads(stored.body)["spec"]["user"] for stored in page.items}


async def _sign_out(call: Call, name: str, *, provider: str) -> None:
    """Bearers first: what is refused from now on cannot make another session."""
    await _mark_left(call, Key("User", "", name))
    labels = {**session_labels(name), LABEL_PROVIDER: provider}
    page = await call.state.ports.objects.list(Scope(kind="Session", labels=labels))
    for stored in page.items:
        if orjson.loads(stored.body)["spec"]["user"] == name:
            await call.state.sessions.end(stored.key.name, stored.uid, writer=call.acting)


async def _mark_left(call: Call, user: Key) -> None:
    """``User.status.signedOutAt``. Raises Conflict where others write without end: then nobody has signed out."""
    objects, attempts = call.state.ports.objects, 0
    while True:
        try:
            body = orjson.loads((await objects.get(user)).body)
            body["status"] = {**body.get("status", {}), "signedOutAt": rfc3339(call.state.context.clock.now())}
            call.state.federation.people.learn(await objects.replace(body, call.acting, part="status"))
        except NotFound:
            return
        except Conflict:
            attempts += 1
            if attempts == ATTEMPTS:
                raise
        else:
            return


async def _end_session_url(call: Call, who: Identity) -> str:
    """Where a browser ends the issuer's session, or "" where the issuer has no such place or is silent."""
    try:
        provider = await call.state.federation.providers.named(who.provider)
        metadata = (await provider.keyring.known()).metadata
    except (Unauthenticated, DriverError):
        return ""
    if not metadata.end_session:
        return ""
    query = {
        "client_id": provider.spec.client_id,
        "post_logout_redirect_uri": f"{call.state.context.terms.portal_url}/signin",
    }
    if who.session:
        query |= await _hint(call, who.session)
    return f"{metadata.end_session}{'&' if '?' in metadata.end_session else '?'}{urlencode(query)}"


async def _hint(call: Call, session: str) -> dict[str, str]:
    """Whose session it is, in the issuer's own words, where they are kept and short enough."""
    try:
        stored = await call.state.ports.objects.get(Key("Session", "", session))
    except NotFound:
        return {}
    token = await call.state.ports.sealed.get(stored.uid, ID_TOKEN)
    return {"id_token_hint": token.decode()} if token and len(token) <= HINT_LENGTH_MAX else {}


# --- parts ------------------------------------------------------------------------------------------------------


def _callback(call: Call) -> str:
    return call.state.context.terms.portal_url + CALLBACK


def _listed(audience: Any) -> list[Any]:
    return audience if isinstance(audience, list) else [audience]


async def _said(call: Call) -> dict[str, Any]:
    limits = call.state.context.limits
    return bodies.as_object(bodies.parse_json(await bodies.read(call.request, limits), limits.depth))


def _text(said: dict[str, Any], field: str) -> str:
    value = said.get(field, "")
    if not isinstance(value, str) or not 0 < len(value) <= HINT_LENGTH_MAX:
        raise Malformed(f"{field} must be text")
    return value
