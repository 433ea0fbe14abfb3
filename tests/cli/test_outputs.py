"""The words of ``-o``: the same for every command, none taken for another, and one shape for what is one or many."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import IO

import pytest
import yaml

from bessemer.cli import render
from bessemer.cli.output import FORMATS
from bessemer.cli.work.reasons import reasons
from bessemer.core.errors import Invalid
from bessemer.core.resource import Key
from tests.api.world import PASSWORD
from tests.cli.conftest import PROJECT, Cli, terminal
from tests.cli.test_help import COMMANDS
from tests.cli.test_namesakes import happen
from tests.cli.test_stories import VM, WAITS

PLACE = ("-n", PROJECT)
TOLD = "three hosts are short of two cores, and the fourth has none of the devices that were asked for"


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """A world with two instances of which one waits."""
    with terminal(tmp_path_factory.mktemp("cli")) as made:
        for name in ("vm", "other"):
            assert made("apply", "-f", "-", *PLACE, stdin=VM.replace("name: vm", f"name: {name}")).code == 0
        made.status(Key("Instance", PROJECT, "vm"), **WAITS)
        for name in ("vm", "other"):
            happen(made, name, message=TOLD)
        yield made


def with_output() -> list[str]:
    return [name for name, command in COMMANDS.items() if any(p.name == "output" for p in command.params)]  # type: ignore[attr-defined]


def test_what_answers_with_objects_or_figures_takes_them() -> None:
    assert set(with_output()) >= {"get", "events", "why", "invoice", "quota", "doctor"}


@pytest.mark.parametrize("name", with_output())
def test_an_unknown_word_is_refused_by_name(name: str) -> None:
    (option,) = (p for p in COMMANDS[name].params if p.name == "output")  # type: ignore[attr-defined]
    assert "--output" in option.opts
    assert "-o" in option.opts
    with pytest.raises(Invalid, match="no output is called 'xml'; write table, wide, json"):
        option.process_value(None, "xml")
    for word in FORMATS:
        assert option.process_value(None, word) == word


def test_it_is_refused_before_anything_is_asked(cli: Cli) -> None:
    said = cli("get", "nonsense", "-o", "xml")
    assert (said.code, said.out) == (1, "")
    assert said.err == "error: no output is called 'xml'; write table, wide, json, yaml or name"


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("get", "instance", "vm", *PLACE), None),
        (("get", "instances", "vm", "other", *PLACE), ["vm", "other"]),
        (("get", "instances", *PLACE), ["other", "vm"]),
        (("get", "project", "-l", "none=such"), []),
        (("get", "instances", "-A", "-l", "tier=test"), ["other", "vm"]),
    ],
)
def test_one_that_is_named_is_an_object_and_all_else_a_list(
    cli: Cli, words: tuple[str, ...], names: list[str] | None
) -> None:
    found = json.loads(cli(*words, "-o", "json").raw)
    assert yaml.safe_load(cli(*words, "-o", "yaml").raw) == found
    if names is None:
        assert (found["kind"], found["metadata"]["name"]) == ("Instance", "vm")
    else:
        assert found["kind"] == "List"
        assert [item["metadata"]["name"] for item in found["items"]] == names


def test_a_list_of_one_is_a_list(cli: Cli) -> None:
    found = json.loads(cli("get", "tenants", "-l", "none=such", "-o", "json").raw)
    assert found == {"apiVersion": "v1", "kind": "List", "items": []}
    cli("apply", "-f", "-", stdin=VM.replace("Instance", "Host").partition("spec")[0] + "spec: {}")
    found = json.loads(cli("get", "hosts", "-o", "json").raw)
    assert [item["metadata"]["name"] for item in found["items"]] == ["vm"]


def test_who_set_which_field_is_shown_where_asked_for(cli: Cli) -> None:
    words = ("get", "tenants", "-o", "json")
    bare, whole = (json.loads(cli(*words, *more).raw)["items"] for more in ((), ("--show-managed-fields",)))
    entries = [item["metadata"].pop("managedFields") for item in whole]
    assert all(entry["fieldsType"] == "FieldsV1" for held in entries for entry in held)
    assert whole == bare


def test_events_as_documents(cli: Cli) -> None:
    found = json.loads(cli("events", "instance", "vm", *PLACE, "-o", "json").raw)
    assert [(e["involvedObject"]["name"], e["message"]) for e in found["items"]] == [("vm", TOLD)]
    assert yaml.safe_load(cli("events", "instance", "vm", *PLACE, "-o", "yaml").raw) == found
    none = cli("events", "-n", "other--lab", "-o", "json")
    assert (json.loads(none.raw)["items"], none.err) == ([], "")


def test_why_as_documents(cli: Cli) -> None:
    found = json.loads(cli("why", "instance", "vm", *PLACE, "-o", "json").raw)
    assert found["metadata"] == {"name": "vm", "namespace": PROJECT}
    assert found["remedy"] == WAITS["remedy"]
    assert found["reasons"] == WAITS["reasons"]
    assert [condition["type"] for condition in found["conditions"]] == ["Ready", "Stuck"]
    assert [event["message"] for event in found["events"]] == [TOLD]
    assert found["hosts"] == []
    both = yaml.safe_load(cli("why", "instance", "vm", "other", *PLACE, "-o", "yaml").raw)
    assert both["kind"] == "List"
    assert both["items"][0] == found
    assert [one["metadata"]["name"] for one in both["items"]] == ["vm", "other"]


@pytest.mark.parametrize(
    ("phase", "reason", "words"),
    [
        ("Running", "Running", "It runs: Running: 2 members run"),
        ("Running", "HostSilent", "It waits: HostSilent: 2 members run"),
        ("Failed", "DeadlineExceeded", "It has failed: DeadlineExceeded: 2 members run"),
    ],
)
def test_what_runs_or_has_failed_does_not_wait(phase: str, reason: str, words: str) -> None:
    """A job is Ready once it has ended."""
    ready = {"type": "Ready", "status": "False", "reason": reason, "message": "2 members run"}
    body = {"kind": "Job", "metadata": {"name": "train"}, "status": {"phase": phase, "conditions": [ready]}}
    assert reasons(body, now=0.0)[1:] == [words]


def test_several_kinds_at_once(cli: Cli) -> None:
    """As kubectl has them: a table for each of which there is something, and one list of all as a document."""
    said = cli("get", "projects,instances,inst,endpoints", *PLACE)
    lines = [line.split()[0] for line in said.out.splitlines() if line]
    assert lines == ["NAME", "project/acme--lab", "project/other--lab", "NAME", "instance/other", "instance/vm"]
    assert "\n\nNAME" in said.out
    found = json.loads(cli("get", "instances,projects", *PLACE, "-o", "json").raw)
    kinds = [(one["kind"], one["metadata"]["name"]) for one in found["items"]]
    assert kinds == [("Instance", "other"), ("Instance", "vm"), ("Project", "acme--lab"), ("Project", "other--lab")]
    assert cli("get", "instances,jobs", *PLACE, "-o", "name").out.splitlines() == ["instance/other", "instance/vm"]
    assert cli("get", "endpoints,jobs", *PLACE).err == f"No endpoints, jobs found in {PROJECT}."
    for words in (
        ("instances,jobs/vm",),
        ("instances,gadgets",),
        (",",),
        ("instances,jobs", "vm"),
        ("hosts,jobs", "-w"),
    ):
        assert cli("get", *words, *PLACE).code == 1, words


def test_money_as_documents(cli: Cli) -> None:
    window = (*PLACE, "--since", "2025-06-15", "--until", "2025-06-16")
    bill = json.loads(cli("invoice", *window, "-o", "json").raw)
    assert bill["project"] == PROJECT
    assert yaml.safe_load(cli("invoice", *window, "-o", "yaml").raw) == bill
    meters = json.loads(cli("quota", *PLACE, "-o", "json").raw)["meters"]
    assert {"scope", "meter", "used", "limit"} <= set(meters[0])


def test_wide_folds_nothing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "width", lambda: 70)
    for words in (("events", "instance", "vm"), ("why", "instance", "vm")):
        assert TOLD not in cli(*words, *PLACE).out
        assert TOLD in cli(*words, *PLACE, "-o", "wide").out


# --- what is said as it changes ---


def changed(cli: Cli, name: str, phase: str) -> None:
    cli.status(Key("Instance", PROJECT, name), phase=phase)


def test_a_watch_is_of_what_is_named(cli: Cli) -> None:
    changed(cli, "vm", "Pending")
    with cli.start("get", "instance", "vm", *PLACE, "-w") as watch:
        assert watch.stdout is not None
        assert watch.stdout.readline().split()[0] == b"NAME"
        assert watch.stdout.readline().split()[:2] == [b"vm", b"Pending"]
        changed(cli, "other", "Booting")
        changed(cli, "vm", "Running")
        assert watch.stdout.readline().split()[:2] == [b"vm", b"Running"]


def test_a_watch_of_some_is_of_these(cli: Cli) -> None:
    assert cli("apply", "-f", "-", *PLACE, stdin=VM.replace("name: vm", "name: third")).code == 0
    with cli.start("get", "instance", "vm", "third", *PLACE, "-w", "-o", "name") as watch:
        assert watch.stdout is not None
        assert {watch.stdout.readline() for _ in range(2)} == {b"instance/vm\n", b"instance/third\n"}
        changed(cli, "other", "Running")
        changed(cli, "third", "Running")
        assert watch.stdout.readline() == b"instance/third\n"


def test_a_watch_of_what_is_not_there_says_so(cli: Cli) -> None:
    with cli.start("get", "instance", "nope", *PLACE, "-w") as watch:
        _, err = watch.communicate(timeout=60)
    assert watch.returncode == 1
    assert b'"nope" not found' in err


@pytest.mark.parametrize(("output", "between"), [("json", b"}\n"), ("yaml", b"---\n")])
def test_a_watch_prints_a_document_for_each_change(cli: Cli, output: str, between: bytes) -> None:
    phases = ["Pending", "Preparing", "Running"]
    changed(cli, "vm", phases[0])
    with cli.start("get", "instance", "vm", *PLACE, "-w", "-o", output) as watch:
        assert watch.stdout is not None
        read = watch.stdout.readline()
        changed(cli, "vm", phases[1])
        read += _up_to(watch.stdout, lambda line: phases[1].encode() in line)
        changed(cli, "vm", phases[2])  # once the one before was printed: who is behind hears of the last alone
        read += _up_to(watch.stdout, lambda line: line == between)
    documents = yaml.safe_load_all(read.replace(b"}\n{", b"}\n---\n{"))
    whole = [body for body in documents if body and "status" in body][:2]
    assert [body["status"]["phase"] for body in whole] == phases[:2]
    assert {body["metadata"]["name"] for body in whole} == {"vm"}


def _up_to(stream: IO[bytes], ends: Callable[[bytes], bool]) -> bytes:
    read = b""
    while line := stream.readline():
        read += line
        if ends(line):
            return read
    raise AssertionError(read)


# --- what several names mean ---


def test_wait_waits_for_all(cli: Cli) -> None:
    changed(cli, "vm", "Running")
    changed(cli, "other", "Running")
    said = cli("wait", "instance", "vm", "other", *PLACE, "--for", "phase=Running")
    assert said.code == 0
    assert sorted(said.out.splitlines()) == ["instance/other phase=Running", "instance/vm phase=Running"]
    changed(cli, "other", "Booting")
    said = cli("wait", "instance", "vm", "other", *PLACE, "--for", "phase=Running", "--timeout", "3")
    assert said.code == 1
    assert said.out == "instance/vm phase=Running"
    assert said.err.startswith(f"error: Instance {PROJECT}/other is not there after 3 s; `bessemer why instance other")


def test_why_is_of_each(cli: Cli) -> None:
    said = cli("why", "instance", "vm", "other", *PLACE)
    assert "Instance vm is" in said.out
    assert "Instance other is" in said.out


def test_events_are_of_a_kind_or_of_some(cli: Cli) -> None:
    assert cli("get", "instances", *PLACE, "-o", "name").code == 0
    of_kind = cli("events", "instances", *PLACE)
    assert {word for line in of_kind.out.splitlines()[1:] for word in line.split() if "/" in word} == {
        "instance/vm",
        "instance/other",
    }
    of_one = cli("events", "instance", "other", *PLACE)
    assert len(of_one.out.splitlines()) == 2
    assert len(cli("events", "instance", "vm", "other", *PLACE).out.splitlines()) == 3
    assert cli("events", "endpoints", *PLACE).err == f"No events found in endpoints in {PROJECT}."


@pytest.mark.parametrize("verb", ["why", "wait", "logs"])
def test_a_verb_about_one_wants_its_name(cli: Cli, verb: str) -> None:
    said = cli(verb, "instance", *PLACE)
    assert (said.code, said.err) == (1, f"error: say which: `bessemer {verb} KIND NAME`")
    assert cli(verb, "instance/", *PLACE).err == said.err


def test_why_of_a_name_alone_is_of_the_workload_that_has_it(cli: Cli) -> None:
    assert cli("why", "vm", *PLACE).out == cli("why", "instance", "vm", *PLACE).out
    twin = (
        "{apiVersion: bessemer.dev/v1alpha1, kind: Endpoint, metadata: {name: vm}, spec: {model: smol, flavor: small}}"
    )
    assert cli("apply", "-f", "-", *PLACE, stdin=twin).code == 0
    try:
        said = cli("why", "vm", *PLACE)
        ways = f"`bessemer why instance/vm -n {PROJECT}` or `bessemer why endpoint/vm -n {PROJECT}`"
        assert (said.code, said.err) == (1, f"error: say which: {ways}")
    finally:
        cli("delete", "endpoint", "vm", *PLACE, "--no-wait")


@pytest.mark.parametrize("user", ["mia", "eve"])
def test_a_project_that_is_not_there_is_said_to_be_none_to_everybody(cli: Cli, user: str) -> None:
    token = cli("login", user, stdin=f"{PASSWORD}\n").raw.strip()
    said = cli("--token", token, "get", "instances", "-n", "acme--lap")
    assert said.code == 1
    assert said.err.startswith("error: there is no project acme--lap")


def test_a_log_is_of_one(cli: Cli) -> None:
    said = cli("logs", "instance", "vm", "other", *PLACE)
    assert (said.code, said.err) == (1, "error: a log is of one thing: `bessemer logs KIND NAME`")
