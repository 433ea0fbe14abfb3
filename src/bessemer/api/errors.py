"""The one table that turns the errors of ``core.errors`` into Kubernetes' ``Status``, and what only HTTP can refuse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from bessemer.core.errors import (
    AlreadyExists,
    BessemerError,
    Cause,
    Conflict,
    DriverError,
    Expired,
    Forbidden,
    Invalid,
    Malformed,
    NotFound,
    QuotaExceeded,
    Taken,
    TooLarge,
    TooMany,
    Unauthenticated,
    Unavailable,
)


class Unacceptable(BessemerError):
    """The client takes no format that we speak."""


class UnknownFormat(BessemerError):
    """The body is in no format that we read here."""


class FieldConflict(Conflict):
    """Somebody applies other values to fields that others own. ``causes`` name them."""

    def __init__(self, message: str, causes: Sequence[Cause]) -> None:
        super().__init__(message)
        self.causes = tuple(causes)


class WrongMethod(BessemerError):
    """The resource is there and the method is not."""


class FutureRevision(BessemerError):
    """The client has seen a revision that this server has not reached."""

    def __init__(self, asked: int, current: int) -> None:
        super().__init__(f"Timeout: Too large resource version: {asked}, current: {current}")


_AHEAD = "Too large resource version"


@dataclass(frozen=True, slots=True)
class Row:
    """How an error is told: HTTP status, Status reason, and a cause that lets our client tell it apart."""

    code: int
    reason: str
    cause: str = ""


TABLE: Mapping[type[BessemerError], Row] = MappingProxyType(
    {
        Malformed: Row(400, "BadRequest"),
        Unauthenticated: Row(401, "Unauthorized"),
        Forbidden: Row(403, "Forbidden"),
        QuotaExceeded: Row(403, "Forbidden", "QuotaExceeded"),
        NotFound: Row(404, "NotFound"),
        WrongMethod: Row(405, "MethodNotAllowed"),
        Unacceptable: Row(406, "NotAcceptable"),
        AlreadyExists: Row(409, "AlreadyExists"),
        Conflict: Row(409, "Conflict"),
        Taken: Row(409, "Conflict", "Taken"),
        Expired: Row(410, "Expired"),
        TooLarge: Row(413, "RequestEntityTooLarge"),
        UnknownFormat: Row(415, "UnsupportedMediaType"),
        Invalid: Row(422, "Invalid"),
        TooMany: Row(429, "TooManyRequests"),
        DriverError: Row(500, "InternalError"),
        Unavailable: Row(503, "ServiceUnavailable"),
        FutureRevision: Row(504, "Timeout", "ResourceVersionTooLarge"),
        BessemerError: Row(500, "InternalError"),
    }
)


@dataclass(frozen=True, slots=True)
class Subject:
    """What a request was about, for ``details``: a plural, or a Kind where fields are wrong."""

    group: str = ""
    plural: str = ""
    kind: str = ""
    name: str = ""

    @property
    def resource(self) -> str:
        """``instances.bessemer.dev``, as kubectl writes it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


class Unfit(Invalid):
    """Fields that are wrong, and of what: of a request's options too, which the path does not name."""

    def __init__(self, subject: Subject, causes: Sequence[Cause]) -> None:
        super().__init__(_invalid_message(subject, causes), causes)
        self.subject = subject


class Absent(NotFound):
    """What is not there, where the path names something else."""

    def __init__(self, subject: Subject) -> None:
        super().__init__(f'{subject.resource} "{subject.name}" not found')
        self.subject = subject


def row_of(error: BessemerError) -> Row:
    """The row of an error, by the nearest class in the table."""
    return next(TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)


def status_of(error: BessemerError, subject: Subject | None = None) -> dict[str, Any]:
    """The ``Status`` object of an error, about ``subject`` unless the error says about what."""
    row = row_of(error)
    about: Subject = getattr(error, "subject", None) or subject or Subject()
    details = _details(error, about, row=row)
    body: dict[str, Any] = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {"continue": error.proceed} if isinstance(error, Expired) and error.proceed else {},
        "status": "Failure",
        "message": _message(error, about),
        "reason": row.reason,
    }
    if details:
        body["details"] = details
    return {**body, "code": row.code}


def retry_after(error: BessemerError) -> int | None:
    """Seconds for ``Retry-After``."""
    if isinstance(error, TooMany | Unavailable):
        return error.retry_after_seconds
    return 1 if isinstance(error, FutureRevision) else None


def success(subject: Subject, uid: str) -> dict[str, Any]:
    """The ``Status`` of a deletion that is done."""
    details = {"name": subject.name, "group": subject.group, "kind": subject.plural, "uid": uid}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {k: v for k, v in details.items() if v},
    }


def not_found(subject: Subject) -> NotFound:
    """The words of Kubernetes for an object that is not there, or not for this asker."""
    return Absent(subject)


def no_namespace(name: str) -> NotFound:
    """The words of Kubernetes for a project that is not there, or not for this asker."""
    return Absent(Subject(plural="namespaces", name=name[:80]))


def invalid(subject: Subject, causes: Sequence[Cause]) -> Invalid:
    """The words of Kubernetes for fields that are wrong."""
    return Unfit(subject, causes)


def _invalid_message(subject: Subject, causes: Sequence[Cause]) -> str:
    said = [f"{c.field}: {c.message}" if c.field else c.message for c in causes]
    whole = said[0] if len(said) == 1 else "[" + ", ".join(said) + "]"
    kind = f"{subject.kind}.{subject.group}" if subject.group else subject.kind
    return f'{kind} "{subject.name}" is invalid: {whole}'


def _message(error: BessemerError, about: Subject) -> str:
    if isinstance(error, Invalid) and error.causes and " is invalid: " not in error.message and about.kind:
        return _invalid_message(about, error.causes)
    if isinstance(error, AlreadyExists) and about.name:
        return f'{about.resource} "{about.name}" already exists'
    if isinstance(error, Conflict) and about.name and not isinstance(error, FieldConflict):
        return f'Operation cannot be fulfilled on {about.resource} "{about.name}": {error.message}'
    return error.message or "the server could not do this"


_OF_NO_OBJECT = (
    Expired,
    FieldConflict,
    FutureRevision,
    Malformed,
    Unacceptable,
    Unauthenticated,
    UnknownFormat,
    WrongMethod,
)
"""Errors whose details name nothing."""


def _details(error: BessemerError, about: Subject, *, row: Row) -> dict[str, Any]:
    fields = isinstance(error, Invalid)
    kind = about.kind if fields and about.kind else about.plural
    details: dict[str, Any] = {k: v for k, v in (("name", about.name), ("group", about.group), ("kind", kind)) if v}
    if isinstance(error, _OF_NO_OBJECT):
        details = {}
    causes = [_cause(c.reason, c.message, field=c.field) for c in getattr(error, "causes", ())]
    if row.cause:
        causes.append(_cause(row.cause, _AHEAD if isinstance(error, FutureRevision) else error.message))
    if causes:
        details["causes"] = causes
    seconds = retry_after(error)
    if seconds is not None:
        details["retryAfterSeconds"] = seconds
    return details


def _cause(reason: str, message: str, *, field: str = "") -> dict[str, str]:
    return {"reason": reason, "message": message} | ({"field": field} if field else {})
