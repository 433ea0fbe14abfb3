"""Up and down: who holds a state directory, what is said where nothing can be done, and what the local host is."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from bessemer.cli.verbs import AgentOptions, ServerOptions, UpOptions
from bessemer.client import from_kubeconfig
from bessemer.core.errors import Conflict, Invalid
from bessemer.core.resource import Key
from bessemer.kinds.fleet.host import Host
from bessemer.main.agent import run_agent
from bessemer.main.down import down, stop_all
from bessemer.main.server import serve_parts
from bessemer.main.settings import Paths, fake_host_name, host_name
from bessemer.main.up import LOCK, UP, held, up
from tests.main.starting import is_up, start, until


@pytest.fixture
def paths(state_dir: Path) -> Paths:
    return Paths(state_dir)


def test_one_supervisor_holds_a_directory_at_a_time(paths: Paths) -> None:
    with held(paths), pytest.raises(Conflict, match=r"is up already; `bessemer down --state .*` stops it"), held(paths):
        raise AssertionError("two hold it")
    with held(paths):
        assert (paths.state / LOCK).read_text().split() == [str(os.getpid())]


@pytest.mark.parametrize("detach", [False, True])
def test_up_where_it_is_up_says_what_stops_it(paths: Paths, detach: bool) -> None:
    with held(paths), pytest.raises(Conflict, match=r"is up already; `bessemer down --state .*` stops it"):
        up(UpOptions(state=paths.state, detach=detach))


def test_the_lock_says_once_everything_is_up(paths: Paths) -> None:
    (paths.state / LOCK).write_text("1234567890 up, says somebody who was killed")
    with held(paths) as tell:
        assert (paths.state / LOCK).read_text() == f"{os.getpid()} "
        tell()
        assert (paths.state / LOCK).read_text() == f"{os.getpid()} {UP}"


def test_down_where_nothing_was_ever_started(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert down(tmp_path / "none") == 0
    assert "Nothing was ever started" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


async def test_down_where_nothing_runs_any_more(paths: Paths) -> None:
    with held(paths):
        pass
    paths.agent.mkdir()
    assert await stop_all(paths) == []
    assert await stop_all(paths) == []


async def test_down_asks_no_process_that_only_had_the_number(paths: Paths) -> None:
    """A pid in a lock that nobody holds is a hint of the past: this very process would be asked to end."""
    (paths.state / LOCK).write_text(str(os.getppid()))
    assert await stop_all(paths) == []


@pytest.mark.parametrize("parts", [(), ("api", "scheduler"), ("",)])
def test_a_part_that_there_is_not_is_refused_with_those_that_there_are(paths: Paths, parts: tuple[str, ...]) -> None:
    with pytest.raises(Invalid, match="there are: api, controller, portal, gateway"):
        serve_parts(ServerOptions(state=paths.state, parts=parts))


def test_an_agent_that_trusts_nobody_says_what_it_needs(paths: Paths) -> None:
    with pytest.raises(Invalid, match="give the authority of the api with --ca"):
        run_agent(AgentOptions(state=paths.state, server="https://127.0.0.1:1", ca=paths.state / "none"))


def test_names_of_hosts() -> None:
    assert fake_host_name(7) == "fake-007"
    name = host_name()
    assert 0 < len(name) <= 63
    assert name == name.lower().strip("-")


@pytest.mark.real
async def test_the_cores_of_the_local_host_are_sold_four_times_by_default(paths: Paths) -> None:
    process = await start(paths)
    try:
        await until(lambda: is_up(paths))
        client = from_kubeconfig(paths.kubeconfig)
        host = Host.model_validate_json((await client.get(Key("Host", "", host_name()))).body)
        await client.close()
    finally:
        process.send_signal(signal.SIGINT)
        await process.wait()
        await stop_all(paths)
    assert host.spec.overcommit_milli == 4000
