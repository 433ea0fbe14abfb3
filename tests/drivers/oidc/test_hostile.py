"""Issuers that want more than to be asked: where they may send us, and how much they may say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from bessemer.core.errors import DriverError
from bessemer.drivers.oidc import asking
from bessemer.drivers.oidc.places import is_allowed, judged_url
from bessemer.drivers.oidc.protocol import GrantRefused, Metadata, Party, Reach
from bessemer.drivers.oidc.real import HttpIssuers

OUTSIDE = Reach(issuer="https://id.example.org")
INSIDE = Reach(issuer="https://id.example.org", private=True)
Answer = Callable[[str], bytes]


@asynccontextmanager
async def issuer(answer: Callable[[str, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[Reach]:
    """Something that listens on loopback and answers as it likes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            await answer(head.split(" ")[1], writer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield Reach(issuer=f"http://127.0.0.1:{port}", private=True, plain=True)


def http(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def said(body: bytes, *, status: str = "200 OK", headers: tuple[str, ...] = ()) -> str:
    """How a discovery that answers so is refused."""

    async def answer(_path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(http(status, body, *headers))

    async with issuer(answer) as reach:
        with pytest.raises(DriverError) as error:
            await HttpIssuers().metadata(reach)
    assert error.value.reason == "IssuerFailed"
    return error.value.message


async def metadata_of(**change: Any) -> Metadata:
    """What is made of a discovery document with something changed in it."""

    async def answer(_path: str, writer: asyncio.StreamWriter) -> None:
        base = f"http://127.0.0.1:{port}"
        document = {"issuer": base, "authorization_endpoint": f"{base}/a", "token_endpoint": f"{base}/t"}
        document |= {"jwks_uri": f"{base}/j", **change}
        writer.write(http("200 OK", orjson.dumps(document)))

    async with issuer(answer) as reach:
        port = reach.issuer.rpartition(":")[2]
        return await HttpIssuers().metadata(reach)


async def test_no_redirect_is_followed() -> None:
    headers = ("Location: http://127.0.0.1:1/",)
    assert await said(b"", status="302 Found", headers=headers) == "the issuer answers with 302"


async def test_an_answer_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "more than 512 KiB" in await said(b'{"x":"' + b"y" * (600 << 10) + b'"}')
    monkeypatch.setattr(asking, "SECONDS_MAX", 0.2)

    async def slow(_path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        await writer.drain()
        await asyncio.Event().wait()

    async with issuer(slow) as reach:
        with pytest.raises(DriverError, match="does not answer within"):
            await HttpIssuers().metadata(reach)


@pytest.mark.parametrize("body", [b"", b"no", b"[]", b"1", b"null", b"[" * 5000, b"\xff"])
async def test_what_is_no_object_is_refused(body: bytes) -> None:
    assert await said(body) == "the issuer answers with something else than a JSON object"


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "https://id.example.org"},
        {"issuer": None},
        {"token_endpoint": "http://id.example.org/token"},
        {"token_endpoint": "file:///etc/passwd"},
        {"token_endpoint": ""},
        {"token_endpoint": 7},
        {"jwks_uri": "http://169.254.169.254/latest/meta-data"},
        {"jwks_uri": "https://169.254.169.254/latest/meta-data"},
        {"jwks_uri": "https://[fe80::1]/"},
        {"jwks_uri": "https://ada:pw@id.example.org/jwks"},
        {"jwks_uri": "https://id.example.org/\r\nX: y"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"end_session_endpoint": "javascript:alert(1)"},
        {"id_token_signing_alg_values_supported": ["none", "HS256"]},
        {"id_token_signing_alg_values_supported": "RS256"},
    ],
    ids=str,
)
async def test_what_it_says_of_itself_is_judged(change: dict[str, Any]) -> None:
    with pytest.raises(DriverError):
        await metadata_of(**change)


async def test_algorithms_are_those_that_both_take() -> None:
    found = await metadata_of(id_token_signing_alg_values_supported=["none", "HS256", "ES256", "RS256", "ES256K"])
    assert found.algorithms == ("RS256", "ES256")


@pytest.mark.parametrize(
    ("address", "outside", "inside"),
    [
        ("93.184.216.34", True, True),
        ("2606:2800:220:1::1", True, True),
        ("127.0.0.1", False, True),
        ("::1", False, True),
        ("10.1.2.3", False, True),
        ("192.168.1.1", False, True),
        ("fd00::1", False, True),
        ("::ffff:127.0.0.1", False, True),
        ("::ffff:10.0.0.1", False, True),
        ("169.254.169.254", False, False),
        ("::ffff:169.254.169.254", False, False),
        ("fe80::1%eth0", False, False),
        ("0.0.0.0", False, False),
        ("::", False, False),
        ("224.0.0.1", False, False),
        ("ff02::1", False, False),
        ("100.64.0.1", False, False),
        ("64:ff9b::5db8:d822", True, True),
        ("64:ff9b::a9fe:a9fe", False, False),
        ("64:ff9b::a01:203", False, True),
        ("fec0::1", False, True),
    ],
)
def test_addresses(address: str, outside: bool, inside: bool) -> None:
    assert (is_allowed(OUTSIDE, address), is_allowed(INSIDE, address)) == (outside, inside)


async def test_a_name_that_leads_inside_is_judged_where_it_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(_self: Any, host: str, port: int = 0, family: Any = 0) -> list[dict[str, Any]]:
        given = {"hostname": host, "host": "10.0.0.7", "port": port}
        return [{**given, "family": 2, "proto": 0, "flags": 0}]

    monkeypatch.setattr("aiohttp.ThreadedResolver.resolve", resolve)
    with pytest.raises(DriverError, match="allowPrivateAddress"):
        await HttpIssuers().metadata(OUTSIDE)


@pytest.mark.parametrize("url", ["https://2130706433/", "https://0x7f.1/", "https://127.1/", "https://[::1]/"])
def test_odd_spellings_of_loopback_are_no_way_in(url: str) -> None:
    with pytest.raises(DriverError):
        judged_url(OUTSIDE, url, what="URL")


async def test_plain_http_is_loopback_alone() -> None:
    for url in ("http://id.example.org", "http://10.0.0.1", "http://localhost", "http://127.0.0.1.example.org"):
        with pytest.raises(DriverError, match="https"):
            judged_url(Reach(issuer=url, private=True, plain=True), url, what="URL")


async def test_refusals_are_words_of_oauth_and_no_text_of_theirs() -> None:
    async def refusal(body: Any) -> str:
        async def answer(_path: str, writer: asyncio.StreamWriter) -> None:
            writer.write(http("400 Bad Request", orjson.dumps(body)))

        async with issuer(answer) as reach:
            metadata = Metadata(issuer=reach.issuer, authorization="", token=f"{reach.issuer}/t", jwks="")
            with pytest.raises(GrantRefused) as error:
                await HttpIssuers().grant(reach, metadata, party=Party(client_id="us"), form={})
        return error.value.message

    assert await refusal({"error": "invalid_grant"}) == "the issuer refused: invalid_grant"
    for odd in ({"error": "<script>"}, {"error": "x" * 65}, {"error": 1}, {}):
        assert await refusal(odd) == "the issuer refused: for no reason that it says"


async def test_keys_are_a_list_of_a_few() -> None:
    for body in ({"keys": "x"}, {"keys": [1]}, {}, {"keys": [{}] * 65}):
        data = orjson.dumps(body)

        async def answer(_path: str, writer: asyncio.StreamWriter, data: bytes = data) -> None:
            writer.write(http("200 OK", data))

        async with issuer(answer) as reach:
            metadata = Metadata(issuer=reach.issuer, authorization="", token="", jwks=f"{reach.issuer}/j")
            with pytest.raises(DriverError):
                await HttpIssuers().keys(reach, metadata)
