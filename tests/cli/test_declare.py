"""What files declare: applied in order, diffed, pruned by set, awaited, deleted; and what is said where it fails."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bessemer.cli.work.diff import between, masked
from bessemer.cli.work.sets import PART_OF, Bounds, ObjectSet
from bessemer.cli.work.waiting import Show, standing, tree
from bessemer.core.errors import NotFound
from bessemer.core.ports import CONTROLLER, Scope
from bessemer.core.resource import Key
from tests.api.world import World
from tests.cli.conftest import PROJECT, Cli

VM = """\
apiVersion: bessemer.dev/v1alpha1
kind: Instance
metadata: {name: NAME}
spec:
  flavor: small
  image: micro
"""
FLAVOR = """\
apiVersion: bessemer.dev/v1alpha1
kind: Flavor
metadata: {name: NAME}
spec: {cpus: 2, memory: 1Gi}
"""
PLACE = ("-n", PROJECT)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "lab"
    (made / "deeper").mkdir(parents=True)
    (made / ".git").mkdir()
    (made / ".git" / "not.yaml").write_text("nonsense")
    return made


@pytest.fixture
def ours(cli: Cli, folder: Path) -> Iterator[tuple[str, ...]]:
    """The words that apply the folder to the project, in which nothing stays for the next test."""
    yield ("-f", str(folder), *PLACE)

    async def sweep(w: World) -> None:
        for stored in (await w.store.objects.list(Scope(kind="Instance"))).items:
            await end(w, stored.key)

    cli.do(sweep)


async def end(w: World, key: Key) -> None:
    """Delete, and let go of it as its controller does."""
    found = json.loads((await w.store.objects.get(key)).body)
    found["metadata"]["finalizers"] = []
    await w.store.objects.replace(found, CONTROLLER)
    with suppress(NotFound):
        await w.store.objects.delete(key, CONTROLLER)


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)


def vm(name: str, *more: str) -> str:
    return "\n".join([VM.replace("NAME", name).rstrip(), *more, ""])


def body(cli: Cli, name: str) -> Any:
    return json.loads(cli("get", "instance", name, *PLACE, "-o", "json", "--show-managed-fields").raw)


def test_a_project_that_is_said_is_not_another_than_the_files_say(
    cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As kubectl has it: which of the two is meant nobody knows. Nothing is done."""
    other = vm("theirs").replace("metadata: {name: theirs}", "metadata: {name: theirs, namespace: other--lab}")
    write(folder, a=vm("ours"), b=other, c="kind: Tenant\nmetadata: {name: acme}\nspec: {}\n")
    for verb in ("apply", "diff", "delete", "plan"):
        said = cli(verb, "-f", str(folder), *PLACE)
        assert said.code == (2 if verb == "diff" else 1), verb
        assert f"what is of another project than {PROJECT} is meant by -n, or leave -n out" in said.err
        assert f"b.yaml:3: it is of other--lab, and -n says {PROJECT}" in said.err
    assert cli("get", "instance", "ours", *PLACE).code == 1
    # From the environment it is what is meant where a file says nothing.
    monkeypatch.setenv("BESSEMER_PROJECT", PROJECT)
    told = cli("apply", "-f", str(folder / "b.yaml"), "--dry-run=server")
    assert (told.code, told.out.strip()) == (0, "instance/theirs created (dry run)")


# --- apply --------------------------------------------------------------------------------------------------------


