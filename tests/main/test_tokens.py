"""The demo's account of tokens and of refusals: what is wrong in one place is not made good in another."""

from __future__ import annotations

import openai
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bessemer.core.errors import DriverError
from bessemer.main.demo import checks
from bessemer.main.demo.checks import Refusal
from bessemer.main.demo.road import costs
from bessemer.main.demo.tokens import Request, Tokens, timed, verdict

EQUAL = Tokens(40, 16)


def request(*, billed: Tokens, counted: Tokens = EQUAL) -> Request:
    return Request(billed=billed, timed=EQUAL, counted=counted)


def test_equal_requests_differ_by_0() -> None:
    said = verdict([request(billed=Tokens(40, 16))] * 4)
    assert said.startswith("4 requests, ")
    assert said.endswith("difference 0")


@pytest.mark.parametrize(
    "billed",
    [(Tokens(41, 16), Tokens(39, 16)), (Tokens(40, 17), Tokens(40, 15)), (Tokens(41, 15), Tokens(40, 16))],
    ids=["input", "output", "input against output"],
)
def test_errors_of_opposite_sign_do_not_cancel(billed: tuple[Tokens, Tokens]) -> None:
    with pytest.raises(DriverError, match=r"differ by 4: request 1: billed"):
        verdict([request(billed=one) for one in billed])


def test_the_engines_counters_and_its_timings_are_compared_each() -> None:
    with pytest.raises(DriverError, match=r"differ by 1: request 2: billed 40 in, 16 out; .* counted 40 in, 17 out"):
        verdict([request(billed=Tokens(40, 16)), request(billed=Tokens(40, 16), counted=Tokens(40, 17))])


def test_nothing_asked_is_nothing_shown() -> None:
    with pytest.raises(DriverError, match="nothing was asked"):
        verdict([])


def test_cached_tokens_are_among_those_in() -> None:
    assert timed({"timings": {"prompt_n": 1, "cache_n": 39, "predicted_n": 16}}) == Tokens(40, 16)
    with pytest.raises(DriverError, match="no timings"):
        timed({"usage": {}})


@pytest.mark.parametrize(("status", "code"), [(401, "invalid_api_key"), (404, "other"), (403, "model_not_found")])
async def test_a_refusal_of_another_kind_fails(status: int, code: str) -> None:
    with pytest.raises(DriverError, match=f"rival's key 404 model_not_found is due, and it was {status} {code}"):
        await ask(status, {"error": {"message": "no", "code": code}})


async def test_a_request_that_is_answered_fails() -> None:
    with pytest.raises(DriverError, match="it was answered"):
        await ask(200, {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": []})


async def test_a_refusal_as_it_is_due_passes() -> None:
    assert await ask(404, {"error": {"message": "no", "code": "model_not_found"}}) == 1, "asked once"


async def ask(status: int, body: dict[str, object]) -> int:
    """Be refused with the rival's key by a gateway that answers so; how often it was asked."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.json_response(body, status=status)

    application = web.Application()
    application.router.add_post("/chat/completions", answer)
    async with (
        TestServer(application) as server,
        openai.AsyncOpenAI(base_url=str(server.make_url("/")), api_key="k", max_retries=0) as ai,
    ):
        await checks.refused(ai, Refusal("rival's key", 404, "model_not_found"), model="smol")
    return len(asked)


def test_each_workload_costs_what_its_own_lines_say() -> None:
    lines = [("vm", 500_000), ("smol", 20), ("vm", 250_000), ("smol", 3)]
    bill = {"currency": "EUR", "lines": [{"workloadUid": uid, "amountMicro": amount} for uid, amount in lines]}
    assert costs(bill) == {"vm": "EUR 0.750000", "smol": "EUR 0.000023"}
