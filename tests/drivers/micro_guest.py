"""The real micro-guest image, built once for a run of the tests; packages are kept between runs."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bessemer.drivers.guest.protocol import BuiltImage
from bessemer.drivers.guest.real import DebianGuest


def package_cache() -> Path:
    """Where downloaded packages stay: ``BESSEMER_TEST_CACHE``, or the user's cache."""
    chosen = os.environ.get("BESSEMER_TEST_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "bessemer" / "packages"


def build(dest: Path) -> BuiltImage:
    """Build the image, whether or not an event loop runs in this thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(
            lambda: asyncio.run(DebianGuest().build(dest, cache=package_cache(), progress=lambda _what, _part: None))
        ).result()
