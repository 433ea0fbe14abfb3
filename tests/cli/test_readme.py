"""What README shows, done as it stands there by somebody whose factory has just come up."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

import bessemer.main
from tests.cli.conftest import Cli

README = Path(__file__).parents[2] / "README.md"
DEFAULTS = Path(bessemer.main.__file__).with_name("defaults.yaml")


def blocks(language: str) -> list[str]:
    """What stands between fences of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)


def test_its_file_is_applied_as_it_stands_to_a_factory_that_just_came_up(fresh: Cli) -> None:
    (file,) = blocks("yaml")
    said = fresh("apply", "-f", "-", stdin=file)
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines() == [
        "tenant/acme created",
        "project/acme--research created",
        "instance/vm created",
        "endpoint/smol created",
    ]


def test_its_file_names_what_each_factory_starts_with() -> None:
    there = {(body["kind"], body["metadata"]["name"]) for body in yaml.safe_load_all(DEFAULTS.read_text())}
    for body in yaml.safe_load_all(blocks("yaml")[0]):
        named = {(field.capitalize(), name) for field, name in body["spec"].items() if field != "displayName"}
        assert named <= there, body


def test_its_commands_are_on_the_path_before_the_first_and_give_the_shell_back() -> None:
    lines = [
        line.partition("#")[0].removeprefix("$ ").split() for block in blocks("console") for line in block.splitlines()
    ]
    ours = [line for line in lines if line[0] == "bessemer"]
    assert lines.index(["source", ".venv/bin/activate"]) < lines.index(ours[0])
    assert ours[0][1] == "up"
    assert "--detach" in ours[0], "or the next line is never typed"


def test_the_plan_that_is_explained_is_of_what_each_factory_starts_with() -> None:
    text = (README.parent / "docs" / "plan.md").read_text()
    (review,) = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    asked = yaml.safe_load(review)
    there = {(body["kind"], body["metadata"]["name"]) for body in yaml.safe_load_all(DEFAULTS.read_text())}
    spec = asked["spec"]["object"]["spec"]
    assert {("Flavor", spec["flavor"]), ("Image", spec["image"])} <= there
    assert asked["metadata"]["namespace"] in {
        body["metadata"]["name"] for body in yaml.safe_load_all(blocks("yaml")[0]) if body["kind"] == "Project"
    }
