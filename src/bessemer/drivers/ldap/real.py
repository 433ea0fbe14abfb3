"""`Directories` by libldap (python-ldap), in threads of its own: the library waits where it stands.

A connection lives for one question, by a `tunnel` that ends with it: what libldap waits for then ends, too.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from bessemer.drivers.ldap.protocol import GROUPS_MAX, IN_CHAIN, Entry, Place, failed
from bessemer.drivers.ldap.tunnel import UNTRUSTED, tunnel
from bessemer.drivers.ldap.walk import groups_above

T = TypeVar("T")

THREADS = 8
WHOLE = 4
"""How many times as long as one answer all of a question may take: many levels of groups are many answers."""

_GUID = "objectGUID"


class LibLdap:
    """Implements `protocol.Directories`."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="ldap")

    async def check(self, place: Place, name: str, *, password: str, secret: str = "") -> Entry | None:
        if not name or not password or "\0" in name + password:
            return None
        return await self._ask(place, lambda on: _check(on, place, name=name, password=password, secret=secret))

    async def probe(self, place: Place, *, secret: str = "") -> None:
        await self._ask(place, lambda on: _bind_as_us(on, place, secret=secret))

    async def _ask(self, place: Place, question: Callable[[Any], T]) -> T:
        """What the question finds on a connection."""
        loop = asyncio.get_running_loop()

        def work(near: socket.socket) -> T:
            with _connected(place, near) as connection:
                return question(connection)

        try:
            async with asyncio.timeout(place.seconds * WHOLE), tunnel(place) as near:
                return await loop.run_in_executor(self._threads, work, near)
        except TimeoutError as error:
            raise failed("the directory takes too long", internal=place.url) from error


def _check(connection: Any, place: Place, *, name: str, password: str, secret: str) -> Entry | None:
    import ldap

    _bind_as_us(connection, place, secret=secret)
    found = _person(connection, place, name=name)
    # Nobody's password is asked about, too: with or without such a person the directory is asked the same.
    dn, attributes = found or (f"cn={secrets.token_hex(16)},{place.user_base}", {})
    wrong = (ldap.INVALID_CREDENTIALS, ldap.UNWILLING_TO_PERFORM, ldap.INAPPROPRIATE_AUTH, ldap.CONSTRAINT_VIOLATION)
    try:
        connection.simple_bind_s(dn, password)
    except (*wrong, ldap.NO_SUCH_OBJECT):
        return None
    if found is None:
        return None
    # Groups are looked up as who we are: people may often not read them.
    _bind_as_us(connection, place, secret=secret)
    return Entry(
        dn=dn,
        id=_id(attributes, place.id_attribute),
        name=_text(attributes, place.name_attribute),
        groups=_groups(connection, place, dn=dn),
        display=_text(attributes, place.display_attribute),
        mail=_text(attributes, place.mail_attribute),
    )


@contextmanager
def _connected(place: Place, near: socket.socket) -> Iterator[Any]:
    """libldap upon a tunnel. All that goes wrong on it is a DriverError."""
    try:
        import ldap
    except ImportError as error:
        raise failed("this server has no LDAP: install bessemer[ldap]") from error

    connection = None
    try:
        connection = ldap.initialize("ldap://tunnel", fileno=near.detach())
        connection.set_option(ldap.OPT_PROTOCOL_VERSION, ldap.VERSION3)
        connection.set_option(ldap.OPT_REFERRALS, 0)
        connection.set_option(ldap.OPT_TIMEOUT, place.seconds)
        yield connection
    except ldap.LDAPError as error:
        raise failed(_words(error), internal=f"{place.url}: {error!r}"[:500]) from error
    finally:
        if connection is not None:
            connection.unbind_ext_s()


def _words(error: Exception) -> str:
    import ldap

    if isinstance(error, ldap.SERVER_DOWN | ldap.CONNECT_ERROR):
        return UNTRUSTED
    if isinstance(error, ldap.TIMEOUT | ldap.TIMELIMIT_EXCEEDED):
        return "the directory takes too long"
    if isinstance(error, ldap.INVALID_CREDENTIALS):
        return "the directory does not take our own name and secret"
    return f"the directory refuses: {type(error).__name__.lower().replace('_', ' ')}"


def _bind_as_us(connection: Any, place: Place, *, secret: str) -> None:
    connection.simple_bind_s(place.bind_dn, secret if place.bind_dn else "")


def _person(connection: Any, place: Place, *, name: str) -> tuple[str, Mapping[str, Sequence[bytes]]] | None:
    import ldap

    wanted = [place.name_attribute, place.id_attribute, place.display_attribute, place.mail_attribute]
    try:
        rows = _search(connection, place, base=place.user_base, terms=_filled(place.user_filter, name), wanted=wanted)
    except ldap.SIZELIMIT_EXCEEDED:
        return None  # of many none is who was meant
    return rows[0] if len(rows) == 1 else None


def _groups(connection: Any, place: Place, *, dn: str) -> tuple[str, ...]:
    if not place.group_base:
        return ()

    def above(member: str) -> Sequence[tuple[str, str]]:
        terms = place.group_filter
        if place.nested == "in-chain":
            terms = terms.replace("={}", f":{IN_CHAIN}:={{}}")
        rows = _search(
            connection, place, base=place.group_base, terms=_filled(terms, member), wanted=[place.group_attribute]
        )
        return [(group, name) for group, found in rows if (name := _text(found, place.group_attribute))]

    return groups_above(dn, above, nested=place.nested == "walk")


def _search(
    connection: Any, place: Place, *, base: str, terms: str, wanted: Sequence[str]
) -> list[tuple[str, Mapping[str, Sequence[bytes]]]]:
    """(DN, attributes) of entries; what only refers elsewhere is left out."""
    import ldap

    rows = connection.search_ext_s(
        base, ldap.SCOPE_SUBTREE, terms, list(wanted), timeout=place.seconds, sizelimit=GROUPS_MAX + 1
    )
    return [(dn, attributes) for dn, attributes in rows if dn]


def _filled(terms: str, value: str) -> str:
    from ldap.filter import escape_filter_chars

    return terms.replace("{}", escape_filter_chars(value))


def _text(attributes: Mapping[str, Sequence[bytes]], name: str) -> str:
    """The first value, or "". Names of attributes are the same in any case."""
    folded = {key.lower(): values for key, values in attributes.items()}
    values = folded.get(name.lower(), ())
    return values[0].decode(errors="replace") if values else ""


def _id(attributes: Mapping[str, Sequence[bytes]], name: str) -> str:
    folded = {key.lower(): values for key, values in attributes.items()}
    raw = (folded.get(name.lower()) or [b""])[0]
    if name.lower() == _GUID.lower() and len(raw) == 16:
        return str(uuid.UUID(bytes_le=bytes(raw)))
    found = raw.decode(errors="replace")
    if not found:
        raise failed(f"the directory does not say {name} of somebody")
    return found
