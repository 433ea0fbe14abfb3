"""What of a request is no text: then its bytes say nothing of how many tokens it is. Pure.

Of a text no token is less than a byte. Of an image its size and the model's tiles count: one pixel in 70 bytes may be
576 tokens (LLaVA, of any image), and 3 MB no more. Sound and films are alike; and what a service remembers of a
conversation (``previous_response_id``) is not in the body at all. No number bounds all of them for every engine but the
context, beyond which none goes: so that is held.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

_REMEMBERED = frozenset(("conversation", "previous_response_id"))
_PROMPTS = ("messages", "input", "prompt")
_ATTACHED = re.compile(
    rb'"(?:(?:input_)?(?:image|audio|video|file|multimodal)s?(?:_[a-z]+)?"\s*:'
    rb'|type"\s*:\s*"(?:input_)?(?:image|audio|video|file))'
)


def unmeasured(fields: Mapping[str, msgspec.Raw]) -> bool:
    """Whether it may be more tokens than its bytes. ``fields`` are as they go on: names that were written with escapes
    are written without (`attached`)."""
    for name in _PROMPTS:
        said = fields.get(name)
        if said is not None and _ATTACHED.search(memoryview(said)) is not None:
            return True
    # A prompt that is an object is a service's own, by its name, or one of llama.cpp with what is attached.
    prompt = fields.get("prompt")
    return not _REMEMBERED.isdisjoint(fields) or (prompt is not None and bytes(memoryview(prompt)[:1]) == b"{")