def test_a_tenant_comes_before_what_lies_in_it(cli: Cli, folder: Path) -> None:
    write(folder, a=vm("first").replace("metadata: {name: first}", "metadata: {name: first, namespace: blue--x}"))
    write(
        folder,
        b="kind: Project\nmetadata: {name: blue--x}\nspec: {}\n---\nkind: Tenant\nmetadata: {name: blue}\nspec: {}",
    )
    (folder / "deeper" / "c.json").write_text('{"kind": "Project", "metadata": {"name": "blue--y"}, "spec": {}}')
    tried = cli("apply", "-f", str(folder), "--dry-run=server")
    assert tried.code == 0, tried.err
    assert tried.out.splitlines()[0] == "tenant/blue created (dry run)"
    assert cli("get", "tenant", "blue").code == 1
    applied = cli("apply", "-f", str(folder))
    assert applied.out.splitlines() == [
        "tenant/blue created",
        "project/blue--x created",
        "project/blue--y created",
        "instance/first created",
    ]
    assert {line.split()[1] for line in cli("apply", "-f", str(folder)).out.splitlines()} == {"unchanged"}
    gone = cli("delete", "-f", str(folder), "--dry-run=server").out.splitlines()
    assert gone[0] == "instance/first deleted (dry run)"
    assert gone[-1] == "tenant/blue deleted (dry run)"


def test_the_server_merges_in_our_name(cli: Cli, folder: Path, ours: tuple[str, ...]) -> None:
    write(folder, a=vm("a"))
    cli("apply", *ours)
    cli("stop", "a", *PLACE)
    assert cli("apply", *ours).out == "instance/a unchanged"
    assert body(cli, "a")["spec"]["running"] is False, "no file says it"
    write(folder, a=vm("a", "  running: true"))
    refused = cli("apply", *ours)
    assert (refused.code, "conflict with" in refused.err, "a.yaml:1: instance/a" in refused.err) == (1, True, True)
    assert cli("apply", *ours, "--force-conflicts").out == "instance/a configured"
    owners = {e["manager"]: e["operation"] for e in body(cli, "a")["metadata"]["managedFields"]}
    assert owners["bessemer"] == "Apply"
    assert cli("apply", *ours, "--field-manager", "ci").code == 0
    assert "ci" in [e["manager"] for e in body(cli, "a")["metadata"]["managedFields"]]


def test_what_is_wrong_has_file_and_line_and_the_rest_is_applied(cli: Cli, folder: Path, ours: tuple[str, ...]) -> None:
    write(folder, a=vm("a", "  sise: 3"), b=vm("b"), c=vm("c", "  tolerations:", "  - key: [x]"))
    said = cli("apply", *ours)
    assert said.code == 1
    assert said.out == "instance/b created"
    assert f'{folder}/a.yaml:7: unknown field "spec.sise"' in said.err
    assert f"{folder}/c.yaml:8: spec.tolerations[0].key" in said.err
    assert "2 of 3 objects were not applied, the rest stands" in said.err
    write(folder, a=vm("a"), c=vm("c"))
    again = cli("apply", *ours)
    assert again.out.splitlines() == ["instance/a created", "instance/b unchanged", "instance/c created"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: Thing\nmetadata: {name: a}\n", "a.yaml:1: no kind is called 'Thing'"),
        (f"{vm('a')}---\n{vm('a')}", "a.yaml:8: Instance a stands at"),
        ("# nothing\n", "holds no object"),
    ],
)
def test_files_that_cannot_be_meant_apply_nothing(
    cli: Cli, folder: Path, ours: tuple[str, ...], text: str, words: str
) -> None:
    write(folder, a=text, b=vm("b"))
    said = cli("apply", *ours)
    assert (said.code, words in said.err) == (1, True), said.err
    assert cli("get", "instance", "b", *PLACE).code == 1


def test_either_version_of_a_flavor(cli: Cli, folder: Path) -> None:
    write(folder, a=FLAVOR.replace("NAME", "either"))
    assert cli("apply", "-f", str(folder)).out == "flavor/either created"
    assert cli("apply", "-f", str(folder)).out == "flavor/either unchanged"
    assert cli("diff", "-f", str(folder)).code == 0
    new = FLAVOR.replace("NAME", "either").replace("v1alpha1", "v1beta1").replace("cpus", "cores")
    write(folder, a=new)
    assert cli("apply", "-f", str(folder)).out == "flavor/either unchanged"
    write(folder, a=new.replace("1Gi", "1Gi, offered: false"))
    assert cli("apply", "-f", str(folder)).out == "flavor/either configured"
    cli("delete", "flavor", "either")


