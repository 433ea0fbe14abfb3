"""Bearers and sign-ins of two real issuers at once, with the same people and the same client: each has its prefix."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_asyncio

from bessemer.core.clock import SystemClock
from bessemer.drivers.oidc.keyring import ASK_SECONDS
from bessemer.drivers.oidc.pkce import attempt, authorization_url
from bessemer.drivers.oidc.protocol import Party, Reach
from bessemer.drivers.oidc.real import HttpIssuers
from tests.api.world import BASE, World, named, tenant, world
from tests.issuer import CLIENT, SECRET, Issuer, issuer, new_key
from tests.issuer.hands import Hands

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

PORTAL = "https://portal.example.org"
CALLBACK = f"{PORTAL}/signin/callback"
SCOPES = ["openid", "profile", "groups"]
PREFIXES = {"corp": "corp", "partner": "guest"}
REVIEW = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}


class Ahead(SystemClock):
    """The machine's clock, as it will be some seconds later."""

    seconds = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.seconds


@dataclass
class Two:
    w: World
    clock: Ahead
    issuers: dict[str, Issuer]
    session: str = ""
    """That a code of corp's began."""

    async def bearer(self, name: str) -> str:
        """What the issuer signs for ada, asked for past our api."""
        http, reach = HttpIssuers(), Reach(issuer=self.issuers[name].url, private=True, plain=True)
        metadata, made = await http.metadata(reach), attempt()
        url = authorization_url(metadata, made, client_id=CLIENT, redirect_uri=CALLBACK, scope=" ".join(SCOPES))
        form = {"grant_type": "authorization_code", "code": await code_of(url), "redirect_uri": CALLBACK}
        party = Party(client_id=CLIENT, secret=SECRET)
        tokens = await http.grant(reach, metadata, party=party, form={**form, "code_verifier": made.verifier})
        return tokens.id_token

    async def agreed(self, name: str) -> dict[str, str]:
        """What ada's browser brings back from the issuer to our door."""
        begun = (await self.w.call("POST", f"/login/providers/{name}/attempt", {}, peer=None)).json
        return {"code": await code_of(begun["url"]), "verifier": begun["verifier"], "nonce": begun["nonce"]}

    async def code(self, token: str, path: str = "/whoami") -> int:
        return (await self.w.call("GET", path, token=token)).code


async def code_of(url: str) -> str:
    async with Hands("ada") as ada:
        return parse_qs(urlsplit(await ada.agree(url)).query)["code"][0]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def two(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Two]:
    clock, issuers = Ahead(), dict[str, Issuer]()
    async with AsyncExitStack() as stack:
        w = await stack.enter_async_context(world(clock, people=False, issuers=HttpIssuers(), portal_url=PORTAL))
        for name, prefix in PREFIXES.items():
            made = await stack.enter_async_context(issuer(tmp_path_factory.mktemp(name), PORTAL))
            issuers[name] = made
            reach = {"issuer": made.url, "allowPrivateAddress": True, "allowLoopbackHttp": True}
            oidc = {**reach, "clientId": CLIENT, "scopes": SCOPES}
            more = {} if prefix == name else {"prefix": prefix}
            await w.create(f"{BASE}/identityproviders", named(name, oidc=oidc, **more))
            path = f"{BASE}/identityproviders/{name}/clientsecret"
            assert (await w.call("POST", path, {"secret": SECRET})).code == 200
        yield Two(w, clock, issuers)


async def test_one_subject_of_two_issuers_is_two_people(two: Two) -> None:
    await two.w.create(f"{BASE}/tenants", tenant("nord", **{"corp.ada": "member"}))
    bound = {"role": "reader", "subjects": [{"kind": "Group", "name": "guest:staff"}], "scope": {"tenant": "nord"}}
    await two.w.create(f"{BASE}/projects", named("nord--lab"))
    tokens = {name: await two.bearer(name) for name in PREFIXES}
    for name, prefix in PREFIXES.items():
        reply = await two.w.call("POST", f"/apis/{REVIEW['apiVersion']}/selfsubjectreviews", REVIEW, token=tokens[name])
        who = reply.json["status"]["userInfo"]
        assert who["username"] == f"{prefix}.ada"
        groups = [group for group in who["groups"] if not group.startswith("system:")]
        assert groups == [f"{prefix}:ops", f"{prefix}:staff"]
    lab = f"{BASE}/namespaces/nord--lab/instances"
    assert [await two.code(token, lab) for token in tokens.values()] == [200, 404]
    await two.w.create(f"{BASE}/rolebindings", named("nord--guests", **bound))
    assert [await two.code(token, lab) for token in tokens.values()] == [200, 200]


async def test_a_code_of_one_is_no_code_of_the_other(two: Two) -> None:
    said = await two.agreed("corp")
    assert (await two.w.call("POST", "/login/providers/partner", said, peer=None)).code == 401
    reply = await two.w.call("POST", "/login/providers/corp", said, peer=None)
    assert (reply.code, reply.json["user"]) == (201, "corp.ada")
    two.session = reply.json["token"]


async def test_keys_rotate_and_nobody_says_so(two: Two) -> None:
    """A new key is looked for once it is met; what the old one signed is worth nothing from then on."""
    old, other = await two.bearer("partner"), await two.bearer("corp")
    assert await two.code(old) == 200
    at = two.issuers["partner"]
    await at.stop()
    at.keys = [new_key()]
    await at.start()
    two.clock.seconds += ASK_SECONDS
    new = await two.bearer("partner")
    assert await two.code(old) == 200, "nobody has asked the issuer yet"
    assert [await two.code(token) for token in (new, old, other)] == [200, 401, 200]
    reply = await two.w.call("POST", "/login/providers/partner", await two.agreed("partner"), peer=None)
    assert (reply.code, reply.json["user"]) == (201, "guest.ada")


async def test_who_signs_out_by_a_bearer_leaves_the_portal_by_that_issuer_and_no_other(two: Two) -> None:
    bearer, other = await two.bearer("corp"), await two.bearer("partner")
    assert [await two.code(token) for token in (two.session, bearer, other)] == [200, 200, 200]
    assert (await two.w.call("DELETE", "/login", token=bearer)).code == 200
    assert [await two.code(token) for token in (two.session, bearer, other)] == [401, 401, 200]
