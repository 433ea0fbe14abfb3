"""What can go wrong, in one tree that is ignorant of HTTP.

    BessemerError
     ├─ Malformed          the words cannot be read (bad JSON, bad parameter)
     ├─ Invalid            the words are read and mean nothing allowed; carries a cause per field
     ├─ TooLarge           a body, a depth or a count past its bound
     ├─ Unauthenticated    nobody we know
     ├─ Forbidden          somebody we know who may not
     │   ├─ QuotaExceeded  who might, if less were used or more were granted
 │   └─ Walled         whose tenant may not, as things stand
     ├─ NotFound           it is not there, or you may not know that it is
     ├─ AlreadyExists
     ├─ Conflict           somebody else wrote first; read again and decide again
     │   └─ Taken          the hardware went to somebody else between decision and transaction
     ├─ Expired            a watch or a list continues from a point that history no longer holds
     ├─ TooMany            slow down; carries the seconds to wait
     ├─ Unavailable        not now; carries the seconds to wait
     └─ DriverError        the world refused; carries the reason a condition shows

``str(error)`` is for the user and never holds an internal; ``internal`` is for the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cause:
    """One field that is wrong: ``field`` is a path as ``spec.memory`` or ``spec.tolerations[0].key``."""

    field: str
    message: str
    reason: str = "FieldValueInvalid"


class BessemerError(Exception):
    """The root. ``internal`` goes to the log, never to a user."""

    def __init__(self, message: str, *, internal: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.internal = internal


class Malformed(BessemerError):
    """The request cannot be read."""


class Invalid(BessemerError):
    """The request is read and refused, field by field."""

    def __init__(self, message: str, causes: Sequence[Cause] = (), *, internal: str = "") -> None:
        super().__init__(message, internal=internal)
        self.causes = tuple(causes)


class TooLarge(BessemerError):
    """A body, a nesting depth or a count is past its bound."""


class Unauthenticated(BessemerError):
    """No credential, or one that nobody issued."""


class Forbidden(BessemerError):
    """The credential is good and the act is not allowed."""


class QuotaExceeded(Forbidden):
    """The act would pass a quota; the message says what is left and who may raise it."""


class Walled(Forbidden):
    """The tenant's terms keep it out: it is suspended, or the place is none of its own."""


class NotFound(BessemerError):
    """It does not exist, or the asker may not know that it does."""


class AlreadyExists(BessemerError):
    """The name is in use."""


class Conflict(BessemerError):
    """The object changed since it was read."""


class Taken(Conflict):
    """A device or a share of a host went to another claim first."""


class Expired(BessemerError):
    """History no longer reaches back so far: list again. ``proceed`` is where a list may go on all the same, at what
    there is now; "" where it may not."""

    def __init__(self, message: str, *, proceed: str = "", internal: str = "") -> None:
        super().__init__(message, internal=internal)
        self.proceed = proceed


class TooMany(BessemerError):
    """A limit of rate was passed."""

    def __init__(self, message: str, *, retry_after_seconds: int = 1, internal: str = "") -> None:
        super().__init__(message, internal=internal)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(BessemerError):
    """Temporarily impossible."""

    def __init__(self, message: str, *, retry_after_seconds: int = 1, internal: str = "") -> None:
        super().__init__(message, internal=internal)
        self.retry_after_seconds = retry_after_seconds


class DriverError(BessemerError):
    """The infrastructure refused. ``reason`` is CamelCase and becomes a condition's reason (``DiskFull``)."""

    def __init__(self, reason: str, message: str, *, internal: str = "") -> None:
        super().__init__(message, internal=internal)
        self.reason = reason
