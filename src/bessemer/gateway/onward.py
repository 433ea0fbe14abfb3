"""What a request carries to the replica that answers it, over whatever its client wrote of these names: which adapter,
whose prompts it may find in the cache, and by what name the replica knows its model. Pure.

What it carries is made when a replica comes, by the `Sort` of its engine; a request whose replica wants nothing of it
goes on as it came. llama.cpp chooses adapters by ``lora``, and its cache must not be read across them (`choosing`): so
a client who writes these fields reaches no adapter but the one that it has named. vLLM keeps prompts apart by
``cache_salt``: here by project. Nobody but the gateway can ask a replica, so a salt need not be a secret.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

import msgspec
import orjson

from bessemer.drivers.llamacpp.protocol import LLAMACPP, choosing
from bessemer.drivers.vllm.protocol import VLLM

Fields = Mapping[str, bytes]
"""Names of a body's outermost fields, and their values as JSON."""

OURS = frozenset(("cache_prompt", "cache_salt", "lora"))
"""Every name that may be written over, but ``model``, which each body has."""

_SORTS = {sort.name: sort for sort in (LLAMACPP, VLLM)}
_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw])


def carried(engine: str, *, project: str, adapters: Sequence[str]) -> Mapping[str, Fields]:
    """By adapter, "" for none, what a request of the project must carry at an engine of that sort which has
    ``adapters``, in the order of their numbers. Empty where it is nothing, whichever is asked for."""
    sort = _SORTS.get(engine)
    if sort is None:
        return {}
    always = {"cache_salt": orjson.dumps(project)} if sort.salts else {}
    if sort.picks == "number" and adapters:
        numbers: list[tuple[str, int | None]] = [("", None), *((name, at) for at, name in enumerate(adapters))]
        return {name: {**always, **_said(choosing(number))} for name, number in numbers}
    return dict.fromkeys(("", *adapters), always) if always else {}


def called(endpoint: str, adapter: str, *, carries: Fields | None) -> Fields:
    """What a request carries whose client used another name: that by which the endpoint's replicas know their model,
    where what they carry says none."""
    return {"model": orjson.dumps(f"{endpoint}:{adapter}" if adapter else endpoint), **(carries or {})}


def carrying(body: bytes, ours: Fields, *, said: AbstractSet[str]) -> bytes:
    """A body that was read, with these fields in place of its own; ``said`` are those of `OURS` that it has."""
    if "model" not in ours and said.isdisjoint(ours):
        return b"%b,%b}" % (body.rstrip()[:-1], b",".join(b'"%b":%b' % (k.encode(), v) for k, v in ours.items()))
    fields = _DECODER.decode(body)
    parts = [orjson.dumps(name) + b":" + bytes(value) for name, value in fields.items() if name not in ours]
    parts += [orjson.dumps(name) + b":" + value for name, value in ours.items()]
    return b"{" + b",".join(parts) + b"}"


def _said(fields: Mapping[str, object]) -> Fields:
    return {name: orjson.dumps(value) for name, value in fields.items()}
