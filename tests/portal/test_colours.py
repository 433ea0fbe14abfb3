"""The tokens' colours, computed: contrast of every pair in use, and how far apart ten tenants are for every eye."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import bessemer.portal

Colours = dict[str, str]
Vector = NDArray[np.float64]

TOKENS = Path(bessemer.portal.__file__).parent / "static" / "tokens.css"
TEXT = (
    *(f"ink on {ground}" for ground in ("surface", "bg", "surface-3", "stuck-bg", "failed-bg")),
    *(f"ink-2 on {ground}" for ground in ("surface", "surface-3", "waiting-bg")),
    *(f"ink-3 on {ground}" for ground in ("surface", "bg", "surface-2")),
    *(f"{state} on surface" for state in ("ok", "waiting", "stuck", "failed", "free", "cordoned")),
    *(f"{state} on {state}-bg" for state in ("ok", "waiting", "stuck", "failed", "free", "cordoned")),
    "ink-inverse on solid",
    *(f"{ink} on term-bg" for ink in ("term-ink", "term-dim", "term-bad")),
)
SHAPES = (
    *(f"{line} on surface" for line in ("line-control", "ok-line", "stuck-line", "failed-line", "cordoned-line")),
    "waiting-line on surface-2",
    "focus on bg",
    "focus on surface",
    *(f"{plot} on surface" for plot in ("plot-1", "plot-2", "plot-3", "plot-goal")),
    *(f"tenant-{n} on surface" for n in range(1, 11)),
)
APART = 0.07
"""OKLab distance; Tableau's ten come to 0.007 for a deutan eye."""

EYES = {
    "normal": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protan": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deutan": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritan": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}
"""What an eye makes of linear red, green and blue (Machado, Oliveira and Fernandes, 2009)."""

TO_LMS = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
TO_LAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)


def colours(theme: str) -> Colours:
    """The tokens of a theme; what dark does not say is light's."""
    text = TOKENS.read_text()
    found: Colours = {}
    for selector in (":root", ':root[data-theme="dark"]')[: 1 + (theme == "dark")]:
        block = text.partition(f"\n{selector} {{")[2].partition("\n}")[0]
        found |= dict(re.findall(r"--([\w-]+):\s*(#[0-9a-f]{6})\b", block))
    return found


def linear(colour: str) -> Vector:
    parts = np.array([int(colour[n : n + 2], 16) for n in (1, 3, 5)]) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """As WCAG 2 has it, from 1 to 21."""
    dark, light = sorted(float(linear(colour) @ (0.2126, 0.7152, 0.0722)) for colour in (one, other))
    return (light + 0.05) / (dark + 0.05)


def seen(colour: str, eye: str) -> Vector:
    """In OKLab."""
    shown = np.clip(np.array(EYES[eye]) @ linear(colour), 0, 1)
    found: Vector = np.array(TO_LAB) @ np.cbrt(np.array(TO_LMS) @ shown)
    return found


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_what_is_read_can_be_read(theme: str) -> None:
    known = colours(theme)
    pale = []
    for pairs, least in ((TEXT, 4.5), (SHAPES, 3.0)):
        for pair in pairs:
            ink, _, ground = pair.partition(" on ")
            if (ratio := contrast(known[ink], known[ground])) < least:
                pale.append(f"{pair}: {ratio:.2f}")
    assert pale == []


@pytest.mark.parametrize("eye", EYES)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_tenants_stay_apart(theme: str, eye: str) -> None:
    known = colours(theme)
    cells = [known[f"tenant-{n}"] for n in range(1, 11)] + [known["cell-free"]]
    nearest = min(float(np.linalg.norm(seen(a, eye) - seen(b, eye))) for a, b in itertools.combinations(cells, 2))
    assert nearest >= APART
