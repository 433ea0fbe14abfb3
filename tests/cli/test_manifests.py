"""Files of objects: what is read from them, and that what cannot be meant is said with its place, never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from bessemer.cli.manifests import manifests
from bessemer.core.errors import Invalid
from tests.cli.conftest import PROJECT, Cli

GOOD = "kind: Instance\nmetadata: {name: a}\n"
NEEDS = "each object needs kind and metadata.name"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: Instance\nmetadata:\n", NEEDS),
        ("kind: Instance\nmetadata: [name]\n", NEEDS),
        ("metadata: {name: a}\n", NEEDS),
        ("just words\n", NEEDS),
        ("kind: Instance\nmetadata: {name: 123}\n", "metadata.name must be text, and is 123"),
        ("kind: Instance\nmetadata: {name: null}\n", "metadata.name must be text, and is None"),
        ("kind: [a]\nmetadata: {name: a}\n", "kind must be text, and is ['a']"),
        ("kind: Instance\nmetadata: {name: a, namespace: 7}\n", "metadata.namespace must be text, and is 7"),
        ("kind: Instance\nmetadata: {name: a, labels: [b]}\n", "metadata.labels must be a mapping"),
        ("kind: List\nitems: 5\n", "items must be a list"),
        ("kind: Instance\nmetadata: {name: a}\nspec: {1: 2}\n", "holds what JSON has no word for: "),
    ],
)
def test_what_is_no_object_is_said_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "it.yaml"
    file.write_text(text)
    with pytest.raises(Invalid) as alone:
        manifests(file)
    assert alone.value.message.startswith(str(file))
    assert said in alone.value.message
    file.write_text(f"{GOOD}---\n{text}")
    with pytest.raises(Invalid) as second:
        manifests(file)
    assert second.value.message.startswith(f"{file}:4: ")
    assert said in second.value.message


def test_an_item_of_a_list_has_a_number_too(tmp_path: Path) -> None:
    file = tmp_path / "list.yaml"
    file.write_text("kind: List\nitems:\n- kind: Instance\n  metadata: {name: a}\n- kind: Instance\n")
    with pytest.raises(Invalid, match=f"list.yaml:5: {NEEDS}"):
        manifests(file)


@pytest.mark.parametrize("text", ["kind: List\nitems: null\n", "kind: List\nitems: []\n", "---\n---\n", ""])
def test_nothing_is_said_to_be_nothing(tmp_path: Path, text: str) -> None:
    file = tmp_path / "none.yaml"
    file.write_text(text)
    with pytest.raises(Invalid, match=r"none\.yaml holds no object"):
        manifests(file)


@pytest.mark.parametrize("text", ["a: 2026-99-99\n", "[" * 5000, "a: [\n", "&a [*a]\n"])
def test_what_is_no_yaml_is_no_traceback(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(Invalid, match=r"bad\.yaml"):
        manifests(file)


@pytest.mark.parametrize("verb", ["apply", "delete"])
@pytest.mark.parametrize("text", ["kind: Instance\nmetadata:\n", "kind: [a]\nmetadata: {name: a}\n"])
def test_the_commands_end_with_words(cli: Cli, verb: str, text: str) -> None:
    said = cli(verb, "-f", "-", "-n", PROJECT, stdin=text)
    assert said.code == 1
    assert said.err.startswith("error: standard input:1: ")


def test_a_namespace_that_is_left_empty_is_the_one_that_was_given(cli: Cli) -> None:
    text = "kind: Instance\nmetadata: {name: nowhere, namespace: }\nspec: {flavor: small, image: micro}\n"
    applied = cli("apply", "-f", "-", "-n", PROJECT, stdin=f"apiVersion: bessemer.dev/v1alpha1\n{text}")
    assert (applied.out, applied.err) == ("instance/nowhere created", "")
    assert cli("delete", "-f", "-", "-n", PROJECT, "--no-wait", stdin=text).out == "instance/nowhere deleted"
