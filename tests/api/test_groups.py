"""Roles bound to groups of a real issuer and a real directory: who is in one may what it gives, and no longer once they
are out of it and that is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from bessemer.core.clock import settle
from bessemer.drivers.ldap.real import LibLdap
from bessemer.drivers.oidc.protocol import DEVICE_GRANT, Party, Reach
from bessemer.drivers.oidc.real import HttpIssuers
from tests.api.test_ldap import enter, site
from tests.api.world import BASE, PASSWORD, World, instance, named, tenant, world
from tests.drivers.ldap import slapd
from tests.issuer import CLIENT, PUBLIC, Issuer, issuer
from tests.issuer.hands import Hands

pytestmark = pytest.mark.real

LAB = f"{BASE}/namespaces/nord--lab/instances"


async def bind(w: World, group: str) -> None:
    """A tenant, a project, and the role of a member there for whoever is in the group."""
    await w.create(f"{BASE}/tenants", tenant("nord"))
    await w.create(f"{BASE}/projects", named("nord--lab"))
    subjects = [{"kind": "Group", "name": group}]
    scope = {"project": "nord--lab"}
    await w.create(f"{BASE}/rolebindings", named("nord--ops", role="member", subjects=subjects, scope=scope))
    await settle()


async def may(w: World, token: str) -> tuple[int, int]:
    """The codes of a list, and of something new."""
    listed = await w.call("GET", LAB, token=token)
    return listed.code, (await w.call("POST", f"{LAB}?dryRun=All", instance("vm"), token=token)).code


async def bearer(at: Issuer, who: str) -> str:
    """What the issuer signs for somebody who signs in by a device."""
    issuers, reach, party = HttpIssuers(), Reach(issuer=at.url, private=True, plain=True), Party(client_id=PUBLIC)
    metadata = await issuers.metadata(reach)
    prompt = await issuers.device(reach, metadata, party=party, scope="openid profile groups")
    async with Hands(who) as person:
        await person.agree(prompt.url_complete, user_code=prompt.user_code)
    form = {"grant_type": DEVICE_GRANT, "device_code": prompt.device_code}
    return (await issuers.grant(reach, metadata, party=party, form=form)).id_token


async def test_who_is_in_a_group_of_an_issuer_may_what_is_bound_to_it(tmp_path: Path) -> None:
    """A bearer says its groups until it ends, ten minutes here; the next one says them as they are. The binding itself
    counts from its next change."""
    async with issuer(tmp_path, "https://portal.example.org") as peer, world(issuers=HttpIssuers()) as w:
        oidc = {"issuer": peer.url, "clientId": CLIENT, "cliClientId": PUBLIC}
        oidc |= {"allowPrivateAddress": True, "allowLoopbackHttp": True}
        await w.create(f"{BASE}/identityproviders", named("corp", oidc=oidc))
        await bind(w, "corp:ops")
        before = await bearer(peer, "ada")
        assert await may(w, before) == (200, 201)
        assert await may(w, await bearer(peer, "rob")) == (404, 404)
        await peer.stop()
        peer.people = {"ada": {"groups": ["staff"]}}
        await peer.start()
        assert await may(w, await bearer(peer, "ada")) == (404, 404)
        assert await may(w, before) == (200, 201), "it was signed while she was in the group, and has not ended"
        assert (await w.call("DELETE", f"{BASE}/rolebindings/nord--ops")).code == 200
        await settle()
        assert await may(w, before) == (404, 404)


async def test_who_is_in_a_group_within_a_group_of_a_directory_may_what_is_bound_to_it(tmp_path: Path) -> None:
    """Groups are asked for as somebody signs in: what is withdrawn is noticed at the next time, which is never further
    away than the end of the session."""
    groups = {"ops": [slapd.dn_of("ada")], "staff": [slapd.group_of("ops")]}
    with slapd.running(tmp_path, {"ada": PASSWORD, "rob": PASSWORD}, groups) as server:
        async with site(LibLdap(), slapd.SECRET, url=server.ldaps, caBundle=server.authorities) as w:
            await bind(w, "corp:staff")
            _, before, _ = await enter(w, "corp.ada")
            assert await may(w, before) == (200, 201)
            assert await may(w, (await enter(w, "corp.rob"))[1]) == (404, 404)
            server.let_in("ops", [slapd.dn_of("rob")])
            assert await may(w, (await enter(w, "corp.ada"))[1]) == (404, 404)
            assert await may(w, (await enter(w, "corp.rob"))[1]) == (200, 201)
            assert await may(w, before) == (200, 201), "as it was when she signed in"
            w.clock.jump(12 * 3600 + 1)  # type: ignore[attr-defined]
            assert await may(w, before) == (401, 401)
