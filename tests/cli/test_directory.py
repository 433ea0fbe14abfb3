"""``bessemer login`` with the password of a directory: a real slapd, by TLS."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from bessemer.core.clock import SystemClock
from bessemer.drivers.ldap.real import LibLdap
from tests.api.world import BASE, PASSWORD
from tests.cli.conftest import terminal
from tests.drivers.ldap import slapd


@pytest.mark.real
def test_somebody_of_a_directory_signs_in(tmp_path: Path) -> None:
    with (
        slapd.running(tmp_path, {"ada": PASSWORD}, {"ops": [slapd.dn_of("ada")]}) as server,
        terminal(tmp_path, SystemClock(), directories=LibLdap()) as cli,
    ):
        ldap = {"url": server.ldaps, "caBundle": server.authorities, "bindDn": slapd.US, "userBase": slapd.PEOPLE}
        manifest = tmp_path / "corp.json"
        kind = {"apiVersion": "bessemer.dev/v1alpha1", "kind": "IdentityProvider", "metadata": {"name": "corp"}}
        manifest.write_bytes(orjson.dumps({**kind, "spec": {"ldap": {**ldap, "groupBase": slapd.GROUPS}}}))
        assert cli("apply", "-f", str(manifest)).code == 0
        path = f"{BASE}/identityproviders/corp/clientsecret"
        assert cli.do(lambda w: w.call("POST", path, {"secret": slapd.SECRET})).code == 200
        wrong = cli("login", "corp.ada", stdin="wrong wrong wrong\n")
        assert (wrong.code, "wrong user or password" in wrong.err) == (1, True)
        token = cli("login", "corp.ada", stdin=f"{PASSWORD}\n").raw.strip()
        assert token.startswith("bss_")
        me = cli("--token", token, "whoami")
        assert (me.code, "corp.ada" in me.raw) == (0, True)
        assert PASSWORD not in server.log.read_text()
