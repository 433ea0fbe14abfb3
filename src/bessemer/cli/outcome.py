"""How a command ends: an exit status, and a line that says what to do where it failed."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Callable, Mapping

from bessemer.core.errors import BessemerError, Forbidden, Invalid, NotFound, TooMany, Unauthenticated, Unavailable

_ROOM = "make room there, or choose another place (--state names that of an installation)"
_PLACE = "choose another place (--state names that of an installation)"
_REMEDIES: Mapping[int, str] = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EROFS: _PLACE,
    errno.EACCES: _PLACE,
    errno.EEXIST: _PLACE,
    errno.ENOTDIR: _PLACE,
}


def status_of(command: Callable[[], object]) -> int:
    """Run a command; its exit status, 0 where it returns none. Errors of the house become lines on stderr, misuse is
    the parser's to explain."""
    try:
        status = command()
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 0
    except BessemerError as error:
        for line in explain(error):
            print(line, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {refused(error)}", file=sys.stderr)
        return 1
    return status if isinstance(status, int) else 0


def refused(error: OSError) -> str:
    """What this machine refused us, on which file, and what to do where that is known."""
    words = ": ".join(str(word) for word in (error.filename, error.strerror or error) if word)
    remedy = _REMEDIES.get(error.errno or 0)
    return f"{words}; {remedy}" if remedy else words


def explain(error: BessemerError) -> list[str]:
    """The lines that a person sees: what happened, field by field where it is known, and what to do."""
    lines = [f"error: {_own_words(error.message)}"]
    if isinstance(error, Invalid):
        # A refusal for one reason has it in its own words already.
        causes = [cause for cause in error.causes if cause.message not in error.message]
        lines += [f"  {cause.field}: {cause.message}" for cause in causes]
    hint = _hint(error)
    return [*lines, hint] if hint else lines


def _own_words(message: str) -> str:
    """What the api says to kubectl of a namespace, said of a project."""
    return re.sub(r'^namespaces "(.+)" not found$', r"there is no project \1", message)


def _hint(error: BessemerError) -> str:
    if isinstance(error, Unauthenticated):
        return "Sign in with `bessemer login`, or name a kubeconfig with --kubeconfig."
    if isinstance(error, TooMany | Unavailable):
        return f"Try again in {error.retry_after_seconds} s."
    if isinstance(error, NotFound):
        what = "projects" if "no project" in _own_words(error.message) else "KIND -A"
        return f"`bessemer get {what}` lists what you may see."
    if isinstance(error, Forbidden):
        return "`bessemer whoami` shows your roles."
    return ""
