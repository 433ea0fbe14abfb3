"""What every bucket promises, whoever keeps it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bessemer.core.errors import DriverError
from bessemer.drivers.bucket.protocol import NOT_FOUND, REFUSED, Bucket

NAMES = ("a=1/x+y.gz", "a=1/x.gz", "a=1/ü.gz", "b/2026/01/02/03/n-000001.jsonl.gz")


async def all_of(bucket: Bucket, prefix: str) -> list[str]:
    found: list[str] = []
    while page := await bucket.listed(prefix, after=found[-1] if found else ""):
        found += page
    return found


async def holds(bucket: Bucket, *, wrong: Sequence[Bucket], nowhere: Sequence[Bucket]) -> None:
    """Of an empty ``bucket``; keys of ``wrong`` are none of it, ``nowhere`` is none."""
    for name in NAMES:
        await bucket.put(f"p/{name}", b"one")
        await bucket.put(f"p/{name}", b"two" * 1000)
    await bucket.put("q/other", b"")
    assert await all_of(bucket, "p/") == sorted(f"p/{name}" for name in NAMES)
    assert await all_of(bucket, "p/b/") == [f"p/{NAMES[3]}"]
    assert await bucket.listed("p/", after="p/b") == [f"p/{NAMES[3]}"]
    for name in NAMES:
        await bucket.remove(f"p/{name}")
        await bucket.remove(f"p/{name}")
    assert await all_of(bucket, "p/") == []
    assert await all_of(bucket, "") == ["q/other"]
    assert await bucket.expire("p/", days=3)
    assert await bucket.expire("p/", days=3)
    assert await bucket.expire("q/", days=9)
    for other in wrong:
        for call in (other.put("p/x", b""), other.listed("p/"), other.remove("p/x")):
            with pytest.raises(DriverError) as refused:
                await call
            assert refused.value.reason == REFUSED
    for other in nowhere:
        with pytest.raises(DriverError) as refused:
            await other.put("p/x", b"")
        assert refused.value.reason in (NOT_FOUND, REFUSED)
