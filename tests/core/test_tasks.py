"""Work that ends together."""

from __future__ import annotations

import asyncio

import pytest

from bessemer.core.tasks import first_error, first_of, together, until_first


async def ends() -> str:
    return "ended"


async def fails(error: Exception) -> None:
    raise error


async def test_the_others_are_cancelled_and_awaited() -> None:
    first, second = asyncio.ensure_future(ends()), asyncio.ensure_future(asyncio.Event().wait())
    assert await until_first([first, second]) == {first}
    assert first.result() == "ended"
    assert second.cancelled()
    assert first_error([first, second]) is None


async def test_after_its_seconds_none_goes_on() -> None:
    only = asyncio.ensure_future(asyncio.Event().wait())
    assert await until_first([only], seconds=0.001) == set()
    assert only.cancelled()


async def test_who_is_cancelled_takes_them_along() -> None:
    only = asyncio.ensure_future(asyncio.Event().wait())
    waiting = asyncio.ensure_future(until_first([only]))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert only.cancelled()


async def test_the_first_error_but_for_what_is_expected() -> None:
    broken, wrong = OSError("gone"), ValueError("wrong")
    tasks = [asyncio.ensure_future(fails(broken)), asyncio.ensure_future(fails(wrong))]
    await until_first(tasks)
    assert first_error(tasks) is broken
    assert first_error(tasks, but=OSError) is wrong


async def rude() -> None:
    """Fails where it is cancelled."""
    try:
        await asyncio.Event().wait()
    finally:
        raise ValueError("late")


async def test_what_the_first_raises_goes_on_and_what_others_raise_on_the_way_out_does_not() -> None:
    await first_of(ends(), rude())
    with pytest.raises(KeyError):
        await first_of(fails(KeyError("first")), rude())


async def test_together_all_come_to_their_ends_unless_one_fails() -> None:
    await together(ends(), ends())
    with pytest.raises(ExceptionGroup) as caught:
        await together(fails(KeyError("one")), asyncio.Event().wait())
    assert [str(error) for error in caught.value.exceptions] == ["'one'"]
