"""Signing in and out, who one is, passwords, and the tokens that are shown once.

Attempts are bounded as `limit` says. A wrong user, a wrong password, a disabled user and one who comes by a provider
are one answer, and take one time. A sign-in link's Session is deleted by its exchange, so it is good once. Each
credential that is made here leaves a row in the trail before it is made, and each that is refused another.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import orjson
from starlette.responses import Response

from bessemer.api import body as bodies
from bessemer.api import keyowners, ldapdoor
from bessemer.api.authn import require_local
from bessemer.api.credentials import PREFIX as CREDENTIAL_PREFIX
from bessemer.api.credentials import within_reach
from bessemer.api.names import is_subdomain
from bessemer.api.oidcpeople import Vouched
from bessemer.api.refusals import Refusal
from bessemer.api.resources import load
from bessemer.api.state import Call, answer
from bessemer.core.clock import epoch, rfc3339
from bessemer.core.errors import Conflict, Forbidden, Malformed, NotFound, Unauthenticated
from bessemer.core.ports import Stored, Writer
from bessemer.core.resource import Key
from bessemer.core.tokens import token_digest
from bessemer.kinds.tenancy.credential import OVERLAP_SECONDS_MAX, SECRETS_MAX

KEY_PREFIX = "bsk_"
HINT_LENGTH, SECRET_HINT_LENGTH = 12, 6
ATTEMPTS = 8
UNKNOWN = "-"
"""Of whom the trail does not say more."""

LOGIN = "login"
_WRONG = "wrong user or password"
_PROVIDERS = "the user comes by a provider, which keeps their password: none of ours, and no link, lets them in"
_SECRET = {"Cache-Control": "no-store"}


async def login(call: Call) -> Response:
    """POST /login with a password, or with a one-time link."""
    said = await _said(call)
    call.state.following.require()
    if "link" in said:
        return await _by_link(call, _text(said, "link"))
    user, password = _text(said, "user"), _text(said, "password")
    purpose = said.get("purpose") or "cli"
    if purpose not in ("cli", "portal"):
        raise Malformed("purpose is cli or portal")
    directory, tries, source = await ldapdoor.directory_of(call, user), call.state.sign_ins, call.credentials.source
    account = directory.account if directory is not None else user
    await tries.admit(source, account)
    if directory is not None:
        response = await _by_directory(call, directory, user=user, password=password, purpose=purpose)
    else:
        response = await _by_password(call, user, password=password, purpose=purpose)
    tries.succeeded(source, account)
    return response


async def _by_password(call: Call, user: str, *, password: str, purpose: str) -> Response:
    await call.state.door.require()
    uid = await _uid(call, user)
    good = await call.state.passwords.good(uid, password)
    if good is None:
        # A name that is nobody's is not kept: it may be a password that was typed into the wrong field.
        raise await _refused(call, user if uid else UNKNOWN, words=_WRONG, account=user)
    return await _sign_in(call, Key("User", "", user), uid=uid, purpose=purpose, by=good)


async def logout(call: Call) -> Response:
    """DELETE /login: ends the session that asks."""
    if not call.who.session:
        raise Forbidden("only a session can be ended")
    await call.state.sessions.end(call.who.session, writer=call.acting)
    return answer({})


async def whoami(call: Call) -> Response:
    """GET /whoami."""
    who = call.who
    tenants, projects = within_reach(call, who) if who.kind == "user" else ({}, [])
    return answer(
        {"name": who.name, "admin": call.state.access.administers(who), "tenants": tenants, "projects": projects}
    )


async def set_password(call: Call) -> Response:
    """POST users/NAME/password. Who was signed in by the old one is not any more."""
    said = await _said(call)
    user = await _local(call)
    password = _text(said, "password")
    hashed = await call.state.passwords.hashed(password)
    await call.still()  # a body takes its time, and so does a hash
    await call.note(await _local(call))
    await call.state.passwords.put(user.uid, hashed)
    await call.state.sessions.end_others(call.about.name, keep=call.who.session, writer=call.acting)
    return answer({})


async def sign_in_link(call: Call) -> Response:
    """POST users/NAME/signinlink: good for one sign-in at the portal."""
    user = await _local(call)
    terms = call.state.context.terms
    await call.note(user)
    made = await call.state.sessions.make(user.key, user.uid, purpose="link", seconds=terms.link, writer=call.acting)
    url = f"{terms.portal_url}/signin?link={quote(made.token, safe='')}"
    return answer({"url": url, "secret": made.token, "expiresAt": made.expires_at}, 201, headers=_SECRET)


async def key_token(call: Call) -> Response:
    """POST apikeys/NAME/token: a new secret, kept as its hash; the old one is worth nothing from now."""
    target = call.about
    token = KEY_PREFIX + secrets.token_urlsafe(32)
    digest = token_digest(token)
    created = rfc3339(call.state.context.clock.now())
    change = {"digest": digest, "hint": token[:HINT_LENGTH], "tokenCreated": created}
    stored = await load(call, target)
    keyowners.require_own(call, orjson.loads(stored.body))
    await call.note(stored)
    await _keep(call, lambda _: change)
    return answer({"token": token}, 201, headers=_SECRET)


async def credential_token(call: Call) -> Response:
    """POST applicationcredentials/NAME/token: a new secret for its owner alone. The newest before it is good for as
    long as the credential's ``overlapSeconds``, or the body's, says; any other goes at once."""
    said = await _said(call, empty=True)
    await call.still()
    target, now = call.about, call.state.context.clock.now()
    stored = await load(call, target)
    spec = orjson.loads(stored.body)["spec"]
    if call.who.name != spec.get("user"):
        raise Forbidden(f"only {spec.get('user')}, whose credential it is, may make its secret")
    overlap = said.get("overlapSeconds", spec["overlapSeconds"])
    if type(overlap) is not int or not 0 <= overlap <= OVERLAP_SECONDS_MAX:
        raise Malformed(f"overlapSeconds is a number from 0 to {OVERLAP_SECONDS_MAX}")
    secret = secrets.token_urlsafe(32)
    new = {"digest": token_digest(secret), "hint": secret[:SECRET_HINT_LENGTH], "created": rfc3339(now)}

    def rotated(status: dict[str, Any]) -> dict[str, Any]:
        kept = [with_end(one, now + overlap) for one in status.get("secrets", ())[: SECRETS_MAX - 1]]
        return {"secrets": [new, *(one for one in kept if epoch(one["until"]) > now)]}

    await call.note(stored)
    await _keep(call, rotated)
    token = f"{CREDENTIAL_PREFIX}{target.namespace}/{target.name}.{secret}"
    return answer({"token": token, "expiresAt": spec["expiresAt"]}, 201, headers=_SECRET)


def with_end(secret: dict[str, Any], end: float) -> dict[str, Any]:
    """A secret that ends then, or when it did before."""
    until = secret.get("until")
    return {**secret, "until": rfc3339(min(end, epoch(until)) if until else end)}


async def _keep(call: Call, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Put what ``change`` makes of the target's status into it. Raises Conflict where it never holds still."""
    for attempt in range(ATTEMPTS):
        body = orjson.loads((await load(call, call.about)).body)
        status = body.get("status", {})
        try:
            await call.state.ports.objects.replace(
                {**body, "status": {**status, **change(status)}}, call.acting, part="status"
            )
            return
        except Conflict:
            if attempt + 1 == ATTEMPTS:
                raise


