"""What of a request decides who answers it, and when: read from its body and headers. Pure.

A session is what a client says of it: the header `x-session-id`, else OpenAI's ``prompt_cache_key`` or ``user``.
Prompts of two projects have no mark in common, for their caches have nothing in common either; nor have those of two
adapters. Whose turn it is, its key says; a client may ask to be served after others (``service_tier``: ``flex``,
``default``), and before nobody.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from zlib import crc32

import msgspec

from bessemer.gateway.errors import malformed
from bessemer.gateway.fair import WEIGHTS
from bessemer.gateway.prefix import marks
from bessemer.gateway.request import Wanted
from bessemer.gateway.route import Sought
from bessemer.gateway.tables import KeyEntry

BYTES_PER_TOKEN = 4
"""Of a prompt, about: only what is compared with its like is told by it."""
TOKENS_WRITTEN = 512
"""By an answer of which nobody says how long it may be."""
SECONDS_MAX = 86400.0
_SESSION, _TIMEOUT = b"x-session-id", b"x-request-timeout"
_SESSIONS = ("prompt_cache_key", "user")
_BEFORE = ("tools", "instructions")
"""What templates put before the messages."""
_PROMPTS = ("messages", "prompt", "input")


def sought(wanted: Wanted, headers: Mapping[bytes, bytes], *, project: str, adapter: str, several: bool) -> Sought:
    """``several``: there is something to choose from."""
    fields = wanted.fields
    if not several or fields is None:
        return Sought(adapter=adapter, cost=1 + len(wanted.body) // BYTES_PER_TOKEN)
    prompt = next((memoryview(fields[name])[:-1] for name in _PROMPTS if name in fields), memoryview(b""))
    seed = crc32(f"{project}:{adapter}".encode()) if adapter else crc32(project.encode())
    for name in _BEFORE:
        if name in fields:
            seed = crc32(fields[name], seed)
    cost = 1 + len(prompt) // BYTES_PER_TOKEN
    return Sought(_session(headers, fields, seed=seed), marks(prompt, seed), adapter, cost)


def session(wanted: Wanted, headers: Mapping[bytes, bytes], *, project: str) -> int:
    """Which session of the project it is of, 0 where it names none."""
    return _session(headers, wanted.fields or {}, seed=crc32(project.encode()))


def path(wanted: Wanted, key: KeyEntry) -> tuple[str, str, str]:
    """Whose turn it takes: class, tenant, key. The class is the key's, or a lesser one that is asked for."""
    tier = key.priority if key.priority in WEIGHTS else "default"
    if wanted.tier and WEIGHTS[wanted.tier] < WEIGHTS[tier]:
        tier = wanted.tier
    return tier, key.project.partition("--")[0], key.uid


def written(wanted: Wanted) -> int:
    """Tokens that its answers may come to, about."""
    writes = TOKENS_WRITTEN if wanted.writes is None else min(wanted.writes, TOKENS_WRITTEN)
    return writes * wanted.sequences


def until(headers: Mapping[bytes, bytes], started: float) -> float:
    """When its answer is worth nothing any more, by the monotonic clock. Raises Refused."""
    said = headers.get(_TIMEOUT)
    if said is None:
        return math.inf
    try:
        seconds = float(said)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds <= SECONDS_MAX:
        raise malformed(f"`x-request-timeout` is seconds, more than 0 and at most {SECONDS_MAX:g}.")
    return started + seconds


def _session(headers: Mapping[bytes, bytes], fields: Mapping[str, msgspec.Raw], *, seed: int) -> int:
    said = headers.get(_SESSION)
    if said:
        return crc32(said, seed) or 1
    for name in _SESSIONS:
        if name in fields and (value := bytes(fields[name])) not in (b"null", b'""'):
            return crc32(value, seed) or 1
    return 0
