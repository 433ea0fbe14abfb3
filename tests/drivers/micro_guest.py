"""The real micro-guest image, built once for a run of the tests; packages are kept between runs."""

from __future__ import annotations

import asyncio
import fcntl
import functools
import os
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from bessemer.drivers.guest.packages import Packages
from bessemer.drivers.guest.protocol import BuiltImage
from bessemer.drivers.guest.real import KERNELS, DebianGuest

T = TypeVar("T")


@functools.cache
def package_cache() -> Path:
    """Where downloaded packages stay: ``BESSEMER_TEST_CACHE``, or the user's cache. They are there once it is told: of
    test processes that want them at once, one downloads them."""
    chosen = os.environ.get("BESSEMER_TEST_CACHE")
    place = Path(chosen) if chosen else Path.home() / ".cache" / "bessemer" / "packages"
    place.mkdir(parents=True, exist_ok=True)
    with place.with_suffix(".lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        _aside(_fill(place))
    return place


async def _fill(place: Path) -> None:
    packages = Packages(place)
    for name in (await packages.kernel(KERNELS), "busybox-static"):
        await packages.download(name)


def build(dest: Path) -> BuiltImage:
    """Build the image, whether or not an event loop runs in this thread."""
    return _aside(DebianGuest().build(dest, cache=package_cache(), progress=lambda _what, _part: None))


def _aside(work: Coroutine[Any, Any, T]) -> T:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(work)).result()
