"""Threads of a fake host: what was asked is kept, to be looked at."""

from __future__ import annotations

from collections.abc import Mapping

from bessemer.drivers import Hook, no_hook


class FakeThreads:
    """Implements `threads.protocol.Threads`. ``own`` is what holds now."""

    def __init__(self, *, on_call: Hook = no_hook) -> None:
        self._on_call = on_call
        self.own: dict[str, str] = {}

    async def keep(self, own: Mapping[str, str]) -> None:
        self._on_call("threads.keep")
        self.own = dict(own)
        self._on_call("threads.keep.done")
