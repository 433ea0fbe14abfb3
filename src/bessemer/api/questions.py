"""Reviews: what is asked by POST, answered at once and never kept. Their places, and what their bodies ask.

A question about access names a resource (`Act`) or a path (`Visit`), never both. Nothing here answers: see `reviews`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bessemer.api.errors import Subject, invalid
from bessemer.api.names import NAME_MAX, show
from bessemer.core.errors import Cause, Malformed
from bessemer.core.resource import GROUP, VERSION

AUTHENTICATION, AUTHORIZATION = "authentication.k8s.io", "authorization.k8s.io"
REVIEW_VERSION = "v1"
PATH_MAX = 1024


@dataclass(frozen=True, slots=True)
class Review:
    """A kind of question; ``namespaced`` ones are asked within a project."""

    group: str
    kind: str
    spec: frozenset[str] = frozenset()
    """The fields of what is asked."""

    namespaced: bool = False
    version: str = REVIEW_VERSION

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}"

    @property
    def plural(self) -> str:
        return f"{self.kind.lower()}s"

    @property
    def path(self) -> str:
        """Of its route."""
        project = "/namespaces/{namespace}" if self.namespaced else ""
        return f"/apis/{self.api_version}{project}/{self.plural}"

    @property
    def subject(self) -> Subject:
        """What an error about it names."""
        return Subject(self.group, self.plural, self.kind)


_ASKED: Mapping[str, frozenset[str]] = {
    "resourceAttributes": frozenset(
        {"namespace", "verb", "group", "version", "resource", "subresource", "name", "fieldSelector", "labelSelector"}
    ),
    "nonResourceAttributes": frozenset({"path", "verb"}),
}
_OF_SOMEBODY = frozenset({*_ASKED, "user", "groups", "uid", "extra"})
ACCESS = Review(AUTHORIZATION, "SubjectAccessReview", _OF_SOMEBODY)
LOCAL_ACCESS = Review(AUTHORIZATION, "LocalSubjectAccessReview", _OF_SOMEBODY, namespaced=True)
SELF_ACCESS = Review(AUTHORIZATION, "SelfSubjectAccessReview", frozenset(_ASKED))
SELF_RULES = Review(AUTHORIZATION, "SelfSubjectRulesReview", frozenset({"namespace"}))
SELF = Review(AUTHENTICATION, "SelfSubjectReview")
TOKEN = Review(AUTHENTICATION, "TokenReview", frozenset({"token", "audiences"}))
PLACEMENT = Review(GROUP, "PlacementReview", frozenset({"object", "after"}), namespaced=True, version=VERSION)
"""Where an object would go, were it created, after others."""

REVIEWS = (SELF, TOKEN, LOCAL_ACCESS, SELF_ACCESS, SELF_RULES, ACCESS, PLACEMENT)


@dataclass(frozen=True, slots=True)
class Act:
    """A verb upon a resource. ``namespace`` "" is all projects, or none; ``name`` "" is whatever name. ``*`` is each
    verb, group, resource or subresource that there is."""

    verb: str
    group: str
    version: str
    resource: str
    subresource: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Visit:
    """A method (in small letters, ``*`` is each) upon a path that names no resource."""

    verb: str
    path: str


def unknown(review: Review, body: Mapping[str, Any]) -> list[str]:
    """The paths of fields that no such review has, in order; ``body`` is one that `identify` took."""
    paths = [name for name in body if name not in {"apiVersion", "kind", "metadata", "spec", "status"}]
    spec = body.get("spec") or {}
    if spec and not review.spec:
        return sorted([*paths, "spec"])
    paths += [f"spec.{name}" for name in spec if name not in review.spec]
    for name, fields in _ASKED.items():
        asked = spec.get(name) if name in review.spec else None
        if isinstance(asked, Mapping):
            paths += [f"spec.{name}.{inner}" for inner in asked if inner not in fields]
    return sorted(paths)


def identify(review: Review, body: dict[str, Any]) -> dict[str, Any]:
    """The body's spec, once the body is that review; fills in what it leaves open. Raises Malformed."""
    version, kind = body.setdefault("apiVersion", review.api_version), body.setdefault("kind", review.kind)
    if (version, kind) != (review.api_version, review.kind):
        raise Malformed(
            f"the body is {show(kind)} in version {show(version)}, and a {review.kind} of {review.api_version} is "
            "asked here"
        )
    return _part(body, "spec") or {}


def question(review: Review, spec: Mapping[str, Any]) -> Act | Visit:
    """What a review of access asks. Raises Malformed, Invalid."""
    act, visit = _part(spec, "resourceAttributes"), _part(spec, "nonResourceAttributes")
    if (act is None) == (visit is None):
        words = "Invalid value: exactly one of nonResourceAttributes or resourceAttributes must be specified"
        raise invalid(review.subject, [Cause("spec.resourceAttributes", words)])
    if visit is not None:
        at = "spec.nonResourceAttributes"
        return Visit(
            text(review, visit, field="verb", at=at).lower(), text(review, visit, field="path", at=at, longest=PATH_MAX)
        )
    fields = ("verb", "group", "version", "resource", "subresource", "namespace", "name")
    return Act(*(text(review, act or {}, field=field, at="spec.resourceAttributes") for field in fields))


def text(review: Review, said: Mapping[str, Any], *, field: str, at: str, longest: int = NAME_MAX) -> str:
    """A text of the body, "" where there is none. Raises Invalid for what is no text, or a longer one."""
    value = said.get(field)
    if value is not None and not isinstance(value, str):
        raise invalid(review.subject, [Cause(f"{at}.{field}", f"Invalid value: {show(value)}: must be text")])
    if value and len(value) > longest:
        words = f"Too long: may not be more than {longest} bytes"
        raise invalid(review.subject, [Cause(f"{at}.{field}", words, "FieldValueTooLong")])
    return value or ""


def texts(review: Review, said: Mapping[str, Any], *, field: str, at: str) -> tuple[str, ...]:
    """A list of texts of the body. Raises Invalid."""
    value = said.get(field) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise invalid(review.subject, [Cause(f"{at}.{field}", "Invalid value: must be a list of texts")])
    return tuple(value)


def _part(said: Mapping[str, Any], field: str) -> dict[str, Any] | None:
    value = said.get(field)
    if value is not None and not isinstance(value, dict):
        raise Malformed(f"{field} must be an object")
    return value
