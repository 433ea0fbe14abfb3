"""Takes away what is older than a tenant wants kept: objects of our names below one endpoint's, and nothing else.

Whoever does not know what time it is removes nothing: a place takes no word that is signed for another time than its
own, and the words by which objects are removed are signed.
"""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime

from bessemer.drivers.bucket.protocol import Bucket

REMOVED_MAX, PAGES_MAX = 200, 50
"""Of one sweep."""
PAUSE_SECONDS = 0.05
"""Between two that are removed: a place may name as many as it likes, and each is a connection."""
CALL_SECONDS = 60.0
"""That a place may take for anything, whatever its driver bounds."""
_HOUR = 3600.0
_NAME = re.compile(r"([0-9]{4}/[0-9]{2}/[0-9]{2}/[0-9]{2})/[A-Za-z0-9-]{1,64}\.jsonl\.gz")


def hour_of(now: float) -> str:
    """The hour as the name of an object says it."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y/%m/%d/%H")


async def sweep(bucket: Bucket, base: str, *, oldest: float) -> bool:
    """Remove what is below ``base`` and of an hour that ended before ``oldest``; whether that was all. Raises
    DriverError, TimeoutError."""
    after, removed = "", 0
    for _ in range(PAGES_MAX):
        page = await asyncio.wait_for(bucket.listed(base, after=after), CALL_SECONDS)
        for key in page:
            begun = _begun(key.removeprefix(base))
            if begun is None:
                continue
            if begun + _HOUR > oldest:
                return True  # and so is all that follows
            if removed == REMOVED_MAX:
                return False
            await asyncio.wait_for(bucket.remove(key), CALL_SECONDS)
            removed += 1
            await asyncio.sleep(PAUSE_SECONDS)
        if not page:
            return True
        after = page[-1]
    return False


def _begun(name: str) -> float | None:
    """When the hour began that an object of ours is of; None for what is none of ours."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    try:
        return datetime.strptime(found[1], "%Y/%m/%d/%H").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
