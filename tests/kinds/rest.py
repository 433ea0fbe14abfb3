"""Phases in which an object waits for nothing. In each other phase of its kind a deadline says how long it may wait."""

from __future__ import annotations

from collections.abc import Mapping, Set
from types import MappingProxyType
from typing import Any, get_args

from bessemer.core.resource import Kind

AT_REST: Mapping[str, str] = MappingProxyType(
    {
        "Active": "it is as it should be",
        "Ready": "it is as it should be",
        "Running": "it is as it should be",
        "Succeeded": "it has ended well",
        "Stopped": "it is as its owner asked",
        "Suspended": "it is as an administrator asked, and keeps what it has",
        "Planned": "it is there to be looked at, and nothing is done until somebody says so",
        "Closed": "its receipt is written",
        "Cordoned": "it is as an administrator asked, and serves what it holds",
        "Fenced": "it is as an administrator asked",
        "Disabled": "it is as an administrator asked",
        "Expired": "its time is over",
        "Gone": "it is as it should be: whoever made it lets it go",
        "Failed": "it is given up and says why; only another intent or another world would help",
    }
)
"""Why nobody waits there. A kind may have a deadline for one of them all the same: an Endpoint that Failed may mend."""


def phases(kind: Kind[Any, Any]) -> Set[str]:
    """Every phase of the kind; none where its status names none."""
    return set(get_args(_field(kind).annotation))


def first_phase(kind: Kind[Any, Any]) -> str:
    """The phase before anybody has looked."""
    return str(_field(kind).default)


def waiting(kind: Kind[Any, Any]) -> Set[str]:
    """The phases in which it can wait."""
    return phases(kind) - set(AT_REST)


def _field(kind: Kind[Any, Any]) -> Any:
    status: Any = kind.resource.model_fields["status"].annotation
    return status.model_fields["phase"]
