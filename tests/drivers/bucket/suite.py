"""What every bucket promises, whoever keeps it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bessemer.core.errors import DriverError
from bessemer.drivers.bucket.protocol import NOT_FOUND, REFUSED, Bucket

NAMES = ("a=1/x+y.gz", "a=1/x.gz", "a=1/ü.gz", "b/2026/01/02/03/n-000001.jsonl.gz", "c/1/x.gz", "c/2/x.gz")


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
    for last in range(len(NAMES)):
        following = [f"p/{name}" for name in sorted(NAMES)[last + 1 :]]
        assert (await bucket.listed("p/", after=f"p/{sorted(NAMES)[last]}"))[:1] == following[:1]
    await bucket.remove("p/c/1/x.gz")
    assert await bucket.listed("p/", after="p/c/1/x.gz") == ["p/c/2/x.gz"], (
        "also after one that is gone, folder and all"
    )
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
