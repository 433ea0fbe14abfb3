"""Limits: what one may try, what one's neighbours may do about it, and that nobody is locked out."""

from __future__ import annotations

import asyncio
import functools
from contextlib import suppress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bessemer.api.ca import Peer
from bessemer.api.context import Limits
from bessemer.api.limit import ACCOUNT_SLOWEST_SECONDS, KEYS_MAX, Failures, Limiter, SignIns, Turns
from bessemer.core.clock import FakeClock
from bessemer.core.errors import TooMany
from tests.api.world import ADMIN, BASE, World, named, world


@functools.cache
def csr() -> str:
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    signed = request.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def test_a_look_counts_nothing() -> None:
    limiter = Limiter(FakeClock(), burst=2, seconds=10)
    for _ in range(9):
        limiter.check("a")
    for _ in range(2):
        limiter.take("a")
    with pytest.raises(TooMany) as caught:
        limiter.check("a")
    assert caught.value.retry_after_seconds == 10
    limiter.take("b")


def test_memory_is_bounded() -> None:
    clock = FakeClock()
    limiter, failures, tries = (
        Limiter(clock, burst=1, seconds=1),
        Failures(clock, seconds=1),
        SignIns(clock, burst=1, seconds=1),
    )
    for number in range(KEYS_MAX + 50):
        limiter.take(f"{number}")
        failures.add(f"{number}")
        tries.succeeded("192.0.2.1", f"{number}")
    assert len(limiter._full_at) == len(failures._levels) == len(tries._known) == KEYS_MAX
    assert failures.level("0") == 0.0
    assert failures.level(f"{KEYS_MAX}") == 1.0


async def test_failures_are_forgotten() -> None:
    clock = FakeClock()
    failures = Failures(clock, seconds=6.0)
    for _ in range(4):
        failures.add("ann")
    await clock.advance(12)
    assert failures.level("ann") == 2.0
    await clock.advance(60)
    assert failures.level("ann") == 0.0


async def test_many_failures_at_one_account_slow_that_account_alone_and_not_where_it_is_known() -> None:
    clock = FakeClock()
    tries = SignIns(clock, burst=10, seconds=6.0)
    tries.succeeded("198.51.100.7", "ann")
    tries.succeeded("2001:db8::7", "ann")
    for _ in range(200):
        tries.failed("203.0.113.9", "ann")
    await clock.advance(200)  # what slows everybody is over by then
    for _ in range(60):
        tries.failed("203.0.113.9", "ann")
    assert tries.delay_at("203.0.113.5", "ann") == ACCOUNT_SLOWEST_SECONDS
    assert tries.delay_at("198.51.100.7", "ann") == tries.delay_at("2001:db8::8", "ann") == 0.0
    assert tries.delay_at("203.0.113.5", "mia") == tries.delay_at("203.0.113.5", "") == 0.0
    waiting = asyncio.ensure_future(tries.admit("203.0.113.5", "ann"))
    await clock.advance(ACCOUNT_SLOWEST_SECONDS - 0.1)
    assert not waiting.done()
    await clock.advance(0.2)
    assert waiting.done()


