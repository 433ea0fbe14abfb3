"""Who may write what, below HTTP: the single-writer rules of the design. Everything else is the api's to decide.

- A Claim is made, changed and removed by `Capacity` alone; its status is its host's agent's.
- A Host's ``status.report`` is that host's agent's; the rest of its status is the control side's.
- Status is the control side's; users write intent. Agents and gateways write nothing else.
"""

from __future__ import annotations

from bessemer.core.errors import Forbidden
from bessemer.core.ports import Part, Writer
from bessemer.core.resource import Key
from bessemer.store.kinds import CLAIM, HOST

_INTENT = ("user", "controller", "system")
_CONTROL = ("controller", "system")


def name(writer: Writer) -> str:
    """``user:alice``, as audit rows and refusals call a writer."""
    return f"{writer.kind}:{writer.name}"


def may_write_main(key: Key, writer: Writer) -> None:
    """Create, replace or delete. Raises Forbidden."""
    if key.kind == CLAIM:
        raise Forbidden("Claims are written by the transaction that takes the hardware; write the workload instead")
    if writer.kind not in _INTENT:
        raise Forbidden(f"{name(writer)} writes no {key.kind}")


def may_write_part(key: Key, host: str, *, part: Part, writer: Writer) -> None:
    """Replace ``status`` or ``report``; ``host`` is the one that a Claim stands on. Raises Forbidden."""
    if part == "report":
        if key.kind != HOST:
            raise Forbidden(f"a {key.kind} has no report")
        host = key.name
    elif key.kind != CLAIM:
        if writer.kind not in _CONTROL:
            raise Forbidden(f"the status of a {key.kind} is written by the control side alone")
        return
    if writer.kind != "agent" or writer.name != host:
        raise Forbidden(f"only the agent of host {host} may write the {part} of {key}")


def may_take(writer: Writer) -> None:
    """Write through `Capacity`. Raises Forbidden."""
    if writer.kind not in _CONTROL:
        raise Forbidden(f"{name(writer)} takes no hardware: workloads do, through the control side")