# --- sets ---------------------------------------------------------------------------------------------------------


def test_what_the_files_say_no_more_is_pruned(cli: Cli, folder: Path, ours: tuple[str, ...]) -> None:
    write(folder, a=vm("a"), b=vm("b"))
    cli("apply", "-f", "-", *PLACE, stdin=vm("stray"))
    lab = (*ours, "--set", "lab", "--prune")
    assert cli("apply", *lab).out.splitlines() == ["instance/a created", "instance/b created"]
    (folder / "b.yaml").unlink()
    assert cli("diff", *lab).out.splitlines()[:2] == [f"--- live/instance/{PROJECT}/b", "+++ nothing"]
    assert cli("apply", *lab, "--dry-run=server").out.splitlines()[-1] == "instance/b pruned (dry run)"
    assert cli("apply", *lab).out.splitlines() == ["instance/a unchanged", "instance/b pruned"]
    cli.do(lambda w: end(w, Key("Instance", PROJECT, "b")))
    assert cli("apply", *lab).out == "instance/a unchanged"
    assert cli("get", "instance", "stray", *PLACE).code == 0


def test_no_set_takes_what_another_has(cli: Cli, folder: Path, ours: tuple[str, ...]) -> None:
    write(folder, a=vm("a"))
    cli("apply", *ours, "--set", "one")
    write(folder, b=vm("b"))
    refused = cli("apply", *ours, "--set", "two", "--prune")
    assert (refused.code, "a.yaml:1: Instance acme--lab/a belongs to another set" in refused.err) == (1, True)
    assert cli("get", "instance", "b", *PLACE).code == 1, "nothing was applied"
    write(folder, a=vm("a", "  running: false"))
    assert cli("apply", "-f", str(folder / "a.yaml"), *PLACE).out == "instance/a configured"
    assert PART_OF in body(cli, "a")["metadata"]["labels"], "who names no set takes nothing out of one"
    (folder / "a.yaml").unlink()
    assert cli("apply", *ours, "--set", "two", "--prune").out == "instance/b created"
    assert cli("get", "instance", "a", *PLACE).code == 0, "another set has it"


def test_nothing_is_pruned_where_something_was_refused(cli: Cli, folder: Path, ours: tuple[str, ...]) -> None:
    write(folder, a=vm("a"), b=vm("b"))
    lab = (*ours, "--set", "lab", "--prune")
    cli("apply", *lab)
    (folder / "b.yaml").unlink()
    write(folder, c=vm("c", "  sise: 3"))
    assert cli("apply", *lab).code == 1
    assert "deletionTimestamp" not in body(cli, "b")["metadata"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--prune",), "name the set with --set NAME"),
        (("--set", "x", "--tenant", "acme", *PLACE), "not in both"),
        (("--tenant", "acme", *PLACE), "the scope of a set"),
        (("--set", "x", "-n", "other--lab"), "does not lie in project other--lab"),
        (("--set", "x", "--tenant", "other"), "does not lie in tenant other"),
        ((*PLACE, "--dry-run=client"), "write --dry-run=server"),
    ],
)
def test_a_set_has_a_scope(cli: Cli, folder: Path, words: tuple[str, ...], said: str) -> None:
    write(folder, a=vm("a").replace("{name: a}", "{name: a, namespace: acme--lab}"))
    refused = cli("apply", "-f", str(folder), *words)
    assert (refused.code, said in refused.err) == (1, True), refused.err


