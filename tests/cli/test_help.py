"""Help is quick and shows the way; verbs that build things get what the flags say; misuse has its own status."""

from __future__ import annotations

import io
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from bessemer.cli.app import build
from bessemer.cli.outcome import explain, status_of
from bessemer.cli.verbs import AgentOptions, DoctorOptions, ServerOptions, UpOptions, Verbs
from bessemer.core import errors
from tests.ports import held_port

SRC = Path(__file__).parents[2] / "src"
HEAVY = ("pydantic", "numpy", "aiohttp", "sqlalchemy", "cryptography", "starlette", "bessemer.kinds", "bessemer.store")
PLAIN = ("host cordon", "host uncordon", "host fence", "host revoke")
"""Commands whose one argument says it all."""


def commands() -> Iterator[tuple[str, object]]:
    """Every command of the tree that is shown, with its words."""

    def walk(command: object, words: tuple[str, ...]) -> Iterator[tuple[str, object]]:
        below = getattr(command, "commands", None)
        if below is None:
            yield " ".join(words), command
            return
        for name, found in below.items():
            yield from walk(found, (*words, name))

    def never(_: object) -> int:
        raise AssertionError

    verbs = Verbs(
        up=never, down=never, server=never, agent=never, demo=never, doctor=never, kubeconfig=lambda _: Path("none")
    )
    yield from walk(get_command(build(verbs)), ())


COMMANDS = dict(commands())


def test_the_verbs_are_all_there() -> None:
    wanted = "get describe diff apply delete events why wait logs console chat invoice up down agent server doctor"
    wanted += " start stop quota login whoami demo"
    assert set(wanted.split()) <= set(COMMANDS)
    groups = {name.partition(" ")[0] for name in COMMANDS if " " in name}
    assert groups == {
        "audit",
        "credential",
        "endpoint",
        "host",
        "key",
        "model",
        "role",
        "rollout",
        "simulate",
        "store",
        "tenant",
        "usage",
        "user",
    }


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - set(PLAIN)))
def test_each_command_shows_an_example(name: str) -> None:
    said = getattr(COMMANDS[name], "help", "")
    assert "Example" in said, f"bessemer {name} --help has no example"
    assert f"`bessemer {name}" in said or f"bessemer {name} " in said, "an example of itself"


def test_each_option_says_what_it_is_for_or_has_a_name_that_does() -> None:
    for name, command in COMMANDS.items():
        for parameter in command.params:  # type: ignore[attr-defined]
            if parameter.param_type_name == "option":
                assert parameter.help or len(parameter.name) > 4, f"{name} --{parameter.name}"


def test_help_imports_nothing_heavy() -> None:
    """In a process of its own, through the console script's door."""
    said = _python(
        "import sys; sys.argv = ['bessemer', '--help']\n"
        "from bessemer.main import main\n"
        "try:\n    main()\nexcept SystemExit as leaving:\n    assert not leaving.code\n"
        f"print(sorted(name for name in {HEAVY!r} if name in sys.modules), file=sys.stderr)"
    )
    assert said.returncode == 0, said.stderr
    assert said.stderr.strip() == "[]"
    assert "bessemer up" in said.stdout


def test_help_is_quick() -> None:
    """The figure (0.25 s) stands in bench/; here only that nobody has made it slow by an order: by what it takes of a
    processor, for how long it takes in all says how busy the machine is."""
    before = _taken()
    assert _python("from bessemer.main import main; main()", "--help").returncode == 0
    assert _taken() - before < 5.0


@pytest.mark.parametrize("words", [(), ("frobnicate",), ("get",), ("user",), ("up", "--api-port", "70000")])
def test_misuse_ends_with_2(words: tuple[str, ...]) -> None:
    assert _status(list(words)) == 2


def test_the_version_is_printed_and_nothing_done() -> None:
    assert _status(["--version"]) == 0


