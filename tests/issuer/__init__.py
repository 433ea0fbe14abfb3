"""A real OpenID Connect issuer (npm's ``oidc-provider``), in a process of its own on loopback.

Its packages are the tier ``issuer`` of `tests.npm`. Its pages take any password, and ask for consent.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
from joserfc.jwk import RSAKey

from tests.npm import modules, node
from tests.ports import held_port

HERE = Path(__file__).parent
CLIENT, SECRET, PUBLIC = "bessemer", "portal-secret", "bessemer-cli"
PEOPLE = {
    "ada": {"name": "Ada", "email": "ada@example.org", "email_verified": True, "groups": ["staff", "ops"]},
    "rob": {"name": "Rob", "groups": []},
}


def new_key() -> dict[str, Any]:
    """A private key to sign with."""
    return dict(RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"}, auto_kid=True).as_dict(private=True))


def clients(portal_url: str, *, backchannel: str = "") -> list[dict[str, Any]]:
    """The portal, with a secret, and command lines, which have none."""
    portal = {
        "client_id": CLIENT,
        "client_secret": SECRET,
        "redirect_uris": [f"{portal_url}/signin/callback"],
        "post_logout_redirect_uris": [f"{portal_url}/signin"],
        "grant_types": ["authorization_code"],
        "response_types": ["code"],
    }
    if backchannel:
        portal |= {"backchannel_logout_uri": backchannel, "backchannel_logout_session_required": True}
    public = {
        "client_id": PUBLIC,
        "token_endpoint_auth_method": "none",
        "application_type": "native",
        "redirect_uris": ["http://127.0.0.1/callback"],
        "grant_types": ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
        "response_types": ["code"],
    }
    return [portal, public]


class Issuer:
    """One issuer. `start` it, `stop` it; a new start with other ``keys`` is a rotation, and forgets sessions."""

    def __init__(self, directory: Path, *, port: int, ca: Path | None = None) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.keys = [new_key()]
        self.people: Mapping[str, Any] = PEOPLE
        self.clients: Sequence[Mapping[str, Any]] = ()
        self.seconds = 600
        self._port = port
        self._ca = ca
        self._file = directory / "issuer.json"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Return once it listens."""
        told = {"port": self._port, "clients": self.clients, "people": self.people, "keys": self.keys}
        self._file.write_bytes(orjson.dumps({**told, "seconds": self.seconds}))
        folder = (await asyncio.to_thread(modules, "issuer")).parent
        trusted = {"NODE_EXTRA_CA_CERTS": str(self._ca)} if self._ca else {}
        log = self._file.with_suffix(".log")
        with log.open("ab") as errors:
            self._process = await asyncio.create_subprocess_exec(
                str(node()),
                str(HERE / "provider.mjs"),
                str(self._file),
                str(folder),
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "NODE_NO_WARNINGS": "1", **trusted},
            )
        assert self._process.stdout is not None
        async with asyncio.timeout(60):
            while (line := await self._process.stdout.readline()) != b"up\n":
                assert line, log.read_text()

    async def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            await self._process.communicate()
            self._process = None


@asynccontextmanager
async def issuer(
    directory: Path, portal_url: str, *, backchannel: str = "", ca: Path | None = None
) -> AsyncIterator[Issuer]:
    """A started issuer that knows the portal and command lines."""
    with held_port() as port:
        made = Issuer(directory, port=port, ca=ca)
        made.clients = clients(portal_url, backchannel=backchannel)
        try:
            await made.start()
            yield made
        finally:
            await made.stop()