def test_a_name_in_another_scope_is_another_set() -> None:
    scopes = [Bounds("acme--lab"), Bounds("acme--web"), Bounds(tenant="acme"), Bounds()]
    ids = {ObjectSet("lab", scope).id for scope in scopes} | {ObjectSet("web", scope).id for scope in scopes}
    assert len(ids) == 8
    assert all(len(found) <= 63 and found.startswith("applyset-") and found.endswith("-v1") for found in ids)
    acme = Bounds(tenant="acme")
    inside = [Key("Tenant", "", "acme"), Key("Project", "", "acme--lab"), Key("Instance", "acme--lab", "a")]
    outside = [Key("Tenant", "", "b"), Key("Project", "", "b--x"), Key("Flavor", "", "f"), Key("Instance", "b--x", "a")]
    assert [acme.holds(key) for key in [*inside, *outside]] == [True] * 3 + [False] * 4
    marked = ObjectSet("lab", acme).marked({"metadata": {"name": "a", "labels": {"x": "y"}}})
    assert marked["metadata"]["labels"] == {"x": "y", PART_OF: ObjectSet("lab", acme).id}


# --- diff ---------------------------------------------------------------------------------------------------------


def test_a_difference_ends_with_1_and_a_failure_with_2(cli: Cli, folder: Path, ours: tuple[str, ...]) -> None:
    write(folder, a=vm("a"))
    new = cli("diff", *ours)
    assert (new.code, "+++ " + str(folder) + "/a.yaml:1" in new.out, "+  flavor: small" in new.out) == (1, True, True)
    cli("apply", *ours)
    assert (cli("diff", *ours).code, cli("diff", *ours).out) == (0, "")
    write(folder, a=vm("a", "  running: false"))
    changed = cli("diff", *ours)
    assert changed.code == 1
    assert [line for line in changed.out.splitlines() if line[0] in "-+"][2:] == [
        "-  running: true",
        "+  running: false",
    ]
    write(folder, a=vm("a", "  sise: 1"))
    wrong = cli("diff", *ours)
    assert (wrong.code, "a.yaml:7: unknown field" in wrong.err) == (2, True)
    assert body(cli, "a")["spec"]["running"] is True


def test_secrets_are_stars() -> None:
    def secret(**data: str) -> dict[str, Any]:
        return {"kind": "Secret", "metadata": {"name": "s"}, "data": data}

    before, after = masked(
        secret(same="c2FtZQ==", moved="b2xk", gone="Z29uZQ=="), secret(same="c2FtZQ==", moved="bmV3")
    )
    assert before
    assert after
    assert before["data"] == {"same": "***", "moved": "*** (before)", "gone": "***"}
    assert after["data"] == {"same": "***", "moved": "*** (after)"}
    shown = "\n".join(between(None, secret(only="b25seQ=="), name="s", place="f:1"))
    assert "b25seQ" not in shown
    assert "only: '***'" in shown


# --- waiting ------------------------------------------------------------------------------------------------------


def says(ready: str, reason: str, *, phase: str = "Pending", stuck: bool = False, seen: int = 1) -> dict[str, Any]:
    at = {"lastTransitionTime": "2025-06-15T15:06:40Z"}
    found = [{"type": "Ready", "status": ready, "reason": reason, "message": "so it is", **at}]
    found += [{"type": "Stuck", "status": "True", "reason": reason, "message": "for too long", **at}] if stuck else []
    return {"phase": phase, "observedGeneration": seen, "conditions": found}


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        ({}, "waits"),
        (says("True", "Ready", phase="Running"), "ready"),
        (says("True", "Ready", phase="Running", seen=0), "waits"),
        (says("False", "Stopped", phase="Stopped"), "ready"),
        (says("False", "ImageNotReady"), "waits"),
        (says("False", "Unschedulable", stuck=True), "stuck"),
        (says("False", "Unschedulable", stuck=True, seen=0), "waits"),
        (says("False", "GuestDied", phase="Failed"), "stuck"),
    ],
)
def test_when_an_object_is_ready(status: dict[str, Any], verdict: str) -> None:
    key = Key("Instance", PROJECT, "a")
    assert standing(key, {"metadata": {"name": "a", "generation": 1}, "status": status}).verdict == verdict
    assert standing(Key("Flavor", "", "f"), {"metadata": {"name": "f"}}).verdict == "ready"
    assert standing(key, None).verdict == "waits"


