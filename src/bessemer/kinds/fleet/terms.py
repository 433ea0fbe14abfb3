"""What a place costs the fleet, by the parts of a policy's figure, in words: of whichever kind is placed."""

from __future__ import annotations

from collections.abc import Mapping

TERMS: Mapping[str, str] = {
    "fragments": "left-overs that fit nothing typical",
    "waste": "left-overs of a device that cannot be cut up",
    "blocks": "a free host broken up",
    "strand": "devices left without cores",
    "plan": "a scarce kind of host",
    "surcharge": "more than this shape's part of a scarce kind of host",
}
"""A part of a policy's score in words."""


def cost_words(parts: Mapping[str, float]) -> str:
    """``0.1 of a device (left-overs that fit nothing typical +100, in thousandths)``; "" where nothing has a cost.
    Below zero the fleet is better off."""
    told = ", ".join(f"{TERMS.get(name, name)} {figure:+g}" for name, figure in parts.items() if figure)
    return f"{of_a_device(sum(parts.values()))} ({told}, in thousandths)" if told else ""


def of_a_device(milli: float) -> str:
    """``0.1 of a device``."""
    return f"{milli / 1000:.3g} of a device"