async def _by_directory(
    call: Call, directory: ldapdoor.Directory, *, user: str, password: str, purpose: str
) -> Response:
    who = await ldapdoor.vouched(call, directory, password=password)
    if who is None:
        raise await _refused(call, user, words=_WRONG, account=directory.account)
    try:
        person = await call.state.federation.people.admitted(who, create=directory.spec.create_users)
    except Unauthenticated as error:
        # The password was right, so the reason is theirs to know.
        raise await _refused(call, who.name, words=error.message, account=directory.account) from error
    return await _sign_in(call, Key("User", "", who.name), uid=person.uid, purpose=purpose, vouched=who)


async def _by_link(call: Call, secret: str) -> Response:
    await call.state.sign_ins.admit(call.credentials.source)
    await call.state.door.require()
    try:
        session = await call.state.local.session(secret)
        holder = await call.state.local.holder(session)
        user = require_local(holder)["metadata"]
    except Unauthenticated as error:
        raise await _refused(call, UNKNOWN, words=error.message) from error
    if session["spec"]["purpose"] != "link":
        raise await _refused(call, user["name"], words="this is no sign-in link")
    metadata = session["metadata"]
    if not await call.state.sessions.end(metadata["name"], metadata["uid"], writer=call.acting):
        raise await _refused(call, user["name"], words="the link has been used")
    response = await _sign_in(call, Key("User", "", user["name"]), uid=user["uid"], purpose="portal")
    call.state.sign_ins.succeeded(call.credentials.source, user["name"])
    return response


