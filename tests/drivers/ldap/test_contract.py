"""What holds of every directory: a real OpenLDAP by TLS, and the one in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from bessemer.api.ca import create_ca
from bessemer.core.errors import DriverError
from bessemer.drivers.ldap import real
from bessemer.drivers.ldap.fake import FakeDirectory, FakePerson, group_dn, person_dn
from bessemer.drivers.ldap.protocol import GROUPS_MAX, IN_CHAIN, Directories, Place
from bessemer.drivers.ldap.walk import groups_above
from tests.drivers.ldap import slapd

PASSWORD = "correct horse battery"
PEOPLE = {"ada": PASSWORD, "rob": "another password", "odd, (name)*": PASSWORD}
PLACE = Place(
    url="ldaps://directory.example.org",
    bind_dn=slapd.US,
    user_base=slapd.PEOPLE,
    group_base=slapd.GROUPS,
    nested="walk",
    seconds=30.0,
)


def groups() -> dict[str, list[str]]:
    """ops is in staff, staff in all, and all in ops: a circle. Nobody of them is in others."""
    return {
        "ops": [slapd.dn_of("ada"), slapd.group_of("all")],
        "staff": [slapd.group_of("ops")],
        "all": [slapd.group_of("staff"), slapd.dn_of("rob")],
        "odd, (group)*": [slapd.dn_of("odd, (name)*")],
        "above odd": [slapd.group_of("odd, (group)*")],
        "others": [slapd.US],
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[slapd.Slapd]:
    with slapd.running(tmp_path_factory.mktemp("slapd"), PEOPLE, groups()) as made:
        yield made


def fake() -> FakeDirectory:
    people = [
        FakePerson(name, password, f"id-{name}", name.title(), "someone@example.org")
        for name, password in PEOPLE.items()
    ]
    said = {
        "ops": [person_dn(PLACE, "ada"), group_dn(PLACE, "all")],
        "staff": [group_dn(PLACE, "ops")],
        "all": [group_dn(PLACE, "staff"), person_dn(PLACE, "rob")],
        "odd, (group)*": [person_dn(PLACE, "odd, (name)*")],
        "above odd": [group_dn(PLACE, "odd, (group)*")],
        "others": ["cn=somebody"],
    }
    return FakeDirectory(people, said, secret=slapd.SECRET)


REAL = [pytest.param(name, marks=pytest.mark.real) for name in ("ldaps", "starttls")]


@pytest.fixture(params=["fake", *REAL])
def at(request: pytest.FixtureRequest) -> tuple[Directories, Place]:
    """A directory, and where it is."""
    if request.param == "fake":
        return fake(), PLACE
    server = request.getfixturevalue("server")
    url = server.ldaps if request.param == "ldaps" else server.ldap
    return real.LibLdap(), replace(PLACE, url=url, authorities=server.authorities)


async def check(at: tuple[Directories, Place], name: str, password: str = PASSWORD) -> tuple[str, ...] | None:
    directories, place = at
    found = await directories.check(place, name, password=password, secret=slapd.SECRET)
    return None if found is None else found.groups


async def test_who_knows_the_password_is_known_with_all_groups(at: tuple[Directories, Place]) -> None:
    assert await check(at, "ada") == ("all", "ops", "staff")
    assert await check(at, "rob", "another password") == ("all", "ops", "staff")
    directories, place = at
    ada = await directories.check(place, "ada", password=PASSWORD, secret=slapd.SECRET)
    rob = await directories.check(place, "rob", password="another password", secret=slapd.SECRET)
    assert ada is not None
    assert rob is not None
    assert (ada.name, ada.display, ada.mail) == ("ada", "Ada", "someone@example.org")
    shouted = await directories.check(place, "ADA", password=PASSWORD, secret=slapd.SECRET)
    assert shouted == ada
    assert ada.id
    assert ada.id != rob.id


async def test_groups_in_groups_are_found_where_that_is_asked(at: tuple[Directories, Place]) -> None:
    directories, place = at
    assert await check((directories, replace(place, nested="none")), "ada") == ("ops",)
    assert await check((directories, replace(place, group_base="")), "ada") == ()


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("ada", "wrong"),
        ("nobody", PASSWORD),
        ("ada", ""),
        ("", PASSWORD),
        ("*", PASSWORD),
        ("a*", PASSWORD),
        ("ada)(uid=*", PASSWORD),
        ("*)(objectClass=*", PASSWORD),
        ("ada\0", PASSWORD),
        ("ada", f"{PASSWORD}\0"),
        ("\\61da", PASSWORD),
    ],
)
async def test_what_is_wrong_is_none(at: tuple[Directories, Place], name: str, password: str) -> None:
    assert await check(at, name, password) is None


async def test_names_with_letters_of_filters_are_names(at: tuple[Directories, Place]) -> None:
    assert await check(at, "odd, (name)*") == ("above odd", "odd, (group)*")


async def test_our_own_secret_is_looked_at(at: tuple[Directories, Place]) -> None:
    directories, place = at
    await directories.probe(place, secret=slapd.SECRET)
    with pytest.raises(DriverError, match="our own name and secret"):
        await directories.probe(place, secret="wrong")
    with pytest.raises(DriverError, match="our own name and secret"):
        await directories.check(place, "ada", password=PASSWORD, secret="wrong")


# --- the real one alone -----------------------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.parametrize("scheme", ["ldaps", "ldap"])
async def test_an_authority_that_is_not_ours_is_not_believed(server: slapd.Slapd, scheme: str) -> None:
    """And one that was believed a moment ago is of no use to another directory's connection."""
    place = replace(PLACE, url=getattr(server, scheme))
    good, bad = server.authorities, create_ca("another").certificate.decode()
    for authorities, trusted in ((good, True), (bad, False), ("", False), (good, True), (bad, False)):
        found = replace(place, authorities=authorities)
        if trusted:
            await real.LibLdap().probe(found, secret=slapd.SECRET)
        else:
            with pytest.raises(DriverError, match="certificate is not to be trusted"):
                await real.LibLdap().probe(found, secret=slapd.SECRET)


