"""Requests as they come: drawn, since no trace of others is kept here."""

from __future__ import annotations

import random
from collections.abc import Sequence

from bench._requests import chat

from bessemer.kinds.inference.replay import Asked

__all__ = ["burst", "chat"]


def burst(*, quiet: float, length: float, a_second: float, times: int = 1, seed: int = 7) -> Sequence[Asked]:
    """One a second, then for a while many more, so many times, then one again."""
    draw, at, found = random.Random(seed), 0.0, []
    while at < quiet + times * (quiet + length):
        at += draw.expovariate(a_second if at % (quiet + length) >= quiet else 1.0)
        found.append(Asked(at, 500, 200))
    return found
