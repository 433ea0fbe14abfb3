"""NVLink partitions as the Fabric Manager offers them, by its partition manager ``fmpm`` where a host has that.

``fmpm -l`` writes JSON: ``partitionInfo``, a list, of each ``gpuInfo``, a list, of each ``pciBusId`` (NVIDIA,
Fabric-Manager-Client; fields as in the Fabric Manager SDK). A manager that sees no GPUs itself, as in a service VM,
leaves the address empty; which GPU is meant is not known then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import orjson
import structlog

from bessemer.core.hosts import NVLINK_PARTITIONS_MAX
from bessemer.drivers.inspect.nvml import address_of

_TIMEOUT_SECONDS = 5

_log = structlog.get_logger(__name__)


async def read_partitions(program: str = "fmpm") -> list[list[str]]:
    """PCI addresses of the GPUs of each partition; none where nobody offers any."""
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            "-l",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return []
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            out, _ = await process.communicate()
    except TimeoutError:
        _log.warning("the Fabric Manager does not answer")
        return []
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return [] if process.returncode else partitions_of(out)


def partitions_of(said: bytes) -> list[list[str]]:
    """What ``fmpm -l`` wrote. A partition of which some GPU has no address, or one twice, is left out."""
    try:
        listed = orjson.loads(said)["partitionInfo"]
        found = [_addresses(one["gpuInfo"]) for one in listed]
    except (ValueError, KeyError, TypeError, AttributeError):
        _log.warning("the Fabric Manager's partitions make no sense")
        return []
    whole = (some for some in found if some and all(some) and len(set(some)) == len(some))
    known = list({frozenset(some): some for some in whole}.values())[:NVLINK_PARTITIONS_MAX]
    if len(known) < len(found):
        _log.warning("NVLink partitions left out", found=len(found), reported=len(known))
    return known


def _addresses(gpus: Sequence[dict[str, str]]) -> list[str]:
    return [address_of(gpu["pciBusId"]) if gpu["pciBusId"] else "" for gpu in gpus]
