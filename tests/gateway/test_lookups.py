"""Names that tenants have said: whose servers do not answer holds up nobody else's, nor what the gateway settles."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest

from bessemer.gateway import lookups
from bessemer.gateway.lookups import OF_ONE_MAX, Lookups, Resolver


class Servers:
    """Of names: those that begin with ``slow`` are answered at the end."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.asked = Counter[str]()

    def __call__(self, host: str, _port: int) -> Sequence[str]:
        self.asked[host] += 1
        if host.startswith("slow"):
            self.go.wait(30)
        if host.startswith("no"):
            raise OSError("there is no such name")
        return ["192.0.2.1", "2001:db8::1"]


@pytest.fixture
def servers() -> Iterator[Servers]:
    made = Servers()
    yield made
    made.go.set()


async def test_whose_servers_are_silent_holds_up_nobody_else(servers: Servers) -> None:
    of = Lookups(servers)
    slow = [asyncio.ensure_future(of.find(f"slow{n}", 443, project="acme--lab")) for n in range(OF_ONE_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(OSError, match="too many names"):
        await of.find("quick", 443, project="acme--other")
    async with asyncio.timeout(10):
        assert await of.find("quick", 443, project="rival--lab") == ["192.0.2.1", "2001:db8::1"]
        assert await asyncio.to_thread(lambda: 1) == 1
    for one in slow:
        one.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    with pytest.raises(OSError, match="too many names"):
        await of.find("quick", 443, project="acme--lab")  # who waited has gone, and the threads are held
    servers.go.set()
    async with asyncio.timeout(10):
        while of._of:
            await asyncio.sleep(0.01)
        assert await of.find("quick", 443, project="acme--lab")
    assert of._asked == {}


async def test_a_name_is_looked_up_once_for_all_who_want_it_and_not_kept(servers: Servers) -> None:
    of = Lookups(servers)
    found = [asyncio.ensure_future(of.find("slow", 443, project=f"t{n}--lab")) for n in range(20)]
    await asyncio.sleep(0)
    found[0].cancel()
    servers.go.set()
    async with asyncio.timeout(10):
        came = await asyncio.gather(*found, return_exceptions=True)
    assert servers.asked["slow"] == 1
    assert all(one == ["192.0.2.1", "2001:db8::1"] for one in came[1:])
    await of.find("slow", 443, project="a--b")
    assert servers.asked["slow"] == 2
    with pytest.raises(OSError, match="no such name"):
        await of.find("nothing", 443, project="a--b")
    assert of._asked == {}


async def test_what_was_judged_is_what_is_given(servers: Servers) -> None:
    of = Resolver(Lookups(servers), lambda _host, address: ":" in address, project="a--b")
    assert [one["host"] for one in await of.resolve("quick", 443)] == ["2001:db8::1"]
    none = Resolver(Lookups(servers), lambda *_: False, project="a--b")
    with pytest.raises(OSError, match="inner address"):
        await none.resolve("quick", 443)


async def test_names_that_stand_somewhere_are_found() -> None:
    assert await Lookups().find("localhost", 443, project="a--b")
    assert await Lookups(lookups.resolve).find("127.0.0.1", 443, project="a--b") == ["127.0.0.1"]
