"""What can be asked of the machine itself.

It changes nothing and decides nothing: what a host may be used for is judged by whoever reads the inventory.
"""

from __future__ import annotations

from typing import Protocol

from bessemer.core.hosts import Inventory


class Inspect(Protocol):
    """Looks at one machine."""

    async def inventory(self) -> Inventory:
        """Everything the machine has, looked up anew; whether KVM runs a guest is tried once per boot.

        Device ids are unique and stable on the host. What cannot be read is left out, never guessed.
        """
        ...
