"""Commits that fail as a test says, on either database and by either road."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Fault = Callable[[], Exception | None]


def at_commits(session: Any, fault: Fault, *, before: bool = True) -> None:
    """Ask ``fault`` at each commit of the session: what it answers is what the commit raises, ``before`` anything was
    written, or after all was."""
    if not hasattr(session, "closing"):
        commit = session.commit

        def committing(batches: Sequence[Any] = ()) -> None:
            error = fault()
            if error is None or not before:
                commit(batches)
            if error is not None:
                raise error

        session.commit = committing
        return
    closing, closed, failed = session.closing, session.closed, dict[int, Exception]()

    def sending(batches: Sequence[Any]) -> Any:
        error = fault()
        exchange = session.leaving() if error is not None and before else closing(batches)
        if error is not None:
            failed[id(exchange.wait())] = error
        return exchange

    def judged(exchange: Any) -> None:
        if id(exchange) in failed:
            raise failed[id(exchange)]
        closed(exchange)

    session.closing, session.closed = sending, judged


def gone_after(session: Any, commits: int, *, before: bool = True) -> None:
    """Let so many commits be made, and the process be gone at each one after these."""
    left, gone = iter(range(commits)), session.faults[0]

    def crash() -> Exception | None:
        return None if next(left, None) is not None else gone("the process is gone")

    at_commits(session, crash, before=before)
