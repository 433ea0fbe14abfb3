"""An issuer in memory that signs for real, and `Issuers` over any number of them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from joserfc import jws
from joserfc.jwk import ECKey, RSAKey

from bessemer.core.clock import Clock
from bessemer.core.errors import DriverError
from bessemer.drivers.oidc.pkce import challenge_of
from bessemer.drivers.oidc.protocol import (
    DEVICE_GRANT,
    DevicePrompt,
    GrantRefused,
    Metadata,
    Party,
    Reach,
    Tokens,
    failed,
)

TOKEN_SECONDS = 600.0


class FakeIssuer:
    """One issuer. ``people`` maps a subject to claims; ``down`` makes it silent; ``asked`` counts readings of keys."""

    def __init__(self, url: str, clock: Clock, *, people: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.url = url
        self.clock = clock
        self.people: dict[str, Mapping[str, Any]] = dict(people or {})
        self.clients: dict[str, str] = {}
        self.down = False
        self.asked = 0
        self.keys: list[RSAKey | ECKey] = []
        self._codes: dict[str, dict[str, str]] = {}
        self._devices: dict[str, str] = {}
        self._refresh: dict[str, tuple[str, str]] = {}
        self.rotate()

    @property
    def metadata(self) -> Metadata:
        return Metadata(
            issuer=self.url,
            authorization=f"{self.url}/auth",
            token=f"{self.url}/token",
            jwks=f"{self.url}/jwks",
            device=f"{self.url}/device",
            end_session=f"{self.url}/end",
            revocation=f"{self.url}/revoke",
            algorithms=("RS256", "ES256"),
            says_issuer=True,
        )

    def rotate(self, *, keep: bool = True) -> None:
        """Sign with a new key from now on; the old ones stay listed with ``keep``."""
        key = ECKey.generate_key("P-256", {"kid": secrets.token_hex(4), "use": "sig", "alg": "ES256"})
        self.keys = [*(self.keys if keep else ()), key]

    def token(self, subject: str, *, audience: str, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """An ID token; a claim that is None is left out."""
        now = int(self.clock.now())
        said = {
            "iss": self.url,
            "sub": subject,
            "aud": audience,
            "iat": now,
            "exp": now + int(TOKEN_SECONDS),
            **self.people.get(subject, {}),
            **claims,
        }
        return self.sign({name: value for name, value in said.items() if value is not None}, header=header)

    def sign(self, claims: Mapping[str, Any], *, header: Mapping[str, Any] | None = None) -> str:
        """Any claims, signed by the newest key."""
        import orjson

        key = self.keys[-1]
        protected = {"alg": "ES256", "kid": key.kid, "typ": "JWT", **(header or {})}
        return jws.serialize_compact(protected, orjson.dumps(claims), key, algorithms=["ES256"])

    def agree(self, subject: str, query: Mapping[str, str]) -> str:
        """What its page does once the person agreed: the code for an authorization request."""
        code = secrets.token_urlsafe(12)
        self._codes[code] = {**query, "sub": subject}
        return code

    def approve(self, prompt: DevicePrompt, subject: str) -> None:
        """The person typed the code."""
        self._devices[prompt.device_code] = subject

    # --- what `FakeIssuers` asks ---

    def forget(self, refresh_token: str) -> None:
        """It is worth nothing from now."""
        self._refresh.pop(refresh_token, None)

    def grant(self, party: Party, form: Mapping[str, str]) -> Tokens:
        """Raises GrantRefused."""
        if self.clients.get(party.client_id) != party.secret:
            raise GrantRefused("invalid_client")
        kind, asked = form.get("grant_type"), {}
        if kind == "authorization_code":
            asked = self._codes.pop(form.get("code", ""), {})
            fits = asked.get("redirect_uri") == form.get("redirect_uri") and asked.get("client_id") == party.client_id
            if not asked or not fits or asked.get("code_challenge") != challenge_of(form.get("code_verifier", "")):
                raise GrantRefused("invalid_grant")
            subject = asked["sub"]
        elif kind == DEVICE_GRANT:
            subject = self._devices.get(form.get("device_code", ""), "")
            if not subject:
                raise GrantRefused("authorization_pending")
        else:
            subject, owner = self._refresh.pop(form.get("refresh_token", ""), ("", ""))
            if kind != "refresh_token" or not subject or owner != party.client_id:
                raise GrantRefused("invalid_grant")
        again = secrets.token_urlsafe(12)
        self._refresh[again] = (subject, party.client_id)
        id_token = self.token(subject, audience=party.client_id, nonce=asked.get("nonce"), sid=f"sid-{subject}")
        return Tokens(id_token=id_token, access_token=secrets.token_urlsafe(12), refresh_token=again)


class FakeIssuers:
    """Implements `protocol.Issuers` over `FakeIssuer`s by their URL."""

    def __init__(self, *issuers: FakeIssuer) -> None:
        self.by_url = {one.url: one for one in issuers}

    async def metadata(self, reach: Reach) -> Metadata:
        return self._there(reach).metadata

    async def keys(self, reach: Reach, metadata: Metadata) -> Sequence[Mapping[str, Any]]:
        issuer = self._there(reach)
        issuer.asked += 1
        return [dict(key.as_dict(private=False)) for key in issuer.keys]

    async def grant(self, reach: Reach, metadata: Metadata, *, party: Party, form: Mapping[str, str]) -> Tokens:
        return self._there(reach).grant(party, form)

    async def device(self, reach: Reach, metadata: Metadata, *, party: Party, scope: str) -> DevicePrompt:
        self._there(reach)
        code = secrets.token_urlsafe(12)
        return DevicePrompt(device_code=code, user_code="WDJB-MJHT", url=f"{reach.issuer}/device", interval=1.0)

    async def revoke(self, reach: Reach, metadata: Metadata, *, party: Party, token: str) -> None:
        self._there(reach).forget(token)

    def _there(self, reach: Reach) -> FakeIssuer:
        found = self.by_url.get(reach.issuer)
        if found is None or found.down:
            raise self._silent(reach)
        return found

    @staticmethod
    def _silent(reach: Reach) -> DriverError:
        return failed(f"{reach.issuer} cannot be reached")
