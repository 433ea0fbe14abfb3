"""A part as ``up`` starts it: ``python -m bessemer.main.part WORDS --state DIR``, with words of `parts.WORDS`.

It does what ``bessemer WORDS`` does. Several processes start at once and share few cores, so each is spared what only
people need (a parser, a console) and the collector's walks over what has just been read.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

from bessemer.cli.verbs import AgentOptions, ServerOptions
from bessemer.main.parts import AGENT, BESIDE, CONTROL, FAKE, GATEWAY, ORDER, WORDS, words


def main(arguments: list[str]) -> int:
    """Run the part until it is told to stop; its exit status. Raises SystemExit for words of no part."""
    *said, flag, state = arguments if len(arguments) > 1 else ("", "")
    name = next((name for name in (*ORDER, *BESIDE) if [*words(name), "--state"] == [*said, flag]), "")
    if not name:
        raise SystemExit("this starts what `bessemer up` runs: use `bessemer server` and `bessemer agent`")
    gc.disable()  # until the part has read its code
    _without_console()
    from bessemer.cli.outcome import status_of

    return status_of(lambda: _run(name, Path(state)))


def _without_console() -> None:
    """structlog reads rich for its pretty console, and rich much more; a part writes JSON lines."""
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]


def _run(name: str, state: Path) -> int:
    if name == CONTROL or name.startswith(GATEWAY):
        from bessemer.main.server import serve_parts

        part, _, number = name.partition("-")
        parts = tuple(WORDS[part][-1].split(","))
        return serve_parts(ServerOptions(state=state, parts=parts), number=int(number or 1))
    assert name in (AGENT, FAKE)
    from bessemer.main.agent import run_agent

    return run_agent(AgentOptions(state=state, fake=name == FAKE))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
