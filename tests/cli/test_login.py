"""Signing in by a real issuer at a command line: a device's code, a browser here, kubectl's plugin, and out again."""

from __future__ import annotations

import asyncio
import os
import re
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from bessemer.cli.logins import Login, Logins
from bessemer.core.clock import SystemClock
from bessemer.core.errors import Invalid
from bessemer.core.resource import Key
from bessemer.drivers.oidc.real import HttpIssuers
from tests.api.kubectl import binary
from tests.api.world import BASE, named, tenant
from tests.cli.conftest import SRC, Cli, terminal
from tests.issuer import CLIENT, PUBLIC, Issuer, issuer
from tests.issuer.hands import Hands

PORTAL = "https://portal.example.org"


@dataclass
class Desk:
    """A command line, an issuer that its server knows, and where sign-ins are kept."""

    cli: Cli
    issuer: Issuer
    folder: Path

    @property
    def logins(self) -> Logins:
        return Logins.of(self.cli.site.url, folder=self.folder / "logins")

    @property
    def kept(self) -> Login:
        found = self.logins.read()
        assert found is not None
        return found

    def sign_in(self, *, user: str = "ada", device: bool = True) -> str:
        """What the command says at its end."""
        with self.cli.start("login", *(["--device"] if device else ["--no-browser"])) as command:
            assert command.stderr is not None
            line = command.stderr.readline().decode()
            url = re.findall(r"https?://\S+", line)
            assert url, line
            back = asyncio.run(_agree(user, url[0], line.rpartition(": ")[2].strip()))
            if not device:
                with urllib.request.urlopen(back, timeout=60) as answer:
                    assert b"Go back to the terminal" in answer.read()
            out, err = command.communicate(timeout=60)
            assert command.returncode == 0, err
            return out.decode()

    def kubectl(self, *words: str) -> subprocess.CompletedProcess[str]:
        """kubectl, with the kubeconfig that we printed."""
        program = self.folder / "bessemer"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bessemer "$@"\n')
        program.chmod(0o755)
        printed = self.cli("kubeconfig", "--oidc", "--command", str(program))
        assert printed.code == 0, printed.err
        config = self.folder / "for-kubectl"
        config.write_text(printed.raw)
        command = [str(binary()), "--kubeconfig", str(config), "--cache-dir", str(self.folder / "cache"), *words]
        env = {**os.environ, "PYTHONPATH": str(SRC)}
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


async def _agree(user: str, url: str, code: str) -> str:
    async with Hands(user) as hands:
        return await hands.agree(url, user_code=code)


