"""Signing in with a directory's password: whose account it is, and who that makes somebody here.

An account is a directory's where its name is ``PREFIX.name``, by the prefix alone: whether there is such a person is
not looked at, and a password of ours is never shown to a directory. Where local users are switched off and there is one
directory, every name is its. What somebody is called is what the directory says, not what was typed.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bessemer.api.oidcpeople import GROUPS_MAX, Vouched, address, group_names, person_name, text
from bessemer.core.errors import DriverError, Unauthenticated, Unavailable
from bessemer.core.tokens import PASSWORD_LENGTH_MAX
from bessemer.drivers.ldap.protocol import Entry
from bessemer.kinds.tenancy.identityprovider import IdentityProvider, LdapSpec, directory_issuer, place_of

if TYPE_CHECKING:
    from bessemer.api.state import Call

SECRET = "client-secret"
_NAME, _GROUPS = "name", "groups"


@dataclass(frozen=True, slots=True)
class Directory:
    """A provider, and the name in it that was typed."""

    provider: IdentityProvider
    spec: LdapSpec
    typed: str

    @property
    def account(self) -> str:
        """By what attempts are counted: a directory takes many spellings for one name, and none of them is a way to try
        more often."""
        plain = unicodedata.normalize("NFKD", self.typed).casefold()
        kept = "".join(letter for letter in plain if unicodedata.category(letter)[0] not in "CM")
        return f"{self.provider.uid} {' '.join(kept.split())}"


async def directory_of(call: Call, account: str) -> Directory | None:
    """The directory whose account that is, or None."""
    found = await call.state.federation.providers.directories()
    prefix, dot, typed = account.partition(".")
    provider = found.get(prefix) if dot else None
    if provider is None and len(found) == 1 and not await call.state.door.opens():
        (provider,) = found.values()
        typed = account
    if provider is None or provider.spec.ldap is None:
        return None
    return Directory(provider, provider.spec.ldap, typed)


async def vouched(call: Call, directory: Directory, *, password: str) -> Vouched | None:
    """Who that is; None where name and password do not belong together. Raises Unavailable where the directory cannot
    say, Unauthenticated for a name that nobody can have here."""
    uid = directory.provider.uid
    secret = await call.state.ports.sealed.get(uid, SECRET)
    if len(password) > PASSWORD_LENGTH_MAX:
        return None
    try:
        entry = await call.state.context.directories.check(
            place_of(directory.spec), directory.typed, password=password, secret=secret.decode() if secret else ""
        )
    except DriverError as error:
        raise Unavailable(error.message, retry_after_seconds=10, internal=error.internal) from error
    return None if entry is None else _who(call, directory, entry=entry)


def _who(call: Call, directory: Directory, *, entry: Entry) -> Vouched:
    provider, now = directory.provider, call.state.context.clock.now()
    prefix, issuer = provider.prefix, directory_issuer(provider.uid)
    if len(entry.groups) > GROUPS_MAX:
        raise Unauthenticated(f"the directory says more than {GROUPS_MAX} groups of you")
    known = call.state.federation.people.name_of(issuer, entry.id)
    said = {_NAME: entry.name, _GROUPS: list(entry.groups), "display": entry.display, "email": entry.mail}
    return Vouched(
        provider=provider.metadata.name,
        provider_uid=provider.uid,
        issuer=issuer,
        subject=entry.id,
        name=known or person_name(said, _NAME, prefix=prefix, fold_case=True),
        groups=group_names(said, _GROUPS, prefix=prefix),
        made=now,
        expires=now,
        display=text(said, "display"),
        email=address(said),
    )
