"""`Turnover`: how far a fleet is from being filled for the first time to being in balance."""

from __future__ import annotations

from math import exp

STEPS = 4
"""Into as many steps the turnover is divided for who derives anything from it."""


class Turnover:
    """Devices given back for each one taken, the older the less it counts: 0 while a fleet fills, near 1 once as much
    comes as goes. ``window`` is how many devices must be taken until what was before counts 1/e: some fleets' worth."""

    def __init__(self, *, window: float) -> None:
        self.resize(window)
        self._taken = 0.0
        self._returned = 0.0
        self._step = 0

    def resize(self, window: float) -> None:
        """Another window from here on: the fleet grew, or shrank."""
        self._window = max(window, 1.0) * 1000.0

    def took(self, milli: int) -> None:
        """A claim of ``milli`` thousandths of devices began."""
        kept = exp(-milli / self._window)
        self._taken = self._taken * kept + milli
        self._returned *= kept

    def gave_back(self, milli: int) -> None:
        """One ended."""
        self._returned += milli

    @property
    def ratio(self) -> float:
        """As it is now, 0 to 1; near 0 before a twentieth of the window was taken, which says little."""
        return min(1.0, self._returned / max(self._taken, self._window / 20))

    def stage(self) -> float:
        """The same in `STEPS` steps, 0 to 1; it moves once the ratio is three quarters of a step away, not to and fro
        about a boundary. For whoever makes every cost anew when it is another."""
        exact = self.ratio * STEPS
        if abs(exact - self._step) > 0.75:
            self._step = round(exact)
        return self._step / STEPS
