"""The only room that touches infrastructure: a folder per thing, each with ``{protocol,real,fake}.py``.

A protocol says what one thing of the world can do, in frozen values and async methods; the real driver does it, the
fake does the same on an injected clock, and one contract suite runs on both. Drivers are driven by uid: every effect
can be found again by the uid that it was made for, so that a caller that crashed at any call just calls again.
A refusal is a `DriverError` whose reason a condition can show. Drivers hold no policy: when to restart, where to place
and what to bill is decided above them.
"""

from __future__ import annotations

from collections.abc import Callable

Hook = Callable[[str], None]
"""What a fake calls around each act: ``process.start`` before it and ``process.start.done`` after it took effect."""


def no_hook(_name: str) -> None:
    """The hook of a fake that nobody watches."""
