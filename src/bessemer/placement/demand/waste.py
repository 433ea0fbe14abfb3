"""What is left over of a device, and how much of it is waste.

Shares are cut from devices as lengths from stock: the linear program of Gilmore and Gomory ("A Linear Programming
Approach to the Cutting-Stock Problem", Operations Research 9, 1961) minimises the devices that serve a mix of sizes.
Its dual prices say what a share of each size is worth in devices. A left-over is worth the best that can still be cut
from it, and the rest of it is waste. Exact within 1e-6 up to `SIZES` different sizes; more are rounded up to a grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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


def dual_waste(sizes: Mapping[int, float]) -> Floats:
    """[WHOLE + 1]: of each left-over, thousandths that are waste. Below zero where more can be cut from it than its
    length is worth; all zeros without shares, or without an answer. ``sizes``: how often each is asked for."""
    wanted = rounded(sizes)
    prices = cutting_prices(wanted)
    if prices is None:
        return np.zeros(WHOLE + 1)
    worth = best_cuts(list(wanted), prices)
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


def generated(sizes: Mapping[int, float]) -> tuple[list[dict[int, int]], Floats] | None:
    """The patterns (how many of the i-th size) that sufficed for the optimum, by column generation, and the prices."""
    lengths, counts = list(sizes), np.array(list(sizes.values()), dtype=np.float64)
    if not lengths:
        return None
    counts /= counts.sum()
    patterns = [{i: WHOLE // length} for i, length in enumerate(lengths)]
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
