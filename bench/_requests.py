"""Requests as they come to a service of chat, drawn: where no trace of others is given."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from bessemer.kinds.inference.replay import Asked


def chat(*, seconds: float, a_second: float, swing: float = 0.5, seed: int = 7) -> Sequence[Asked]:
    """By chance, more and fewer of them over each 20 minutes; prompts of about 600 tokens, answers of about 200."""
    draw, at, found = random.Random(seed), 0.0, []
    while True:
        at += draw.expovariate(a_second * (1 + swing * math.sin(2 * math.pi * at / 1200)))
        if at >= seconds:
            return found
        found.append(Asked(at, round(draw.lognormvariate(6, 0.8)) + 1, round(draw.lognormvariate(4.8, 0.9)) + 2))