def test_a_tree_says_what_waits_for_what() -> None:
    image = standing(Key("Image", "", "micro"), None)
    one = standing(
        Key("Instance", PROJECT, "a"), {"metadata": {"generation": 1}, "status": says("False", "ImageNotReady")}
    )
    lines = list(tree(type(one)(one.key, one.verdict, one.phase, one.why, (image,)), within=40))
    assert lines == ["… instance/a  Pending: ImageNotReady: s…", "  … image/micro  it is not there"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_at_a_terminal_the_tree_is_drawn_over_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "5")
    show, keys = Show(), [Key("Instance", PROJECT, f"vm-{n}") for n in range(9)]
    show.now([standing(key, None) for key in keys])
    first = screen.getvalue()
    assert (first.count("\n"), "0 of 9 ready" in first) == (4, True), "no more lines than there are"
    body = {"metadata": {"generation": 1}, "status": says("True", "Ready", phase="Running")}
    show.end([standing(keys[0], body)])
    second = screen.getvalue().removeprefix(first)
    assert second.startswith("\x1b[4A\r\x1b[2K\x1b[32m✓\x1b[0m instance/vm-0  Running\n")
    assert "1 of 1 ready" in second


def test_waiting_ends_when_all_is_ready_or_says_what_is_not(cli: Cli, folder: Path, ours: tuple[str, ...]) -> None:
    write(folder, a=vm("a"), b=vm("b"))
    cli("apply", *ours)
    late = cli("apply", *ours, "--wait", "--timeout", "3")
    assert late.code == 1
    assert "instance/a waits: nobody has looked at it yet" in late.out
    assert "flavor/small waits: there is none of that name" in late.out
    assert "2 of 2 objects still wait after 3 s" in late.err
    cli.status(Key("Instance", PROJECT, "a"), **says("True", "Ready", phase="Running"))
    cli.status(Key("Instance", PROJECT, "b"), **says("False", "Unschedulable", stuck=True))
    stuck = cli("apply", *ours, "--wait")
    assert (stuck.code, "1 of 2 objects is stuck" in stuck.err) == (1, True)
    assert "instance/b: Pending: for too long" in stuck.err
    cli.status(Key("Instance", PROJECT, "b"), **says("True", "Ready", phase="Running"))
    done = cli("apply", *ours, "--wait", "-o", "json")
    assert done.code == 0
    assert [(i["name"], i["result"], i["state"]) for i in json.loads(done.raw)["items"]] == [
        ("a", "unchanged", "ready"),
        ("b", "unchanged", "ready"),
    ]


@pytest.mark.long
def test_whoever_interrupts_is_told_that_it_goes_on(cli: Cli, folder: Path, ours: tuple[str, ...]) -> None:
    write(folder, a=vm("a"))
    with cli.start("apply", *ours, "--wait") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"instance/a created\n"
        assert process.stdout.readline().startswith(b"instance/a waits")
        process.send_signal(2)
        told = process.stderr.read()
        assert process.wait(20) == 130
    assert b"what was applied stays" in told
    assert cli("get", "instance", "a", *PLACE).code == 0


# --- delete -------------------------------------------------------------------------------------------------------


def test_deleting_what_is_gone_is_no_error_of_files(cli: Cli, folder: Path) -> None:
    write(folder, a=FLAVOR.replace("NAME", "a"), b=FLAVOR.replace("NAME", "b"))
    cli("apply", "-f", str(folder / "a.yaml"))
    said = cli("delete", "-f", str(folder))
    assert (said.code, said.out.splitlines()) == (0, ["flavor/b not there", "flavor/a deleted"])
    assert cli("delete", "flavor", "a").code == 1


@pytest.mark.parametrize("name", [".", "..", "/"])
def test_a_folder_is_no_name_and_deletes_nothing(cli: Cli, name: str) -> None:
    """Somebody means the files here, and forgets the -f."""
    before = cli("get", "flavors").out
    said = cli("delete", "flavor", name, "--no-wait")
    assert (said.code, said.out) == (1, "")
    assert "is no name" in said.err
    assert cli("get", "flavors").out == before
