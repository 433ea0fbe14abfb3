"""What NVIDIA's management library says of its GPUs: names, memory, health, and who is linked to whom."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pynvml

_Handle = Any
"""An opaque pointer of the library."""


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """One GPU. ``links`` are PCI addresses at the other ends of its NVLinks: GPUs, or the switches between them."""

    address: str
    name: str
    memory_bytes: int
    healthy: bool
    links: frozenset[str]


def read_gpus() -> Mapping[str, GpuFacts]:
    """GPUs by PCI address; empty where there is no driver. A GPU that does not answer is there and not healthy."""
    with _library() as ready:
        if not ready:
            return {}
        found = [_facts(index) for index in range(pynvml.nvmlDeviceGetCount())]
    return {facts.address: facts for facts in found if facts is not None}


def nvlink_domains(gpus: Mapping[str, GpuFacts]) -> Mapping[str, str]:
    """GPUs' domains by address: those that reach each other by NVLink share one. GPUs without links have none."""
    domains: dict[str, str] = {}
    for address in sorted(gpus):
        if address in domains or not gpus[address].links:
            continue
        name = f"nvlink-{len(set(domains.values()))}"
        for member in _reachable(gpus, address):
            domains[member] = name
    return domains


def _reachable(gpus: Mapping[str, GpuFacts], start: str) -> set[str]:
    seen, waiting = {start}, [start]
    while waiting:
        here = gpus[waiting.pop()]
        ends = here.links | {here.address}
        near = {a for a, other in gpus.items() if a not in seen and (a in ends or ends & other.links)}
        seen |= near
        waiting.extend(near)
    return seen


@contextmanager
def _library() -> Iterator[bool]:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield False
        return
    try:
        yield True
    finally:
        pynvml.nvmlShutdown()


def _facts(index: int) -> GpuFacts | None:
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        address = address_of(pynvml.nvmlDeviceGetPciInfo(handle).busId)
        name = _text(pynvml.nvmlDeviceGetName(handle))
        memory = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
    except pynvml.NVMLError:
        # A GPU that fell off the bus still shows in sysfs, where nothing vouches for it.
        return None
    return GpuFacts(address, name, memory, _healthy(handle), frozenset(_links(handle)))


def _healthy(handle: _Handle) -> bool:
    """False once rows of memory could not be remapped: the GPU's own word that it is to be exchanged."""
    rows = _ask(pynvml.nvmlDeviceGetRemappedRows, handle)
    return rows is None or not rows[3]


def _links(handle: _Handle) -> Iterator[str]:
    for link in range(pynvml.NVML_NVLINK_MAX_LINKS):
        if _ask(pynvml.nvmlDeviceGetNvLinkState, handle, link) == pynvml.NVML_FEATURE_ENABLED:
            remote = _ask(pynvml.nvmlDeviceGetNvLinkRemotePciInfo, handle, link)
            if remote is not None:
                yield address_of(remote.busId)


def _ask(question: Callable[..., Any], *about: Any) -> Any:
    """The answer, or None where this GPU or driver does not know the question."""
    try:
        return question(*about)
    except pynvml.NVMLError:
        return None


def address_of(bus_id: bytes | str) -> str:
    """A PCI address: ``00000000:1B:00.0`` → ``0000:1b:00.0``, as sysfs writes it."""
    domain, _, rest = _text(bus_id).lower().partition(":")
    return f"{int(domain, 16):04x}:{rest}"


def _text(words: bytes | str) -> str:
    return words.decode(errors="replace") if isinstance(words, bytes) else words
