"""Signing in by a provider outside: to its issuer with a browser, and back with a code.

What one attempt keeps (state, nonce, verifier, which provider, where to go on) stands in the browser's own cookie
`ATTEMPT` until it comes back, ten minutes at most: HttpOnly, Secure, for this host alone, and SameSite=Lax since it
comes back from another site. A code is taken only with the state of that very browser, and from the issuer that it was
sent to. The code is exchanged by the api, which has the secret; here there is none.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from bessemer.core.errors import BessemerError, Unauthenticated
from bessemer.portal.door import door, let_in, onward, safe, said, status_of, stranger

ATTEMPT = "__Host-bessemer-attempt"
ATTEMPT_SECONDS = 600
_VALUE_MAX = 4096
_FIELDS = ("provider", "state", "nonce", "verifier", "issuer")


async def begin(request: Request) -> Response:
    """To the issuer. A link and no form, since a policy of forms would follow the redirect."""
    provider = request.path_params["provider"]
    client = stranger(request)
    try:
        begun = await client.account.begin(provider)
    except Unauthenticated:
        return await door(request, error=("Not signed in", "There is no such way to sign in any more."), code=404)
    except BessemerError as error:
        return await door(request, error=said(error), code=status_of(error))
    finally:
        await client.close()
    kept = {
        "provider": provider,
        "state": begun.state,
        "nonce": begun.nonce,
        "verifier": begun.verifier,
        "issuer": begun.issuer,
        "saysIssuer": begun.says_issuer,
        "back": safe(request.query_params.get("back", "")),
    }
    response = RedirectResponse(begun.url, 303)
    value = urlsafe_b64encode(orjson.dumps(kept)).decode()
    response.set_cookie(ATTEMPT, value, max_age=ATTEMPT_SECONDS, path="/", secure=True, httponly=True, samesite="lax")
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


async def back(request: Request) -> Response:
    """From the issuer, with a code or with its refusal. Either way the attempt is over."""
    response = await _judged(request)
    response.delete_cookie(ATTEMPT, path="/", secure=True, httponly=True, samesite="lax")
    return response


async def _judged(request: Request) -> Response:
    kept, query = _kept(request.cookies.get(ATTEMPT, "")), request.query_params
    if kept is None or not hmac.compare_digest(kept["state"].encode(), query.get("state", "").encode()):
        text = "This sign-in was not begun in this browser, or too long ago. Begin again here."
        return await door(request, error=("Not signed in", text), code=400)
    issuer = query.get("iss", "" if kept.get("saysIssuer") else kept["issuer"])
    if issuer != kept["issuer"]:
        return await door(request, error=("Not signed in", "Another issuer answered than was asked."), code=400)
    if "error" in query or not query.get("code"):
        refused = query.get("error") == "access_denied"
        text = "You were not let in there, or did not agree." if refused else "The issuer could not sign you in."
        return await door(request, error=("Not signed in", text), code=401)
    client = stranger(request)
    try:
        signed = await client.account.enter(
            kept["provider"], code=query["code"][:_VALUE_MAX], verifier=kept["verifier"], nonce=kept["nonce"]
        )
    except Unauthenticated as error:
        text = f"{error.message[:1].upper()}{error.message[1:]}."
        return await door(request, error=("Not signed in", text), code=401)
    except BessemerError as error:
        return await door(request, error=said(error), code=status_of(error))
    finally:
        await client.close()
    response = onward(request, safe(str(kept.get("back", ""))), title="Signed in")
    return let_in(request, signed, response=response)


def _kept(value: str) -> dict[str, Any] | None:
    """What the cookie holds, or None where it holds nothing of ours."""
    try:
        kept = orjson.loads(urlsafe_b64decode(value.encode("ascii"))) if len(value) <= _VALUE_MAX else None
    except ValueError:
        return None
    fine = isinstance(kept, dict) and all(isinstance(kept.get(field), str) and kept[field] for field in _FIELDS)
    return kept if fine else None