@pytest.mark.real
async def test_a_certificate_of_another_name_is_not_believed(server: slapd.Slapd) -> None:
    place = replace(PLACE, url=server.ldaps.replace("127.0.0.1", "127.0.0.2"), authorities=server.authorities)
    with pytest.raises(DriverError):
        await real.LibLdap().probe(place, secret=slapd.SECRET)


ANSWER = b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00"
"""To StartTLS: go ahead."""


@pytest.mark.parametrize(
    ("scheme", "answer", "words"),
    [
        ("ldaps", b"", "too long"),
        ("ldap", b"", "too long"),
        ("ldap", ANSWER, "too long"),
        ("ldap", ANSWER + b"\x30\x0c\x02\x01\x02\x61\x07\x0a\x01\x00\x04\x00\x04\x00", "not to be trusted"),
        ("ldap", ANSWER.replace(b"\x0a\x01\x00", b"\x0a\x01\x02"), "does not speak TLS here"),
        ("ldap", b"HTTP/1.1 400 Bad Request\r\n", "is no directory"),
        ("ldap", b"\x30\x84\xff\xff\xff\xff", "is no directory"),
        ("ldaps", b"HTTP/1.1 400 Bad Request\r\n\r\n", "not to be trusted"),
    ],
    ids=[
        "silent",
        "silent before",
        "silent in the handshake",
        "early answers",
        "refuses",
        "http",
        "endless",
        "http for tls",
    ],
)
async def test_what_is_no_directory_has_its_time_and_hears_no_password(scheme: str, answer: bytes, words: str) -> None:
    """Silent, before TLS and in it; or one who puts answers behind the word that TLS begins."""
    heard = bytearray()

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        while data := await reader.read(4096):
            heard.extend(data)
        writer.close()

    server = await asyncio.start_server(answers, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        place = replace(PLACE, url=f"{scheme}://127.0.0.1:{port}", seconds=0.3 if words == "too long" else 60.0)
        with pytest.raises(DriverError, match=words):
            await real.LibLdap().check(place, "ada", password=PASSWORD, secret=slapd.SECRET)
    assert PASSWORD.encode() not in heard
    assert slapd.SECRET.encode() not in heard
    with pytest.raises(DriverError, match="cannot be reached"):
        await real.LibLdap().probe(place, secret="x")


@pytest.mark.real
async def test_of_two_of_a_name_none_is_meant(server: slapd.Slapd) -> None:
    place = replace(PLACE, url=server.ldaps, authorities=server.authorities, user_filter="(|(uid={})(mail=someone@*))")
    assert await real.LibLdap().check(place, "ada", password=PASSWORD, secret=slapd.SECRET) is None


@pytest.mark.real
async def test_nobody_costs_the_directory_what_a_wrong_password_does(server: slapd.Slapd) -> None:
    """We bind, search and bind as whoever that is: where it is nobody, as a name that is made up each time."""
    place = replace(PLACE, url=server.ldaps, authorities=server.authorities)

    async def asked(name: str) -> list[str]:
        before = len(server.log.read_text())
        assert await real.LibLdap().check(place, name, password="wrong wrong", secret=slapd.SECRET) is None
        found: list[str] = []
        async with asyncio.timeout(30):
            while len(found) < 3:  # its log is written beside its answers
                await asyncio.sleep(0.02)
                found = server.asked(before)
        return found

    us, search, somebody = await asked("ada")
    assert (us, search, somebody) == (f'BIND dn="{slapd.US}"', "SRCH", f'BIND dn="{slapd.dn_of("ada")}"')
    made_up = set()
    for name in ("nobody", "nobody", "*"):
        first, then, nobody = await asked(name)
        assert (first, then) == (us, search)
        assert nobody.endswith(f',{slapd.PEOPLE}"')
        made_up.add(nobody)
    assert len(made_up) == 3
    assert not any("nobody" in one for one in made_up)


@pytest.mark.real
async def test_in_chain_is_asked_as_active_directory_wants_it(server: slapd.Slapd) -> None:
    """A server that does not know the rule finds nothing by it, and that is no error."""
    terms = "(member={})".replace("={}", f":{IN_CHAIN}:={{}}")
    assert real._filled(terms, "CN=Ada (1),DC=x") == "(member:1.2.840.113556.1.4.1941:=CN=Ada \\281\\29,DC=x)"
    place = replace(PLACE, url=server.ldaps, authorities=server.authorities, nested="in-chain")
    found = await real.LibLdap().check(place, "ada", password=PASSWORD, secret=slapd.SECRET)
    assert found is not None
    assert found.groups == ()


def test_a_guid_of_active_directory_reads_as_it_does() -> None:
    raw = bytes.fromhex("0102030405060708090a0b0c0d0e0f10")
    assert real._id({"objectGUID": [raw]}, "objectguid") == "04030201-0605-0807-090a-0b0c0d0e0f10"
    with pytest.raises(DriverError, match="does not say"):
        real._id({}, "objectGUID")


# --- walking ----------------------------------------------------------------------------------------------------------


def test_each_group_is_asked_once_and_levels_end() -> None:
    asked: list[str] = []

    def above(dn: str) -> list[tuple[str, str]]:
        asked.append(dn)
        next_one = 1 if dn == "somebody" else int(dn) + 1
        return [(f"{next_one}", f"g{next_one}"), ("1", "g1")]

    found = groups_above("somebody", above, nested=True)
    assert len(found) <= 17
    assert len(asked) == len(set(asked))
    with pytest.raises(DriverError, match="more than"):
        groups_above("x", lambda _: [(f"{n}", f"g{n}") for n in range(GROUPS_MAX + 1)], nested=False)
