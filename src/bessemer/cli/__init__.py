"""The command line: it renders what ``client`` returns, and calls the verbs that ``main`` hands in.

It imports kinds and client inside its commands, so that ``--help`` is quick. It is no place for logic: whatever it can
do, kubectl or an API call can do too.
"""

from __future__ import annotations

from bessemer.cli.verbs import Verbs


def run(verbs: Verbs, arguments: list[str] | None = None) -> None:
    """Run one command and exit with its status: 0 done, 1 refused or failed, 2 misused, 130 interrupted."""
    import sys

    from bessemer.cli.app import build
    from bessemer.cli.outcome import status_of

    sys.exit(status_of(lambda: build(verbs)(args=arguments, prog_name="bessemer")))
