"""What of a body takes an engine down that is sound, or makes it answer what is no answer of OpenAI's: refused before
one is asked. Pure.

Each was seen of an engine that is served here. llama.cpp reads a grammar by recursion, and dies of parentheses (its
stack); it makes room for as many tokens as ``repeat_last_n`` says, whatever its context is, and dies of too little
memory; it lists its whole vocabulary at each token where ``top_logprobs`` says so; and texts to embed that are not
called ``input`` it answers in a form of its own, which tells no usage. What an engine refuses by itself is left to it.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import orjson

from bessemer.gateway.errors import malformed

GRAMMAR_LENGTH_MAX, GRAMMAR_PARENTHESES_MAX = 256 << 10, 4096
LOOKED_BACK_MAX = 1 << 16
"""Tokens."""

NUMBER_LENGTH_MAX = 1024
LISTED_MAX = 1000
"""Tokens that an event may tell of beside the one that was written."""

_NUMBERS = {
    **dict.fromkeys(("dry_penalty_last_n", "repeat_last_n"), LOOKED_BACK_MAX),
    **dict.fromkeys(("logprobs", "n_probs", "top_logprobs"), LISTED_MAX),
}
_NULL = msgspec.Raw(b"null")
_JUDGED = frozenset((*_NUMBERS, "grammar"))


def check(fields: Mapping[str, msgspec.Raw], *, generates: bool) -> None:
    """The outermost names of a body. Raises Refused."""
    embeds = "messages" in fields and "content" not in fields  # which vLLM takes for an input, too
    if not generates and not embeds and bytes(fields.get("input", _NULL)) == b"null":
        raise malformed("you must provide an `input`", "input")
    if _JUDGED.isdisjoint(fields):
        return
    for name in _JUDGED & fields.keys():
        most = _NUMBERS.get(name, 0)
        said = _read(fields[name], name) if most else None
        if isinstance(said, (int, float)) and said > most:
            raise malformed(f"`{name}` may be at most {most}.", name)
    if "grammar" not in fields:
        return
    if str(_read(fields["grammar"], "grammar")).count("(") > GRAMMAR_PARENTHESES_MAX:
        raise malformed(f"`grammar` may have at most {GRAMMAR_PARENTHESES_MAX} parentheses.", "grammar")


def _read(said: msgspec.Raw, name: str) -> object:
    most = GRAMMAR_LENGTH_MAX if name == "grammar" else NUMBER_LENGTH_MAX
    if len(said) > most:
        raise malformed(f"`{name}` may have at most {most} bytes.", name)
    try:
        return orjson.loads(memoryview(said))
    except orjson.JSONDecodeError as error:
        raise malformed("We could not parse the JSON body of your request.", name) from error
