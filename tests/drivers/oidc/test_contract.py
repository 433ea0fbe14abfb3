"""What any `Issuers` does: the fake, and the real one against a real issuer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_asyncio

from bessemer.core.clock import SystemClock
from bessemer.core.errors import DriverError
from bessemer.drivers.oidc import verify
from bessemer.drivers.oidc.fake import FakeIssuer, FakeIssuers
from bessemer.drivers.oidc.pkce import attempt, authorization_url
from bessemer.drivers.oidc.protocol import (
    ALGORITHMS,
    DEVICE_GRANT,
    DevicePrompt,
    GrantRefused,
    Issuers,
    Party,
    Reach,
)
from bessemer.drivers.oidc.real import HttpIssuers
from tests.issuer import CLIENT, PUBLIC, SECRET, Issuer, issuer
from tests.issuer.hands import Hands

PORTAL = "https://portal.example.org"
CALLBACK = f"{PORTAL}/signin/callback"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class Bench:
    issuers: Issuers
    reach: Reach
    fake: FakeIssuer | None = None
    real: Issuer | None = None

    async def code(self, url: str) -> str:
        """What somebody who agrees brings back from the URL."""
        if self.fake is not None:
            query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
            return self.fake.agree("ada", query)
        async with Hands("ada") as ada:
            return parse_qs(urlsplit(await ada.agree(url)).query)["code"][0]

    async def approve(self, prompt: DevicePrompt) -> None:
        if self.fake is not None:
            self.fake.approve(prompt, "ada")
        else:
            async with Hands("ada") as ada:
                await ada.agree(prompt.url_complete, user_code=prompt.user_code)

    async def claims(self, token: str, audience: str) -> dict[str, object]:
        metadata = await self.issuers.metadata(self.reach)
        keys = verify.keys_of(await self.issuers.keys(self.reach, metadata))
        rules = verify.Rules(issuer=self.reach.issuer, algorithms=metadata.algorithms, audiences=frozenset({audience}))
        return dict(verify.verified(verify.read(token), keys, rules=rules, now=SystemClock().now()))


@pytest_asyncio.fixture(
    loop_scope="module", scope="module", params=["fake", pytest.param("real", marks=pytest.mark.real)]
)
async def b(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    if request.param == "fake":
        people = {"ada": {"preferred_username": "ada", "groups": ["staff", "ops"]}}
        made = FakeIssuer("https://id.example.org", SystemClock(), people=people)
        made.clients = {CLIENT: SECRET, PUBLIC: ""}
        yield Bench(FakeIssuers(made), Reach(issuer=made.url), fake=made)
        return
    folder: Path = tmp_path_factory.mktemp("issuer")
    async with issuer(folder, PORTAL) as started:
        reach = Reach(issuer=started.url, private=True, plain=True)
        yield Bench(HttpIssuers(), reach, real=started)


async def test_what_it_says_of_itself(b: Bench) -> None:
    metadata = await b.issuers.metadata(b.reach)
    assert metadata.issuer == b.reach.issuer
    assert all((metadata.authorization, metadata.token, metadata.jwks, metadata.device, metadata.end_session))
    assert set(metadata.algorithms) <= set(ALGORITHMS)
    assert metadata.says_issuer
    keys = verify.keys_of(await b.issuers.keys(b.reach, metadata))
    assert [one.kid for one in keys if one.kid]


async def test_a_code_is_good_once_and_for_its_verifier_alone(b: Bench) -> None:
    metadata = await b.issuers.metadata(b.reach)
    party = Party(client_id=CLIENT, secret=SECRET)
    made = attempt()

    async def form(verifier: str) -> dict[str, str]:
        scope = "openid profile groups"
        url = authorization_url(metadata, made, client_id=CLIENT, redirect_uri=CALLBACK, scope=scope)
        code = await b.code(url)
        grant = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK}
        return {**grant, "code_verifier": verifier}

    with pytest.raises(GrantRefused) as refused:
        await b.issuers.grant(b.reach, metadata, party=party, form=await form("another" * 8))
    assert refused.value.code == "invalid_grant"
    good = await form(made.verifier)
    with pytest.raises(GrantRefused) as refused:
        await b.issuers.grant(b.reach, metadata, party=replace(party, secret="wrong"), form=good)
    assert refused.value.code == "invalid_client"
    good = await form(made.verifier)
    tokens = await b.issuers.grant(b.reach, metadata, party=party, form=good)
    claims = await b.claims(tokens.id_token, CLIENT)
    assert (claims["sub"], claims["preferred_username"]) == ("ada", "ada")
    assert (claims["nonce"], claims["groups"]) == (made.nonce, ["staff", "ops"])
    with pytest.raises(GrantRefused):
        await b.issuers.grant(b.reach, metadata, party=party, form=good)


async def test_a_device_waits_until_somebody_agrees_and_goes_on_by_a_refresh_token(b: Bench) -> None:
    metadata = await b.issuers.metadata(b.reach)
    party = Party(client_id=PUBLIC)
    prompt = await b.issuers.device(b.reach, metadata, party=party, scope="openid profile groups offline_access")
    assert prompt.user_code
    form = {"grant_type": DEVICE_GRANT, "device_code": prompt.device_code}
    with pytest.raises(GrantRefused) as refused:
        await b.issuers.grant(b.reach, metadata, party=party, form=form)
    assert refused.value.code == "authorization_pending"
    await b.approve(prompt)
    tokens = await b.issuers.grant(b.reach, metadata, party=party, form=form)
    assert (await b.claims(tokens.id_token, PUBLIC))["sub"] == "ada"
    again = {"grant_type": "refresh_token", "refresh_token": tokens.refresh_token}
    fresh = await b.issuers.grant(b.reach, metadata, party=party, form=again)
    assert (await b.claims(fresh.id_token, PUBLIC))["sub"] == "ada"
    await b.issuers.revoke(b.reach, metadata, party=party, token=fresh.refresh_token)
    with pytest.raises(GrantRefused) as refused:
        await b.issuers.grant(b.reach, metadata, party=party, form={**again, "refresh_token": fresh.refresh_token})
    assert refused.value.code == "invalid_grant"


async def test_one_that_is_not_there_is_told_in_words(b: Bench) -> None:
    nobody = replace(b.reach, issuer="http://127.0.0.1:9" if b.real else "https://nobody.example.org")
    with pytest.raises(DriverError, match="cannot be reached") as error:
        await b.issuers.metadata(nobody)
    assert error.value.reason == "IssuerFailed"
