"""Keys and certificates of an installation: made once, found again, private, and renewed before they end."""

from __future__ import annotations

import socket
import stat
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import yaml
from cryptography import x509

from bessemer.client import read_kubeconfig
from bessemer.core.errors import Invalid
from bessemer.main import identities
from bessemer.main.settings import Paths, Settings, audit_public_of, heads_of


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "state")


def names(path: Path) -> set[str]:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress))}


def everything(paths: Paths) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in paths.state.rglob("*") if path.is_file()}


def test_what_is_made_is_found_again(paths: Paths) -> None:
    identities.prepare(paths, Settings())
    before = everything(paths)
    identities.prepare(paths, Settings())
    assert everything(paths) == before
    assert set(before) >= {str(paths.ca_certificate), str(paths.ca_key)}


def test_keys_are_their_users_alone(paths: Paths) -> None:
    identities.prepare(paths, Settings())
    identities.write_kubeconfig(paths, Settings())
    private = [paths.ca_key, paths.kubeconfig, *paths.keys.iterdir(), *paths.certs.glob("*.key")]
    assert len(private) >= 7
    for path in private:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    for folder in (paths.state, paths.ca, paths.keys, paths.certs):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder
    assert all(len((paths.keys / name).read_bytes()) == 32 for name in ("seal.key", "gateway.key", "audit.key"))


@pytest.mark.parametrize("left", ["audit.pub", "heads.jsonl"])
def test_a_lost_key_of_the_trail_is_missed_and_not_made_anew(paths: Paths, left: str) -> None:
    identities.prepare(paths, Settings())
    heads_of(paths).touch()
    (paths.keys / "audit.key").unlink()
    for file in (audit_public_of(paths), heads_of(paths)):
        if file.name != left:
            file.unlink()
    with pytest.raises(Invalid, match=rf"audit.key is missing.*{left}.*bring it back"):
        identities.prepare(paths, Settings())
    assert not (paths.keys / "audit.key").exists()


def test_another_address_to_listen_on_gets_a_certificate_for_it(paths: Paths) -> None:
    identities.prepare(paths, Settings())
    server = paths.certificate(identities.SERVER)[0]
    assert {"localhost", "127.0.0.1", "::1"} <= names(server)
    admin = paths.certificate(identities.ADMIN)[0].read_bytes()
    identities.prepare(paths, Settings(listen="192.0.2.7"))
    assert "192.0.2.7" in names(server)
    assert paths.certificate(identities.ADMIN)[0].read_bytes() == admin, "what was good stays"


def test_who_listens_everywhere_has_a_certificate_for_each_address(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on(address: str) -> SimpleNamespace:
        return SimpleNamespace(address=address, family=socket.AF_INET6 if ":" in address else socket.AF_INET)

    link = SimpleNamespace(address="52:54:00:12:34:56", family=socket.AF_PACKET)
    cards = {"lo": [on("127.0.0.1"), on("::1")], "eth0": [link, on("192.0.2.7"), on("2001:db8::7"), on("fe80::1%eth0")]}
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: cards)
    identities.prepare(paths, Settings(listen="0.0.0.0"))
    for identity in (identities.SERVER, identities.GATEWAY):
        found = names(paths.certificate(identity)[0])
        assert {"localhost", "127.0.0.1", "::1", "192.0.2.7", "2001:db8::7"} == found - {socket.gethostname()}


def test_one_that_ends_soon_is_made_anew_and_so_is_one_that_is_none(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identities, "_YEAR_SECONDS", 29 * 86_400.0)
    identities.prepare(paths, Settings())
    short = paths.certificate(identities.GATEWAY)[0].read_bytes()
    paths.certificate(identities.ADMIN)[0].write_text("scrap")
    monkeypatch.undo()
    identities.prepare(paths, Settings())
    assert paths.certificate(identities.GATEWAY)[0].read_bytes() != short
    x509.load_pem_x509_certificate(paths.certificate(identities.ADMIN)[0].read_bytes())


def test_the_kubeconfig_moves_with_its_directory(paths: Paths, tmp_path: Path) -> None:
    settings = Settings(api_port=1234)
    identities.prepare(paths, settings)
    identities.write_kubeconfig(paths, settings)
    text = paths.kubeconfig.read_text()
    assert str(paths.state) not in text
    assert yaml.safe_load(text)["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:1234"
    moved = paths.state.rename(tmp_path / "moved")
    found = read_kubeconfig(moved / "kubeconfig")
    assert found.ca == (moved / "ca" / "ca.crt").read_bytes()
    assert found.cert is not None


@pytest.mark.parametrize("listen", ["0.0.0.0", "::"])
def test_who_listens_everywhere_is_reached_here(listen: str) -> None:
    urls = identities.urls(Settings(listen=listen, api_port=1, portal_port=2, gateway_port=3))
    assert urls == {
        "api": "https://127.0.0.1:1",
        "portal": "https://127.0.0.1:2",
        "gateway": "https://127.0.0.1:3/v1",
    }


def test_who_listens_at_an_ipv6_address_is_reached_there(paths: Paths) -> None:
    settings = Settings(listen="::1", api_port=1, portal_port=2, gateway_port=3)
    assert identities.urls(settings) == {
        "api": "https://[::1]:1",
        "portal": "https://[::1]:2",
        "gateway": "https://[::1]:3/v1",
    }
    identities.prepare(paths, settings)
    identities.write_kubeconfig(paths, settings)
    kept = yaml.safe_load(paths.kubeconfig.read_text())
    assert kept["clusters"][0]["cluster"]["server"] == "https://[::1]:1"


def test_a_private_file_is_whole_and_never_wider(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    identities.write_private(path, b"one")
    path.chmod(0o644)
    identities.write_private(path, b"two")
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret"]
