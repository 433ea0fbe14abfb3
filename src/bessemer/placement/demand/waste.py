"""What is left over of a device, and how much of it is waste.

Shares are cut from devices as lengths from stock: the linear program of Gilmore and Gomory ("A Linear Programming
Approach to the Cutting-Stock Problem", Operations Research 9, 1961) minimises the devices that serve a mix of sizes.
Its dual prices say what a share of each size is worth in devices. A left-over is worth the best that can still be cut
from it, and the rest of it is waste. Exact within 1e-6 up to `SIZES` different sizes; more are rounded up to a grid.

Prices jump from one corner of the program to another where the mix changes a little, and a size that is rare may be
worth nothing. What will come is never quite what came, so `hedged_waste` goes by the mean over mixes near the one that
was seen. A mean of prices under which no pattern is worth more than its device is such prices again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import exp, sqrt

import numpy as np

from bessemer.placement.demand.mix import Floats
from bessemer.placement.demand.solver import Program

WHOLE = 1000
"""Thousandths of a device."""

SIZES = 100
"""More different sizes than these are rounded up, to hundredths of a device."""

ROUNDS = 300
"""At most as many patterns are generated; where that does not suffice, prices are scaled so that none is too high."""

CLOSE = 1e-6

EVEN = 0.4
"""This part of a hedged mix is spread evenly over its sizes: so none is rare."""

NEAR = 0.5
"""Standard deviation of the logarithm of how often a size is asked for, from one of the mixes near by to another."""

MIXES = 64
"""As many mixes near by, each second one the opposite of the one before."""

_STRIDE = 0.7548776662466927
"""Multiples of it, less what is whole of them, are spread evenly from 0 to 1 (Roberts 2018: 1 / the plastic number)."""


def dual_waste(sizes: Mapping[int, float]) -> Floats:
    """[WHOLE + 1]: of each left-over, thousandths that are waste. Below zero where more can be cut from it than its
    length is worth; all zeros without shares, or without an answer. ``sizes``: how often each is asked for."""
    return _waste([rounded(sizes)])


def hedged_waste(sizes: Mapping[int, float]) -> Floats:
    """The same, for demand of which the past is only a sample: the mean over mixes near the one that was seen."""
    return _waste(list(nearby(rounded(sizes))))


def nearby(sizes: Mapping[int, float]) -> Iterator[dict[int, float]]:
    """`MIXES` mixes near one, each of the same sizes. Equal sizes make equal mixes: nothing is thrown."""
    every = sum(sizes.values()) or 1.0
    level = {size: (1 - EVEN) * count / every + EVEN / len(sizes) for size, count in sizes.items()}
    for k in range(MIXES // 2):
        # Even from -√3 to √3, which deviates by 1; each size goes through its mixes at a pace of its own.
        off = {size: sqrt(3) * (2 * ((k + 1) * size * _STRIDE % 1.0) - 1) for size in sizes}
        yield {size: part * exp(NEAR * off[size]) for size, part in level.items()}
        yield {size: part * exp(-NEAR * off[size]) for size, part in level.items()}


def _waste(mixes: Sequence[Mapping[int, float]]) -> Floats:
    """By the mean of what is cut best in each of the mixes, which are of the same sizes."""
    worths, patterns = [], list[dict[int, int]]()
    for sizes in mixes:
        # What sufficed for one is nearly enough for the next.
        found = generated(sizes, known=patterns)
        if found is not None:
            patterns, prices = found
            worths.append(best_cuts(list(sizes), prices))
    if not worths:
        return np.zeros(WHOLE + 1)
    worth = np.mean(worths, axis=0)
    worth[WHOLE] = 1.0
    waste: Floats = np.arange(WHOLE + 1) - WHOLE * worth
    return waste


def rounded(sizes: Mapping[int, float]) -> dict[int, float]:
    """The sizes that are less than a device, ascending, at most `SIZES` of them."""
    kept = {size: count for size, count in sorted(sizes.items()) if 0 < size < WHOLE and count > 0}
    if len(kept) <= SIZES:
        return kept
    step, merged = WHOLE // SIZES, dict[int, float]()
    for size, count in kept.items():
        up = -(-size // step) * step
        merged[up] = merged.get(up, 0.0) + count
    return merged


def cutting_prices(sizes: Mapping[int, float]) -> Floats | None:
    """[sizes]: what a share of each size is worth, in devices. None without sizes, or without an answer."""
    found = generated(sizes)
    return None if found is None else found[1]


def generated(
    sizes: Mapping[int, float], *, known: Sequence[dict[int, int]] = ()
) -> tuple[list[dict[int, int]], Floats] | None:
    """The patterns (how many of the i-th size) that sufficed for the optimum, by column generation, and the prices.
    ``known``: patterns of these sizes to begin with."""
    lengths, counts = list(sizes), np.array(list(sizes.values()), dtype=np.float64)
    if not lengths:
        return None
    counts /= counts.sum()
    patterns = list(known) or [{i: WHOLE // length} for i, length in enumerate(lengths)]
    prices, worth = np.zeros(len(lengths)), np.zeros(WHOLE + 1)
    for _ in range(ROUNDS):
        found = _prices(patterns, counts)
        if found is None:
            return None
        prices = found
        worth = best_cuts(lengths, prices)
        if worth[WHOLE] <= 1.0 + CLOSE:
            break
        patterns.append(_cut(lengths, prices=prices, worth=worth))
    # Farley's bound: prices under which no pattern is worth more than the device that it is cut from.
    return patterns, prices / max(1.0, worth[WHOLE])


def best_cuts(lengths: Sequence[int], prices: Floats) -> Floats:
    """[WHOLE + 1]: the most that can be cut from each length: the knapsack with as many of each as one likes."""
    worth = np.zeros(WHOLE + 1)
    for length, price in zip(lengths, prices, strict=True):
        if price <= 0:
            continue
        # One, two, four … at once: together any number of them.
        many = 1
        while many * length <= WHOLE:
            reach = many * length
            np.maximum(worth[reach:], worth[:-reach] + many * price, out=worth[reach:])
            many *= 2
    return worth


def _prices(patterns: Sequence[Mapping[int, int]], counts: Floats) -> Floats | None:
    """The dual prices of the program over these patterns: fewest devices such that each size is cut often enough."""
    program = Program(np.ones(len(patterns)))
    for i, count in enumerate(counts):
        using = [j for j, pattern in enumerate(patterns) if i in pattern]
        program.row(using, [float(patterns[j][i]) for j in using], lower=float(count))
    solution = program.solve()
    return None if solution is None else np.maximum(solution.prices, 0.0)


def _cut(lengths: Sequence[int], *, prices: Floats, worth: Floats) -> dict[int, int]:
    """The pattern that is worth most, read back from the knapsack."""
    left, pattern = WHOLE, dict[int, int]()
    while worth[left] > 1e-12:
        options = [
            (abs(worth[left - length] + price - worth[left]), i)
            for i, (length, price) in enumerate(zip(lengths, prices, strict=True))
            if length <= left and price > 0
        ]
        chosen = min(options)[1]
        pattern[chosen] = pattern.get(chosen, 0) + 1
        left -= lengths[chosen]
    return pattern