@pytest.fixture(scope="module")
def d(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder: Path = tmp_path_factory.mktemp("login")
    with pytest.MonkeyPatch.context() as patch, terminal(folder, SystemClock(), issuers=HttpIssuers()) as cli:
        patch.setenv("BESSEMER_LOGINS", str(folder / "logins"))
        with cli.beside(issuer(folder, PORTAL)) as started:
            oidc: dict[str, Any] = {"issuer": started.url, "clientId": CLIENT, "cliClientId": PUBLIC}
            oidc |= {"allowPrivateAddress": True, "allowLoopbackHttp": True}
            oidc["scopes"] = ["openid", "profile", "groups"]
            cli.do(lambda w: w.create(f"{BASE}/identityproviders", named("corp", oidc=oidc)))
            cli.do(lambda w: w.create(f"{BASE}/tenants", tenant("nord", **{"corp.ada": "member"})))
            cli.do(lambda w: w.create(f"{BASE}/projects", named("nord--lab")))
            yield Desk(cli, started, folder)


@pytest.mark.real
def test_by_a_device_and_then_every_command_is_theirs(d: Desk) -> None:
    assert d.sign_in() == "signed in as corp.ada by corp\n"
    assert stat.S_IMODE(d.logins.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(d.logins.path.parent.stat().st_mode) == 0o700
    assert d.cli("whoami").out.startswith("corp.ada\n")


@pytest.mark.real
def test_kubectl_signs_in_through_us_and_goes_on_by_itself(d: Desk) -> None:
    if d.logins.read() is None:
        d.sign_in()
    found = d.kubectl("get", "projects", "-o", "name")
    assert (found.returncode, found.stdout) == (0, "project.bessemer.dev/nord--lab\n"), found.stderr
    old = d.kept
    d.logins.write(replace(old, expires=time.time() - 1))
    found = d.kubectl("auth", "whoami", "-o", "jsonpath={.status.userInfo.username} {.status.userInfo.groups}")
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("corp.ada ")
    assert "corp:staff" in found.stdout
    assert d.kept.refresh_token != old.refresh_token or d.kept.id_token != old.id_token
    assert d.kept.expires > time.time()
    d.logins.write(replace(d.kept, expires=0.0, refresh_token="made-up"))
    found = d.kubectl("get", "projects")
    assert found.returncode != 0
    assert "the sign-in is over: bessemer login --provider corp" in found.stderr, "nobody sits there: it says so"
    d.logins.forget()


@pytest.mark.real
def test_by_a_browser_here_and_out_everywhere(d: Desk) -> None:
    assert d.sign_in(device=False) == "signed in as corp.ada by corp\n"
    old = d.kept
    said = d.cli("logout")
    assert (said.code, said.out) == (0, "signed out")
    assert f"signed out at {d.issuer.url}/session/end" in said.err
    assert d.logins.read() is None
    assert d.cli("whoami").out.startswith("admin"), "what the kubeconfig says counts again"
    assert d.cli("--token", old.id_token, "whoami").code == 1, "the token is worth nothing any more"
    d.logins.write(replace(old, expires=0.0))
    assert "the sign-in is over" in d.cli("whoami").err, "nor is the refresh token"
    d.logins.forget()


def test_what_is_kept_is_for_nobody_else(tmp_path: Path) -> None:
    logins = Logins.of("https://api.example.org", folder=tmp_path)
    assert logins == Logins.of("https://api.example.org/", folder=tmp_path)
    assert logins != Logins.of("https://api.example.com", folder=tmp_path)
    assert logins.read() is None
    login = Login(server="s", provider="p", id_token="t", refresh_token="", expires=1.0, issuer="i", client_id="c")
    logins.write(login)
    assert logins.read() == login
    logins.path.chmod(0o644)
    with pytest.raises(Invalid, match="can be read by others"):
        logins.read()
    logins.path.chmod(0o600)
    logins.path.write_text("{")
    with pytest.raises(Invalid, match="cannot be read"):
        logins.read()


@pytest.mark.real
def test_what_is_asked_wrongly(d: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there is no nobody: corp" in d.cli("login", "--provider", "nobody").err
    assert "give one of the two" in d.cli("login", "ada", "--device").err
    assert "nobody is signed in here" in d.cli("logout").err
    assert "--oidc" in d.cli("kubeconfig").err
    for info in ("", "{}", '{"apiVersion":"client.authentication.k8s.io/v1","spec":{}}', '{"apiVersion":"v0"}'):
        monkeypatch.setenv("KUBERNETES_EXEC_INFO", info)
        assert d.cli("kube-credential").code == 1
    spec = {"cluster": {"server": "https://elsewhere.example"}, "interactive": False}
    asked = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "spec": spec}
    monkeypatch.setenv("KUBERNETES_EXEC_INFO", orjson.dumps(asked).decode())
    assert "nobody is signed in" in d.cli("kube-credential").err


@pytest.mark.real
def test_the_kubeconfig_names_no_secret(d: Desk) -> None:
    made = yaml.safe_load(d.cli("kubeconfig", "--oidc").raw)
    assert set(made["users"][0]["user"]) == {"exec"}
    plugin = made["users"][0]["user"]["exec"]
    assert (plugin["interactiveMode"], plugin["provideClusterInfo"]) == ("IfAvailable", True)
    assert plugin["args"] == ["kube-credential", "--provider", "corp"]


@pytest.mark.real
def test_the_secret_is_given_as_the_papers_say(d: Desk) -> None:
    path = f"{BASE}/identityproviders/corp/clientsecret"
    command = [str(binary()), "--kubeconfig", str(d.cli.kubeconfig), "create", "--raw", path, "-f", "-"]
    said = subprocess.run(command, input=b'{"secret": "new"}', capture_output=True, timeout=60, check=False)
    assert said.returncode == 0, said.stderr
    uid = d.cli.do(lambda w: w.store.objects.get(Key("IdentityProvider", "", "corp"))).uid
    assert d.cli.do(lambda w: w.store.sealed.get(uid, "client-secret")) == b"new"


def test_a_page_that_answers_another_sign_in_is_refused() -> None:
    from bessemer.cli.signon import _Listener
    from bessemer.core.errors import Unauthenticated
    from bessemer.drivers.oidc.pkce import Attempt
    from bessemer.drivers.oidc.protocol import Metadata

    async def judged(*lines: str) -> list[str]:
        metadata = Metadata(issuer="https://i", authorization="a", token="t", jwks="j", says_issuer=True)
        back: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        listener = _Listener(Attempt("state", "nonce", "verifier"), metadata, back=back)
        codes = [listener._judged(line)[0][:3] for line in lines]
        if back.done():
            with pytest.raises(Unauthenticated):
                back.result()
            codes.append("refused")
        return codes

    wrong = ("GET /callback?state=other&code=x&iss=https://i HTTP/1.1", "GET /callback?code=x HTTP/1.1")
    odd = ("POST /callback?state=state&code=x HTTP/1.1", "GET / HTTP/1.1", "", "GET /callback?state=ä HTTP/1.1")
    assert asyncio.run(judged(*wrong, *odd)) == ["400", "400", "404", "404", "404", "400"]
    other = "GET /callback?state=state&code=x&iss=https://evil HTTP/1.1"
    assert asyncio.run(judged(other)) == ["200", "refused"]
    assert asyncio.run(judged("GET /callback?state=state&code=x HTTP/1.1")) == ["200", "refused"], "no iss at all"
