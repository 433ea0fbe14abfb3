"""What an agent runs for a Claim: the half of a kind that lives on a host.

An agent's loop has one kind, Claim; whose host side it calls stands in ``spec.workload.kind`` (`kinds.HOST_SIDES`). A
host side keeps nothing in memory: it observes through the drivers by the Claim's uid, decides purely over that and the
Claim's last status, acts, and returns the new `ClaimStatus` in its outcome. So an agent may die at any call and be
another program when it comes back.

How an outcome reads: ``Done`` with status Running or Stopped is what was asked; ``Wait`` and ``Fail`` carry the reason
that is in ``status.reason`` too. The agent writes the status as it is and looks again after ``again`` seconds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from bessemer.core.resource import Outcome
from bessemer.drivers.qemu.protocol import Console
from bessemer.kinds.context import HostContext
from bessemer.kinds.fleet.claim import Claim


class HostSide(Protocol):
    """The host's half of one kind of workload."""

    async def converge(self, ctx: HostContext, claim: Claim) -> Outcome:
        """One step towards the claim's intent; its status is a `ClaimStatus`."""
        ...

    async def remove(self, ctx: HostContext, claim: Claim) -> Outcome:
        """Leave nothing of the claim on this host. ``Done``: the agent reports Gone and forgets it."""
        ...

    def log(self, ctx: HostContext, claim: Claim, *, follow: bool) -> AsyncIterator[bytes]:
        """What the workload printed, from the oldest byte kept."""
        ...


class HasConsole(Protocol):
    """A host side whose workload has a serial console to type into."""

    async def console(self, ctx: HostContext, claim: Claim) -> Console:
        """Attach. Raises DriverError ``GuestNotRunning``, ``ConsoleBusy``."""
        ...