# --- verbs that main builds -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "verb", "options"),
    [
        ("up", "up", UpOptions()),
        ("up --state /x --fake-hosts 3 -d", "up", UpOptions(state=Path("/x"), fake_hosts=3, detach=True)),
        ("up --api-port 0 --portal-port 1", "up", UpOptions(api_port=0, portal_port=1)),
        ("up --store postgresql://db/x", "up", UpOptions(store="postgresql://db/x")),
        ("down --state /x", "down", Path("/x")),
        ("--state /x down", "down", Path("/x")),
        ("--state /y down --state /x", "down", Path("/x")),
        ("server --parts api,gateway", "server", ServerOptions(parts=("api", "gateway"))),
        ("server", "server", ServerOptions()),
        ("server --store postgresql://db/x", "server", ServerOptions(store="postgresql://db/x")),
        ("agent --fake", "agent", AgentOptions(fake=True)),
        (
            "agent --server https://a --ca /ca --name h --token t",
            "agent",
            AgentOptions(server="https://a", ca=Path("/ca"), name="h", token="t"),
        ),
        ("doctor -o json", "doctor", DoctorOptions(output="json")),
    ],
)
def test_flags_become_options(words: str, verb: str, options: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BESSEMER_STATE", raising=False)
    called: list[tuple[str, object]] = []
    assert _status(words.split(), called) == 0
    assert called == [(verb, options)]


def test_the_state_directory_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BESSEMER_STATE", "/srv/b")
    called: list[tuple[str, object]] = []
    _status(["up"], called)
    assert called == [("up", UpOptions(state=Path("/srv/b")))]
    _status(["--state", "/x", "down"], called)
    assert called[1:] == [("down", Path("/x"))], "what is said wins"


def test_a_verbs_status_is_the_commands() -> None:
    assert _status(["down"], status=3) == 3


# --- errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (errors.NotFound("no such thing"), "bessemer get"),
        (errors.Unauthenticated("who?"), "bessemer login"),
        (errors.Forbidden("not you"), "bessemer whoami"),
        (errors.Unavailable("away", retry_after_seconds=7), "7 s"),
        (errors.TooMany("slowly", retry_after_seconds=9), "9 s"),
    ],
)
def test_an_error_is_one_line_and_what_to_do(error: errors.BessemerError, hint: str) -> None:
    first, remedy = explain(error)
    assert first == f"error: {error.message}"
    assert hint in remedy


def test_several_causes_are_named_by_field_and_one_is_not_said_twice() -> None:
    one = errors.Invalid("spec.a: too small", causes=(errors.Cause("spec.a", "too small"),))
    assert explain(one) == ["error: spec.a: too small"]
    two = errors.Invalid("not valid", causes=(errors.Cause("spec.a", "too small"), errors.Cause("spec.b", "too big")))
    assert explain(two) == ["error: not valid", "  spec.a: too small", "  spec.b: too big"]


def test_no_server_is_known(tmp_path: Path) -> None:
    out = io.StringIO()
    before, sys.stderr = sys.stderr, out
    try:
        assert _status(["get", "hosts"], kubeconfig=tmp_path / "kubeconfig") == 1
    finally:
        sys.stderr = before
    assert out.getvalue().startswith("error: no server is known: ")
    assert "bessemer up" in out.getvalue()


@pytest.mark.parametrize("named", [False, True])
def test_a_server_that_nobody_is_at_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, named: bool
) -> None:
    with held_port() as port:
        _check_nobody(tmp_path, capsys, url=f"http://127.0.0.1:{port}", named=named)


def _check_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str], *, url: str, named: bool) -> None:
    config = tmp_path / "kubeconfig"
    place = {"clusters": [{"name": "b", "cluster": {"server": url}}], "current-context": "b"}
    config.write_text(json.dumps({**place, "contexts": [{"name": "b", "context": {"cluster": "b"}}]}))
    words = ["--kubeconfig", str(config)] if named else []
    assert _status([*words, "get", "hosts"], kubeconfig=config) == 1
    way = f" ({config} names it); is it up?" if named else f"; is it up? `bessemer up --state {tmp_path}` starts it"
    assert capsys.readouterr().err == f"error: {url} cannot be reached{way}\n"


def test_a_pipe_that_is_closed_is_no_error() -> None:
    command = f"{sys.executable} -m bessemer --help | head -n 1"
    done = subprocess.run(command, shell=True, env=_environment(), capture_output=True, text=True, check=True)
    assert done.stderr == ""


def _status(
    words: list[str],
    called: list[tuple[str, object]] | None = None,
    *,
    status: int = 0,
    kubeconfig: Path = Path("none"),
) -> int:
    def verb(name: str):  # type: ignore[no-untyped-def]
        def call(options: object) -> int:
            if called is not None:
                called.append((name, options))
            return status

        return call

    names = ("up", "down", "server", "agent", "demo", "doctor")
    app = build(Verbs(**{name: verb(name) for name in names}, kubeconfig=lambda _: kubeconfig))
    assert isinstance(app, typer.Typer)
    return status_of(lambda: app(args=words, prog_name="bessemer"))


def _taken() -> float:
    """Seconds of a processor that programs started here have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SRC)}


def _python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], env=_environment(), capture_output=True, text=True, check=False
    )