async def test_many_addresses_at_one_account_have_a_few_attempts_each_and_its_owner_has_them_too() -> None:
    """Sixty addresses try as often as each may, for a quarter of an hour: what is looked at is counted."""
    clock = FakeClock()
    tries = SignIns(clock, burst=10, seconds=6.0)
    tries.succeeded("198.51.100.7", "ann")
    attackers = [f"203.0.113.{number}" for number in range(60)]
    looked_at = 0

    async def attempt(source: str) -> None:
        nonlocal looked_at
        with suppress(TooMany):
            await tries.admit(source, "ann")
            looked_at += 1
            tries.failed(source, "ann")

    async def admitted(source: str) -> None:
        waiting = asyncio.ensure_future(tries.admit(source, "ann"))
        await clock.advance(ACCOUNT_SLOWEST_SECONDS)
        await waiting

    for _ in range(150):
        trying = [asyncio.ensure_future(attempt(source)) for source in attackers]
        await clock.advance(6.0)
        await asyncio.gather(*trying)
    assert 150 <= looked_at < 60 * 4 + 150 * 6.0 / ACCOUNT_SLOWEST_SECONDS, "without the line some 9,000 are"
    for source in ("192.0.2.77", "198.51.100.7"):  # somewhere else, and where they are known
        for _ in range(3):
            await admitted(source)
            tries.failed(source, "ann")
    # Who mistypes so often elsewhere waits for a turn, amid an attack, and has it when it was said; nobody else does.
    for _ in range(3):
        await admitted("192.0.2.77")
        with pytest.raises(TooMany) as caught:
            await admitted("192.0.2.77")
        wait = caught.value.retry_after_seconds or 0
        assert 60 * ACCOUNT_SLOWEST_SECONDS - 6 <= wait <= 61 * ACCOUNT_SLOWEST_SECONDS
        for _ in range(-(-int(wait) // 6)):
            trying = [asyncio.ensure_future(attempt(source)) for source in attackers]
            await clock.advance(6.0)
            await asyncio.gather(*trying)
    others = [asyncio.ensure_future(tries.admit(*one)) for one in (("198.51.100.7", "ann"), ("192.0.2.77", "mia"))]
    await clock.advance(ACCOUNT_SLOWEST_SECONDS)
    await asyncio.gather(*others)


async def test_however_many_networks_there_are_none_waits_longer_than_its_failures_are_kept() -> None:
    clock = FakeClock()
    turns = Turns(clock, seconds=5.0, longest=1200.0)
    for number in range(KEYS_MAX + 50):
        turns.take("ann", f"{number}")
    turns.take("mia", "0")
    assert (len(turns._had), turns._networks) == (KEYS_MAX, {"ann": KEYS_MAX - 1, "mia": 1})
    with pytest.raises(TooMany) as caught:
        turns.take("ann", f"{KEYS_MAX}")
    assert caught.value.retry_after_seconds == 1200
    await clock.advance(5.0)
    turns.take("mia", "0")
    await clock.advance(1195.0)
    turns.take("ann", f"{KEYS_MAX}")
    assert turns._networks == {"ann": 1, "mia": 1}


async def test_wrong_joins_are_limited_for_an_address_at_a_host_and_good_ones_never() -> None:
    async with world(FakeClock(), limits=Limits(login_burst=3, login_seconds=10.0)) as w:
        for name in ("h", "i"):
            await w.create(f"{BASE}/hosts", named(name))
        wrong = {"csr": csr(), "token": "bsj_wrong"}
        codes = [(await w.call("POST", f"{BASE}/hosts/h/join", wrong, peer=None)).code for _ in range(5)]
        assert codes == [401, 401, 401, 429, 429]
        assert (await w.call("POST", f"{BASE}/hosts/i/join", wrong, peer=None)).code == 401
        for name in ("i", "i", "i"):
            token = (await w.call("POST", f"{BASE}/hosts/{name}/token", {})).json["token"]
            good = {"csr": csr(), "token": token}
            assert (await w.call("POST", f"{BASE}/hosts/{name}/join", good, peer=None)).code == 201
        reply = await w.call("POST", f"{BASE}/hosts/h/join", wrong, peer=None)
        assert int(reply.headers["retry-after"]) <= 10


async def test_who_makes_secrets_makes_so_many() -> None:
    clock = FakeClock()
    async with world(clock, limits=Limits(secrets_burst=3, secrets_seconds=10.0)) as w:
        await w.create(f"{BASE}/hosts", named("h"))
        hosts = [(await w.call("POST", f"{BASE}/hosts/h/token", {}, peer=ADMIN)).code for _ in range(5)]
        assert hosts == [201] * 5, "a fleet joins at once"
        reply = [await w.call("POST", f"{BASE}/users/ann/signinlink", {}) for _ in range(4)]
        assert [one.code for one in reply] == [201, 201, 201, 429]
        assert int(reply[3].headers["retry-after"]) == 10
        mine = await w.login("mia")
        assert (await w.call("POST", f"{BASE}/users/mia/password", {"password": "x"}, token=mine)).code == 422


async def test_worthless_bearers_of_an_address_keep_no_certificate_there_out() -> None:
    """Nor one whose holder is known, and waits for a turn before it is looked at anew."""
    async with world(FakeClock(), limits=Limits(bearer_burst=3, bearer_seconds=5.0)) as w:
        for number in range(5):
            reply = await w.call("GET", f"{BASE}/tenants", token=f"bss_a.{number}", peer=None)
        assert reply.code == 429
        codes = [(await w.call("GET", f"{BASE}/tenants", peer=ADMIN)).code for _ in range(3)]
        assert codes == [200] * 3


async def test_worthless_bearers_are_limited_for_an_address_and_good_ones_go_on() -> None:
    clock = FakeClock()
    async with world(clock, limits=Limits(bearer_burst=3, bearer_seconds=5.0)) as w:
        mine, new = await w.login("mia"), await w.login("ann")

        async def code(token: str, source: str = "192.0.2.1") -> int:
            headers = {"authorization": f"Bearer {token}", "x-bessemer-source": source}
            reply = await w.call("GET", "/whoami", peer=Peer("system:portal", (), ""), headers=headers)
            assert reply.code != 429 or int(reply.headers["retry-after"]) <= 5
            return reply.code

        assert await code(mine) == 200
        assert [await code(f"bss_a.{n}") for n in range(5)] == [401, 401, 401, 429, 429]
        assert [await code(mine), await code(new), await code(new, "192.0.2.2")] == [200, 429, 200]
        await clock.advance(5)
        assert await code(new) == 200
        assert (await w.call("DELETE", "/login", token=mine)).code == 200
        assert [await code(mine), await code(mine), await code(new)] == [401, 429, 200]


async def test_a_link_is_limited_by_its_address() -> None:
    async with world(FakeClock(), limits=Limits(login_burst=1, login_seconds=10.0)) as w:
        codes = [(await w.call("POST", "/login", {"link": "bss_a.b"}, peer=None)).code for _ in range(6)]
    assert codes == [401] * 4 + [429] * 2


async def test_a_secret_that_is_refused_is_no_making(w: World) -> None:
    """Whoever may not make it spends nothing of their own, and learns nothing by a 429."""
    rob = await w.login("rob")
    await w.create(f"{BASE}/namespaces/acme--lab/apikeys", named("k"))
    path = f"{BASE}/namespaces/acme--lab/apikeys/k/token"
    assert {(await w.call("POST", path, {}, token=rob)).code for _ in range(40)} == {403}
