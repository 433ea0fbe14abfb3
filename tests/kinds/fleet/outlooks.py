"""How tests derive an outlook: at once, so that nothing depends on when a thread is done."""

from __future__ import annotations

from collections.abc import Mapping

from bessemer.placement.demand import Mix, Outlook
from bessemer.placement.hostclass import HostClass


async def at_once(mix: Mix, hosts: Mapping[HostClass, int]) -> Outlook:
    return Outlook.derive(mix, hosts)
