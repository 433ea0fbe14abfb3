"""Bodies that are large, slow or never come, and the figures that docs/limits.md tells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bessemer.api import accepting, flow, listener
from bessemer.api.context import Limits
from bessemer.core import descriptors
from tests.api.world import BASE, World, world

KEYS = f"{BASE}/namespaces/acme--lab/apikeys"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "limits.md"


async def parts(part: bytes, count: int, *, seconds: float = 0.0) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield part
        await asyncio.sleep(seconds)


async def never() -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""


@pytest.mark.parametrize("drips", [False, True])
async def test_a_body_that_does_not_come_in_time_is_given_up(drips: bool) -> None:
    """Also one of which a byte comes now and then: the time is the whole body's."""
    # Long enough for what makes the world, whose bodies come at once.
    async with world(limits=Limits(body_seconds=0.5)) as w:
        body = parts(b" ", 1000, seconds=0.005) if drips else never()
        reply = await w.call("POST", KEYS, body)
        assert (reply.code, reply.json["message"]) == (400, "the request body did not come in time")


async def test_a_body_is_counted_as_it_comes(w: World) -> None:
    """Nothing said how long it would be."""
    reply = await w.call("POST", KEYS, parts(b" " * (64 << 10), 17))
    assert (reply.code, reply.json["reason"]) == (413, "RequestEntityTooLarge")


async def test_yaml_is_shorter_for_it_costs_more(w: World) -> None:
    reply = await w.call("POST", KEYS, b"#" * ((256 << 10) + 1), media="application/yaml")
    assert (reply.code, reply.json["reason"]) == (413, "RequestEntityTooLarge")
    assert f"{256 << 10}" in reply.json["message"]


def test_the_page_tells_what_the_code_says() -> None:
    text = " ".join(PAGE.read_text().split())
    for name, bounds in (("people, by tenant", flow.TENANTS), ("agents, by host", flow.AGENTS)):
        row = f"| {name} | {bounds.alone} / {bounds.shared} / {bounds.each} | {bounds.waiting} | {bounds.lingering:,} |"
        assert row in text
    limits = Limits()
    for said in (
        f"{listener.HEADERS_BYTES_MAX >> 10} KiB, {listener.HEADERS_SECONDS:.0f} s",
        f"{limits.body_bytes >> 20} MiB (YAML {limits.yaml_bytes >> 10} KiB), {limits.body_seconds:.0f} s, "
        f"{limits.depth} levels",
        f"{listener.READ_SECONDS:.0f} s in which the sockets' buffers do not drain",
        f"that have said nothing | {accepting.ARRIVING_MAX:,}; {accepting.HANDSHAKE_SECONDS:.0f} s",
        f"amid their handshake | {accepting.SPEAKING_MAX:,}; {accepting.HANDSHAKE_SECONDS:.0f} s",
        f"{listener.FILES_SHARE} of the process's files",
        f"{accepting.ROOM_SHARE} of the process's files",
        f"all files but {descriptors.KEPT_MAX}",
    ):
        assert said in text, said
