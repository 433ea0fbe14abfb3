"""`Trace`: hosts, and the requests that came to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from bessemer.core.asking import Request
from bessemer.placement.facts import HostFacts


@dataclass(frozen=True)
class Trace:
    """Hosts and requests in the order of their files. Devices are the sound GPUs of the hosts."""

    hosts: tuple[HostFacts, ...]
    requests: tuple[Request, ...]

    @cached_property
    def devices(self) -> int:
        """How many there are in all."""
        return sum(d.kind == "gpu" and d.healthy for host in self.hosts for d in host.inventory.devices)

    @property
    def capacity_milli(self) -> int:
        """Thousandths of devices in all."""
        return 1000 * self.devices

    def halves(self) -> tuple[Trace, Trace]:
        """The same hosts with the first half of the requests, and with the second."""
        middle = len(self.requests) // 2
        return replace(self, requests=self.requests[:middle]), replace(self, requests=self.requests[middle:])

    def named_anew(self, seed: int) -> Sequence[HostFacts]:
        """The hosts under names of this seed. Equal costs are told apart by an order of hosts that follows from their
        names, and that order is worth a point: so a mean over seeds is one over orders, too."""
        return [replace(host, name=f"{host.name}.{seed}") for host in self.hosts]


def milli_of(request: Request) -> int:
    """Thousandths of devices that a request wants, all together."""
    return request.device_count * request.device_milli