async def _sign_in(
    call: Call,
    user: Key,
    *,
    uid: str,
    purpose: str,
    by: bytes = b"",
    vouched: Vouched | None = None,
) -> Response:
    """A session for somebody who has shown who they are, ``by`` a password where one of ours was given, or
    ``vouched`` for."""
    terms = call.state.context.terms
    # What a directory says of groups is asked at sign-in alone, so no such session is longer than a day's work.
    long = purpose == "cli" and vouched is None
    seconds = terms.cli_session if long else terms.portal_session
    writer = Writer("user", user.name, request_id=call.request_id, source=call.credentials.source)
    call.uid = uid
    await call.state.ports.audit.note(writer, LOGIN, key=user, uid=uid)
    made = await call.state.sessions.make(
        user, uid, purpose=purpose, seconds=seconds, writer=call.acting, vouched=vouched
    )
    if by and not await call.state.passwords.stands(uid, by):
        # A new one was set meanwhile, which ends what the old one began: this began too late to be seen.
        await call.state.sessions.end(made.name, writer=call.acting)
        raise await _refused(call, user.name, words=_WRONG)
    await note_sign_in(call, user)
    said = {"token": made.token, "user": made.user, "expiresAt": made.expires_at}
    return answer(said, 201, headers=_SECRET)


async def _refused(call: Call, user: str, *, words: str, account: str = "") -> Unauthenticated:
    """The error of a sign-in that failed, once it is noted."""
    call.state.sign_ins.failed(call.credentials.source, account)
    await call.state.refusals.stranger(Refusal(call.acting, LOGIN, Key("User", "", user), words))
    return Unauthenticated(words)


async def note_sign_in(call: Call, user: Key) -> None:
    """``User.status.lastSignIn``: worth showing, and not worth failing for where somebody else writes at once."""
    with suppress(NotFound, Conflict):
        body = orjson.loads((await call.state.ports.objects.get(user)).body)
        body["status"] = {**body.get("status", {}), "lastSignIn": rfc3339(call.state.context.clock.now())}
        await call.state.ports.objects.replace(body, call.acting, part="status")


async def _uid(call: Call, user: str) -> str:
    """The uid of a user who may sign in with a password of ours, or ""."""
    try:
        body = require_local(await call.state.local.user(user)) if is_subdomain(user) else None
    except Unauthenticated:
        return ""
    return str(body["metadata"]["uid"]) if body else ""


async def _local(call: Call) -> Stored:
    """The User of the path. Raises Forbidden for one whom a provider vouches for: what is ours outlives it."""
    user = await load(call, call.about)
    if orjson.loads(user.body)["spec"].get("identity"):
        raise Forbidden(_PROVIDERS)
    return user


async def _said(call: Call, *, empty: bool = False) -> dict[str, Any]:
    limits = call.state.context.limits
    raw = await bodies.read(call.request, limits)
    return bodies.as_object(bodies.parse_json(raw or b"{}" if empty else raw, limits.depth))


def _text(said: dict[str, Any], field: str) -> str:
    value = said.get(field, "")
    if not isinstance(value, str) or not value:
        raise Malformed(f"{field} must be text")
    return value
