"""Settings: the file, the environment over it, flags over both; and what is wrong said by name."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bessemer.core.errors import Invalid
from bessemer.main.settings import Paths, Settings, free, load, save, state_directory, with_kept_ports, with_ports


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"BESSEMER_{name.upper()}", raising=False)
    return Paths(tmp_path)


def write(paths: Paths, **values: object) -> None:
    paths.settings.write_text(json.dumps(values))


def test_without_a_file_the_defaults_hold(paths: Paths) -> None:
    assert load(paths) == Settings()


def test_flags_win_over_the_environment_which_wins_over_the_file(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    write(paths, apiPort=1, portalPort=1, gatewayPort=1, site="cellar")
    monkeypatch.setenv("BESSEMER_PORTAL_PORT", "2")
    monkeypatch.setenv("BESSEMER_GATEWAY_PORT", "2")
    found = load(paths, gateway_port=3, fake_hosts=None)
    assert (found.api_port, found.portal_port, found.gateway_port) == (1, 2, 3)
    assert (found.site, found.fake_hosts) == ("cellar", 0)


def test_what_is_saved_is_read(paths: Paths) -> None:
    given = Settings(site="cellar", fake_hosts=7, lease_seconds=6.5)
    save(paths, given)
    assert load(paths) == given
    assert json.loads(paths.settings.read_text())["leaseSeconds"] == 6.5, "as people write JSON"
    assert [path.name for path in paths.state.iterdir()] == ["settings.json"]


@pytest.mark.parametrize("text", ["{", "[]", "3", '"x"', "", "\xff\xfe"])
def test_a_file_that_is_none_is_named(paths: Paths, text: str) -> None:
    paths.settings.write_bytes(text.encode("latin-1"))
    with pytest.raises(Invalid, match=r"settings\.json"):
        load(paths)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("apiPort", 70_000),
        ("apiPort", "many"),
        ("leaseSeconds", 0),
        ("workers", 0),
        ("overcommitMilli", 10),
        ("keepRevisions", 1),
        ("apiprot", 7443),
    ],
)
def test_a_wrong_value_is_named_with_its_field(paths: Paths, field: str, value: object) -> None:
    write(paths, **{field: value})
    with pytest.raises(Invalid, match=f"setting {field}: ") as refused:
        load(paths)
    assert str(paths.settings) in refused.value.message


def test_a_wrong_variable_is_named_with_its_field(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BESSEMER_WORKERS", "none")
    with pytest.raises(Invalid, match=r"setting workers: .*BESSEMER_"):
        load(paths)


def test_the_state_directory_is_given_or_of_the_environment_or_of_the_user(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("BESSEMER_STATE", raising=False)
    assert state_directory(None) == tmp_path / ".bessemer"
    monkeypatch.setenv("BESSEMER_STATE", "~/other")
    assert state_directory(None) == tmp_path / "other"
    assert state_directory("/srv/x") == Path("/srv/x")
    monkeypatch.chdir(tmp_path)
    assert state_directory("y") == tmp_path / "y"


# --- ports ------------------------------------------------------------------------------------------------------


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    yield listener
    listener.close()


def test_a_port_of_zero_is_chosen_and_no_two_are_the_same() -> None:
    found = with_ports(Settings(api_port=0, portal_port=0, gateway_port=0), find_free=False)
    ports = {found.api_port, found.portal_port, found.gateway_port}
    assert len(ports) == 3
    assert all(free("127.0.0.1", port) for port in ports)


def test_a_taken_port_is_refused_with_the_flag_that_helps(taken: socket.socket) -> None:
    port = taken.getsockname()[1]
    settings = Settings(api_port=0, portal_port=0, gateway_port=port)
    with pytest.raises(Invalid, match=rf"127\.0\.0\.1:{port} is in use by another program.*--gateway-port, or 0"):
        with_ports(settings, find_free=False)


def test_a_port_that_another_installation_has_is_said_to_be_its(tmp_path: Path) -> None:
    program = (
        "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    )
    words = [sys.executable, "-c", program, "bessemer.main.part", "server", "--state", str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        settings = Settings(api_port=int(other.stdout.readline()), portal_port=0, gateway_port=0)
        with pytest.raises(Invalid, match=rf"is in use by the Bessemer of {tmp_path}; choose another"):
            with_ports(settings, find_free=False)
        other.communicate("\n", 60)


def test_at_the_first_start_a_taken_port_is_passed_over(taken: socket.socket) -> None:
    port = taken.getsockname()[1]
    found = with_ports(Settings(api_port=port, portal_port=0, gateway_port=0), find_free=True)
    assert found.api_port != port
    assert free("127.0.0.1", found.api_port)


def test_a_port_of_0_is_what_it_was_before(tmp_path: Path) -> None:
    paths, given = Paths(tmp_path), Settings(api_port=0, portal_port=0, gateway_port=5)
    assert with_kept_ports(paths, given) == given
    save(paths, Settings(api_port=1, portal_port=2, gateway_port=3))
    kept = with_kept_ports(paths, given)
    assert (kept.api_port, kept.portal_port, kept.gateway_port) == (1, 2, 5)


@pytest.mark.parametrize("listen", ["::1", "::"])
def test_an_ipv6_address_to_listen_on(listen: str) -> None:
    found = with_ports(Settings(listen=listen, api_port=0, portal_port=0, gateway_port=0), find_free=False)
    with socket.socket(socket.AF_INET6) as other:
        other.bind(("::1", found.api_port))
        other.listen()
        assert not free(listen, found.api_port)
        with pytest.raises(Invalid, match=rf"\[{listen}\]:{found.api_port} is in use by another program"):
            with_ports(found, find_free=False)
    assert free(listen, found.portal_port)
