"""Threads that a Claim owns, from what the api says to what the host is asked to keep apart."""

from __future__ import annotations

from typing import Any

from bessemer.agent.threads import LOOK_SECONDS
from bessemer.core.errors import DriverError
from bessemer.drivers.threads.fake import FakeThreads
from tests.agent.conftest import Bench
from tests.agent.standin import claim


def pinned(name: str, uid: str, *cpus: str) -> dict[str, Any]:
    """A Claim with threads of its own on as many nodes."""
    body = claim(name, uid)
    parts = [{"numaNode": n, "milliCores": 1000, "memoryBytes": 1, "cpus": words} for n, words in enumerate(cpus)]
    body["spec"]["allocations"] = parts
    return body


def threads(bench: Bench) -> FakeThreads:
    assert isinstance(bench.drivers.threads, FakeThreads)
    return bench.drivers.threads


async def test_they_are_kept_from_when_a_claim_comes_until_nothing_is_left_of_it(bench: Bench) -> None:
    at_start: list[dict[str, str]] = []
    bench.qemu._on_call = lambda call: at_start.append(threads(bench).own) if call == "qemu.start" else None
    bench.start()
    bench.api.put(claim("instance-shared-0", "uid-s"))
    await bench.expect(lambda: len(at_start) == 1)
    body = bench.api.put(pinned("instance-own-0", "uid-o", "2-3", "8"))
    await bench.expect(lambda: bench.api.status(body).get("phase") == "Running")
    assert at_start == [{}, {"uid-o": "2-3,8"}], "before its first process begins"
    await bench.kill()
    threads(bench).own = {}
    bench.api.away = True
    bench.start()
    await bench.expect(lambda: threads(bench).own == {"uid-o": "2-3,8"})  # found again on disk alone
    bench.api.away = False
    body["metadata"]["deletionTimestamp"] = "2025-06-15T16:00:00Z"
    bench.api.put(body)
    await bench.expect(lambda: bench.api.status(body).get("phase") == "Gone")
    assert threads(bench).own == {"uid-o": "2-3,8"}, "the place is not given back yet"
    bench.api.release(body)
    await bench.expect(lambda: threads(bench).own == {})


async def test_a_kernel_that_refuses_is_tried_again_and_keeps_nobody_waiting(bench: Bench) -> None:
    refused: list[str] = []

    def refuse(call: str) -> None:
        if call == "threads.keep" and len(refused) < 3:
            refused.append(call)
            raise DriverError("ThreadsRefused", "the kernel refused hardware threads")

    threads(bench)._on_call = refuse
    bench.start()
    body = bench.api.put(pinned("instance-own-0", "uid-o", "2"))
    await bench.expect(lambda: bench.api.status(body).get("phase") == "Running")
    await bench.expect(lambda: threads(bench).own == {"uid-o": "2"})
    assert len(refused) == 3


async def test_a_kernel_that_refuses_is_asked_at_each_look_and_not_at_each_step(bench: Bench) -> None:
    asked: list[str] = []

    def refuse(call: str) -> None:
        if call == "threads.keep":
            asked.append(call)
            raise DriverError("ThreadsRefused", "the kernel refused hardware threads")

    threads(bench)._on_call = refuse
    bench.start()
    bodies = [bench.api.put(pinned(f"instance-own-{n}", f"uid-{n}", str(n))) for n in range(3)]
    await bench.expect(lambda: all(bench.api.status(body).get("phase") == "Running" for body in bodies))
    began, known = bench.clock.now(), len(asked)
    await bench.expect(lambda: bench.clock.now() > began + 10 * LOOK_SECONDS)
    assert 9 <= len(asked) - known <= 12


async def test_what_cannot_be_threads_is_passed_over(bench: Bench) -> None:
    bench.start()
    bench.api.put(pinned("instance-odd-0", "uid-odd", "5-2"))
    bench.api.put(pinned("instance-own-0", "uid-o", "4"))
    await bench.expect(lambda: threads(bench).own == {"uid-o": "4"})
