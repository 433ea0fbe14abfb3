"""What is known of a model: what its files say of themselves, and which files they are.

All of it was read from hostile files (`drivers.weights`) and judged there: words are short and printable, numbers
within what a model can have. 0 and "" stand for what the files do not say.
"""

from __future__ import annotations

from pydantic import Field

from bessemer.core.resource import ApiModel
from bessemer.core.values import nothing


class ModelFile(ApiModel):
    """One file of a model of several."""

    path: str = Field(description="Its path within the model.")
    digest: str = Field(description="sha256:… of its bytes.")
    size_bytes: int = Field(description="Its size.")


class AdapterFacts(ApiModel):
    """Weights that are added to another model's."""

    rank: int = Field(0, description="The rank of its matrices, the largest where they differ.")
    base: str = Field("", description="What its files call the model that it was made for.")


class ModelFacts(ApiModel):
    """What weights say of themselves. What a token takes in the cache of keys and values is
    ``2 × layers × kv_heads × head_dim`` numbers, unless ``latent`` or ``window_layers`` say less."""

    format: str = Field("", description="Format of the weights: gguf or safetensors.")
    architecture: str = Field("", description="What its makers call its architecture.")
    parameters: int = Field(0, description="Numbers in its tensors; packed ones count as they are stored.")
    layers: int = Field(0, description="Blocks of attention and feed-forward.")
    hidden: int = Field(0, description="Width of what goes from block to block.")
    heads: int = Field(0, description="Attention heads of a block, the most where blocks differ.")
    kv_heads: int = Field(0, description="Heads whose keys and values are kept, the most where blocks differ.")
    head_dim: int = Field(0, description="Numbers in a key.")
    experts: int = Field(0, description="Experts of a block; 0 where there is one path alone.", exclude_if=nothing)
    context_tokens: int = Field(0, description="The longest context that it was made for.")
    vocabulary: int = Field(0, description="Tokens that it knows.")
    quantisation: str = Field("", description="How most of its bytes are stored, or what its files call the method.")
    weight_bytes: int = Field(0, description="Bytes of its tensors.")
    chat_template: bool = Field(False, description="Whether it brings a template for conversations.")
    adapter: AdapterFacts | None = Field(None, description="Set where it is an adapter of another model.")
    latent: bool = Field(
        False,
        exclude_if=nothing,
        description="Whether one vector stands for keys and values of all heads (multi-head latent attention).",
    )
    window_tokens: int = Field(
        0, exclude_if=nothing, description="How far back the blocks look that do not look at everything."
    )
    window_layers: int = Field(0, exclude_if=nothing, description="How many blocks do not.")


class Vetted(ApiModel):
    """What was measured of a model where it really ran, in short: the whole report is the Vetting's."""

    vetting: str = Field(description="Name of the Vetting.")
    at: str = Field(description="When it ended.")
    digest: str = Field(description="Of what was measured.")
    flavor: str = Field(description="On which flavor.")
    engine: str = Field(description="By which engine.")
    context_tokens: int = Field(description="Context of a slot.")
    slots: int = Field(description="Requests that it answers at the same time.")
    fake: bool = Field(False, description="Whether the host is fake: then nothing of it is real.")
    rate: float = Field(description="The most requests a second with which it does as it should.")
    input_per_second: float = Field(description="Tokens that it reads then, cached ones too.")
    output_per_second: float = Field(description="Tokens that it writes then.")
    ttft_ms: float = Field(description="Time to the first token then, of 95 % at most.")
    inter_token_ms: float = Field(description="Time between two tokens then, of 95 % at most.")
    memory_bytes: int = Field(description="The most memory that its engine had.")
    estimate_bytes: int = Field(0, description="As it was estimated from the files; 0 where they do not say enough.")
    failed: list[str] = Field(default_factory=list, description="Names of the checks that failed.")
    task: str = Field("generate", exclude_if=lambda said: said == "generate", description="What it was measured for.")
    end_ms: float = Field(
        0.0, exclude_if=lambda said: not said, description="Of one that embeds: time to the vector, of 95 % at most."
    )
    input_seconds: float = Field(0.0, description="Of a claim, for a million tokens that are read at the target load.")
    cached_seconds: float = Field(0.0, description="Of a claim, for a million that are read from the cache.")
    output_seconds: float = Field(0.0, description="Of a claim, for a million tokens that are written.")
