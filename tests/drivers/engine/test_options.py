"""Arguments of engines: what may be given, what is wrong with the rest, and that a runner obeys each of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bessemer.drivers.engine.protocol import Adapter, Argument, Option, Sort
from bessemer.drivers.llamacpp import runner
from bessemer.drivers.llamacpp.protocol import LLAMACPP
from bessemer.drivers.vllm.protocol import VLLM

SORTS = (LLAMACPP, VLLM)


def values(option: Option) -> Iterator[Argument]:
    """Some that it must take."""
    match option.type:
        case "bool":
            yield from (True, False)
        case "word":
            yield from option.choices
        case "int":
            yield from (int(option.least), int(option.most))
        case "float":
            yield from (option.least, option.most)


@pytest.mark.parametrize("sort", SORTS, ids=lambda sort: sort.name)
def test_each_takes_what_it_names(sort: Sort) -> None:
    for name, option in sort.options.items():
        assert option.doc.endswith(".")
        assert (option.least < option.most) == (option.type in ("int", "float"))
        assert [said for value in values(option) for said in sort.wrong({name: value})] == []
    assert not sort.options.keys() & sort.refused.keys()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"batch-size": 31}, "must be a whole number from 32 to 16384"),
        ({"batch-size": True}, "must be a whole number"),
        ({"batch-size": 64.5}, "must be a whole number"),
        ({"batch-size": "64"}, "must be a whole number"),
        ({"slot-prompt-similarity": float("nan")}, "must be a number from 0 to 1"),
        ({"slot-prompt-similarity": 1.5}, "must be a number from 0 to 1"),
        ({"cache-prompt": 1}, "must be true or false"),
        ({"flash-attn": "yes"}, "must be one of auto, on, off"),
        ({"flash-attn": True}, "must be one of"),
        ({"flash-atn": "on"}, "is no argument of llamacpp; did you mean flash-attn?"),
        ({"--flash-attn=on --host": "0.0.0.0"}, "is no argument of llamacpp"),
        ({"host": "0.0.0.0"}, "may not be given to llamacpp: the platform sets it"),
        ({"lora": "/etc/passwd"}, "it names a file"),
        ({"tools": "all"}, "it has the engine load code"),
    ],
)
def test_what_is_wrong_is_said(arguments: dict[str, Argument], words: str) -> None:
    [(name, said)] = LLAMACPP.wrong(arguments)
    assert name in arguments
    assert words in said


@pytest.mark.parametrize(
    "name", ["host", "api-key", "uds", "middleware", "trust-remote-code", "chat-template", "worker-cls", "lora-modules"]
)
def test_what_would_open_an_engine_is_refused(name: str) -> None:
    [(_, said)] = VLLM.wrong({name: "x"})
    assert "may not be given to vllm" in said


def test_the_runner_obeys_each_of_them() -> None:
    assert runner.ARGUMENTS.keys() == LLAMACPP.options.keys()


@pytest.mark.real
def test_the_library_takes_each_of_them() -> None:
    import xllamacpp

    base = {"model": "m", "alias": "a", "door": "d", "secret": "s", "slots": 1, "context_tokens": 64, "threads": 1}
    base |= {"cache_ram_mib": 1, "adapters": [], "embeds": False}
    fields = {name: field for name, (field, _) in runner.ARGUMENTS.items()}
    for name, option in LLAMACPP.options.items():
        seen = []
        for value in values(option):
            settings = {**base, "arguments": {name: value}}
            seen.append(getattr(runner.parameters(xllamacpp, settings), fields[name]))
        assert len(set(map(str, seen))) == len(seen), f"{name} makes no difference"


@pytest.mark.parametrize("name", ["", "A", "a/b", "..", "a:b", "-a", "a" * 64])
def test_an_adapter_has_a_plain_name(name: str) -> None:
    with pytest.raises(ValueError, match="no name of an adapter"):
        Adapter(name, Path("/x"))
