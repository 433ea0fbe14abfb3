"""Weights that nobody reads: facts of a small model for whatever comes, refusals where they are set."""

from __future__ import annotations

from collections.abc import Sequence

from bessemer.core.errors import DriverError
from bessemer.core.inference import ModelFacts
from bessemer.drivers import Hook, no_hook
from bessemer.drivers.weights import pickles
from bessemer.drivers.weights.protocol import Part, refused

SMALL = ModelFacts(
    format="gguf",
    architecture="llama",
    parameters=134_515_008,
    layers=30,
    hidden=576,
    heads=9,
    kv_heads=3,
    head_dim=64,
    context_tokens=8192,
    vocabulary=49_152,
    quantisation="Q4_1",
    weight_bytes=96_000_000,
    chat_template=True,
)


class FakeWeights:
    """Implements `protocol.Weights`; a pickle's name is refused as by the real one."""

    def __init__(self, answer: ModelFacts = SMALL, *, on_call: Hook = no_hook) -> None:
        self._answer = answer
        self._on_call = on_call
        self.refuse: DriverError | None = None

    async def facts(self, parts: Sequence[Part]) -> ModelFacts:
        self._on_call("weights.facts")
        if self.refuse is not None:
            raise self.refuse
        for part in parts:
            pickles.check_name(part.path)
        suffixes = {part.path.rpartition(".")[2] for part in parts} & {"gguf", "safetensors"}
        if len(suffixes) != 1:
            raise refused("it has weights of two formats" if suffixes else "it has no weights")
        return self._answer.model_copy(update={"format": suffixes.pop()})
