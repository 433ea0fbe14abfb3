"""What is asked of a directory: is this their password, and where do they belong?

A connection is always by TLS that names its authority, follows no referral and has an end in time. What a person typed
is data in a filter, never a part of it. An empty password is refused before it is sent: to LDAP it asks for nobody, and
is answered yes. What the directory says is bounded: so many groups, so many levels, no level twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from bessemer.core.errors import DriverError

FAILED = "DirectoryFailed"
IN_CHAIN = "1.2.840.113556.1.4.1941"
"""LDAP_MATCHING_RULE_IN_CHAIN: Active Directory walks the nested groups by itself."""

GROUPS_MAX = 1000
LEVELS_MAX = 16
Nested = Literal["none", "walk", "in-chain"]


def failed(message: str, *, internal: str = "") -> DriverError:
    """The error of a directory that is silent, cannot be trusted, or says what cannot be used."""
    return DriverError(FAILED, message, internal=internal)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A directory, how it is reached, and where in it people and groups are.

    ``url`` is ``ldaps://HOST[:PORT]`` or ``ldap://HOST[:PORT]``, which is made TLS by StartTLS before anything is said.
    ``authorities`` is PEM, and the only ones that count where given. ``user_filter`` and ``group_filter`` hold ``{}``
    where the name, or the member's DN, is put. ``nested`` is how groups in groups are found; ``in-chain`` is Active
    Directory's. ``seconds`` bounds each answer.
    """

    url: str
    authorities: str = ""
    bind_dn: str = ""
    user_base: str
    user_filter: str = "(uid={})"
    name_attribute: str = "uid"
    id_attribute: str = "entryUUID"
    display_attribute: str = "cn"
    mail_attribute: str = "mail"
    group_base: str = ""
    group_filter: str = "(member={})"
    group_attribute: str = "cn"
    nested: Nested = "walk"
    seconds: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Somebody whose password was right. ``id`` names them for good (an entry's UUID), whatever they are called;
    ``name`` is what the directory calls them, however it was typed."""

    dn: str
    id: str
    name: str
    groups: tuple[str, ...] = ()
    display: str = ""
    mail: str = ""


class Directories(Protocol):
    """Directories of people."""

    async def check(self, place: Place, name: str, *, password: str, secret: str = "") -> Entry | None:
        """Who the name and password are, with all groups in order; None where they do not belong together, or the name
        is nobody's, or not one person's. ``secret`` is ours, for ``bind_dn``. Raises DriverError."""
        ...

    async def probe(self, place: Place, *, secret: str = "") -> None:
        """Whether we may look. Raises DriverError with what is wrong."""
        ...
