"""A replica's engine as a process: a fake one that writes down each token of each request as it makes it.

``python -m tests.soak.engined DOOR LOG SECRET CONTEXT``. A request is known by the first word of its message. Lines of
the log: ``b ID PROMPT LENGTH`` where one begins, ``t ID`` for each token. It makes all that it is asked for, however
much that is: as many choices as are asked, each as long as it may be.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bessemer.core.clock import SystemClock
from bessemer.drivers.engine.fake_server import TEMPLATE_TOKENS, Answer, Behaviour, FakeModel, FakeServer

SECONDS_PER_TOKEN = 0.004
PAUSE_EACH = 8


@dataclass(frozen=True, slots=True)
class Known(Answer):
    """Whose it is."""

    id: str = ""


@dataclass(slots=True)
class Greedy(FakeModel):
    """``log`` is where it writes."""

    log: int = -1
    context: int = 0

    def answer(self, body: dict[str, Any]) -> Answer:
        words = str(body["messages"][0]["content"]).split()
        room = self.context - len(words) - TEMPLATE_TOKENS
        most = min(room, int(body.get("max_tokens") or body.get("max_completion_tokens") or room))
        made = FakeModel.answer(self, {**body, "max_tokens": most, "ignore_eos": True})
        whole = made.words * int(body.get("n") or 1)
        os.write(self.log, b"b %b %d %d\n" % (words[0].encode(), made.prompt_n + made.cache_n, len(whole)))
        return Known(made.model, whole, made.finish_reason, made.prompt_n, made.cache_n, id=words[0])


class Telling(FakeServer):
    """Writes before it sends."""

    def __init__(self, model: Greedy, *, secret: str) -> None:
        super().__init__(model, secret=secret, clock=SystemClock())
        self._log = model.log

    async def _words(self, answer: Answer) -> AsyncIterator[str]:
        assert isinstance(answer, Known)
        for number, word in enumerate(answer.words):
            if number % PAUSE_EACH == 0:
                await asyncio.sleep(SECONDS_PER_TOKEN * PAUSE_EACH)
            os.write(self._log, b"t %b\n" % answer.id.encode())
            yield word


async def main(door: str, log: str, secret: str, context: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(door)  # of one that was killed
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    model = Greedy(alias="smol", behaviour=Behaviour(), log=descriptor, context=int(context))
    await Telling(model, secret=secret).open(Path(door))
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
