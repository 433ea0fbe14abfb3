"""The most that a request may amount to: what is held for it before it goes on. Pure."""

from __future__ import annotations

import msgspec

from bessemer.core.money import Prices
from bessemer.gateway.request import Wanted

TEMPLATE_TOKENS = 256
"""What a model's template may put around a conversation."""


class Need(msgspec.Struct, frozen=True, gc=False):
    """The most that a request may amount to in tokens, and how many of these it may write; ``models`` are those that
    may answer it, as records say them."""

    tokens: int
    writes: int
    models: tuple[str, ...] = ()

    def cost(self, prices: Prices) -> int:
        """What that may cost at most, whoever of them answers."""
        if prices.models:
            prices = prices.over(self.models)
        return prices.most(self.tokens, writes=self.writes)


def most(wanted: Wanted, context_tokens: int, *, models: tuple[str, ...] = ()) -> Need:
    """The most that a request may amount to, read and written: no token of a text is less than a byte, and no sequence
    has more than the context of a slot."""
    written, sequences = wanted.writes, wanted.sequences
    if written is None or written > context_tokens:
        written = context_tokens
    each = len(wanted.body) + TEMPLATE_TOKENS + written
    if wanted.unmeasured or each > context_tokens:
        each = context_tokens
    return Need(sequences * each or 1, sequences * written, models)
