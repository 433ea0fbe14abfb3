"""Signing in at the portal's page with the password of a directory: a real slapd, by TLS."""

from __future__ import annotations

import ssl
from pathlib import Path

import aiohttp
import pytest

from bessemer.api import server_tls
from bessemer.drivers.ldap.real import LibLdap
from bessemer.portal import PortalSettings, make_portal
from tests.api.world import BASE, PASSWORD, named, served, tenant, world
from tests.drivers.ldap import slapd
from tests.portal.test_guard import Caller
from tests.portal.town import https


@pytest.mark.real
async def test_somebody_of_a_directory_signs_in_and_sees_their_tenant(tmp_path: Path) -> None:
    with slapd.running(tmp_path, {"ada": PASSWORD}, {"ops": [slapd.dn_of("ada")]}) as server:
        async with world(directories=LibLdap()) as w, served(w, tmp_path) as api:
            place = {"url": server.ldaps, "caBundle": server.authorities, "bindDn": slapd.US, "userBase": slapd.PEOPLE}
            await w.create(f"{BASE}/identityproviders", named("corp", ldap=place))
            path = f"{BASE}/identityproviders/corp/clientsecret"
            assert (await w.call("POST", path, {"secret": slapd.SECRET})).code == 200
            await w.create(f"{BASE}/tenants", tenant("nord", **{"corp.ada": "member"}))
            await w.create(f"{BASE}/projects", named("nord--lab"))
            pair = w.ca.issue("system:portal")
            tls = server_tls(w.ca.issue("portal", sans=["127.0.0.1", "localhost"]), w.ca.certificate)
            tls.verify_mode = ssl.CERT_NONE
            settings = PortalSettings(
                api_url=api.url,
                gateway_url=api.url,
                ca_path=api.path("ca.pem", w.ca.certificate),
                certificate=(api.path("portal.crt", pair.certificate), api.path("portal.key", pair.key)),
            )
            connector = aiohttp.TCPConnector(ssl=False)
            async with (
                https(make_portal(settings), tls) as url,
                aiohttp.ClientSession(url, connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session,
            ):
                ada = Caller(session, url)
                wrong = await ada.sign_in("corp.ada", password="wrong wrong wrong")
                nobody = await ada.sign_in("corp.nobody", password="wrong wrong wrong")
                assert (wrong.status, wrong.body) == (nobody.status, nobody.body.replace(b"corp.nobody", b"corp.ada"))
                assert not ada.cookie
                assert (await ada.sign_in("corp.ada")).status == 303
                page = await ada.get("/overview")
                assert page.status == 200
                assert b"corp.ada" in page.body
                assert b"nord" in page.body
