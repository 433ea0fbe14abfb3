"""How figures and things are called in reasons and in what would help."""

from __future__ import annotations

from collections.abc import Collection

from bessemer.core.asking import Request
from bessemer.core.beside import Companion
from bessemer.core.units import show_bytes

_ABBREVIATIONS = ("nic", "ib", "fpga", "npu", "dpu", "ssd", "hca")


def device_words(request: Request) -> str:
    """What devices it asks for: "GPUs", "H100", "A100 or H100", "1g.10gb of H100"."""
    words = _either(request.device_models) or ("GPU" if request.device_count == 1 else "GPUs")
    return f"{request.device_profile} of {words}" if request.device_profile else words


def share_words(request: Request) -> str:
    """Which share of what devices: "0.25 H100", "20 GiB of one H100"."""
    if request.device_bytes:
        return f"{show_bytes(request.device_bytes)} of one {device_words(request)}"
    return f"{show_milli(request.device_milli)} {device_words(request)}"


def companion_words(one: Companion, *, count: int | None = None) -> str:
    """What it is called: "NIC", "2 ConnectX-7", "NIC with 4 functions free"."""
    count = one.count if count is None else count
    kind = one.kind.upper() if one.kind in _ABBREVIATIONS else one.kind
    name = _either(one.models) or (f"{kind}s" if count > 1 else kind)
    functions = f" with {one.functions} function{'s' if one.functions > 1 else ''}" if one.functions else ""
    return f"{f'{count} ' if count > 1 else ''}{name}{functions}"


def cores_words(request: Request, milli: int | None = None) -> str:
    """How many cores of which sort: "8 cores", "8 dedicated threads"."""
    milli = request.milli_cores if milli is None else milli
    plural = "" if milli == 1000 else "s"
    sort = {"shared": f"core{plural}", "threads": f"dedicated thread{plural}"}
    return f"{show_milli(milli)} {sort.get(request.cpu_policy, f'thread{plural} on dedicated physical cores')}"


def memory_words(request: Request, memory: int | None = None) -> str:
    """How much memory of which sort: "4 GiB of memory", "4 GiB in huge pages of 2 MiB"."""
    size = show_bytes(request.memory_bytes if memory is None else memory)
    return f"{size} in huge pages of {show_bytes(request.page_bytes)}" if request.page_bytes else f"{size} of memory"


def best(hosts: int, figure: str | int) -> str:
    """The best of several hosts' figures, or the one host's."""
    return f"at most {figure}" if hosts > 1 else str(figure)


def show_milli(milli: int) -> str:
    """``1500`` → ``1.5``."""
    return f"{milli / 1000:g}"


def _either(models: Collection[str]) -> str:
    *others, last = sorted(models) or ("",)
    return f"{', '.join(others)} or {last}" if others else last
