"""Label and field selectors, as Kubernetes writes them: parsed once, in time linear to the text.

labels   a=b  a==b  a!=b  a in (b,c)  a notin (b,c)  a  !a
fields   metadata.name=x  metadata.namespace=x  and those that a resource names (``spec.host`` of Claims)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bessemer.api.names import is_label_key, is_label_value
from bessemer.core.errors import Malformed

SELECTOR_BYTES_MAX = 8192
_TOKEN = re.compile(r"\s*(==|=|!=|!|,|\(|\)|[^\s=!,()]+)")
Operator = Literal["in", "notin", "exists", "absent"]


@dataclass(frozen=True, slots=True)
class Requirement:
    """One term. ``values`` are those of in and notin."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels satisfies it; ``notin`` does so where the key is absent."""
        if self.operator == "in":
            return labels.get(self.key) in self.values
        if self.operator == "notin":
            return labels.get(self.key) not in self.values
        return (self.key in labels) == (self.operator == "exists")


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """All of its requirements. An empty one selects everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(r.holds(labels) for r in self.requirements)

    def equalities(self) -> dict[str, str] | None:
        """The selector as equal labels, where that says all of it; else None."""
        found: dict[str, str] = {}
        for r in self.requirements:
            if r.operator != "in" or len(r.values) != 1 or r.key in found:
                return None
            found[r.key] = next(iter(r.values))
        return found


def parse_labels(text: str) -> LabelSelector:
    """Raises Malformed with what was found and what was expected."""
    if len(text) > SELECTOR_BYTES_MAX:
        raise Malformed("the label selector is too long")
    tokens = _tokens(text)
    requirements: list[Requirement] = []
    while tokens:
        requirements.append(_requirement(tokens))
        if tokens and tokens.pop(0) != ",":
            raise Malformed("unable to parse requirement: found words after the end of one, expected: ','")
    return LabelSelector(tuple(requirements))


def _tokens(text: str) -> list[str]:
    found, position, end = [], 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:  # pragma: no cover - the last alternative takes whatever the others leave
            raise Malformed("unable to parse the selector")
        found.append(match[1])
        position = match.end()
    return found


def _requirement(tokens: list[str]) -> Requirement:
    if tokens[0] == "!":
        tokens.pop(0)
        return Requirement(_key(tokens), "absent")
    key = _key(tokens)
    if not tokens or tokens[0] == ",":
        return Requirement(key, "exists")
    operator = tokens.pop(0)
    if operator in ("=", "==", "!="):
        value = tokens.pop(0) if tokens and tokens[0] not in (",", "(", ")") else ""
        return Requirement(key, "notin" if operator == "!=" else "in", frozenset([_value(value)]))
    if operator in ("in", "notin"):
        return Requirement(key, "in" if operator == "in" else "notin", _values(tokens))
    raise Malformed(f"unable to parse requirement: found '{operator[:80]}', expected: '=', '!=', '==', 'in', notin'")


def _key(tokens: list[str]) -> str:
    key = tokens.pop(0) if tokens else ""
    if not is_label_key(key):
        raise Malformed(f"unable to parse requirement: {key[:80]!r} is not a label's name")
    return key


def _values(tokens: list[str]) -> frozenset[str]:
    if not tokens or tokens.pop(0) != "(":
        raise Malformed("unable to parse requirement: expected: '('")
    values: set[str] = set()
    while tokens:
        token = tokens.pop(0)
        if token == ")":
            return frozenset(values or {""})
        if token != ",":
            values.add(_value(token))
    raise Malformed("unable to parse requirement: expected: ')'")


def _value(value: str) -> str:
    if not is_label_value(value):
        raise Malformed(f"unable to parse requirement: {value[:80]!r} is not a label's value")
    return value


# --- fields -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FieldTerm:
    """``path`` equals ``value``, or does not where ``negated``."""

    path: str
    value: str
    negated: bool = False

    def holds(self, body: Mapping[str, Any]) -> bool:
        found: Any = body
        for part in self.path.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        return (("" if found is None else str(found)) == self.value) != self.negated


def parse_fields(text: str, allowed: Sequence[str]) -> list[FieldTerm]:
    """Raises Malformed for a field that is not in ``allowed``."""
    if len(text) > SELECTOR_BYTES_MAX:
        raise Malformed("the field selector is too long")
    terms = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        path, operator, value = _split(part)
        if path not in allowed:
            raise Malformed(f"field label not supported: {path[:80]}")
        terms.append(FieldTerm(path, value, operator == "!="))
    return terms


def _split(term: str) -> tuple[str, str, str]:
    for operator in ("!=", "==", "="):
        path, found, value = term.partition(operator)
        if found:
            return path, operator, value
    raise Malformed(f"invalid selector: '{term[:80]}'; can't understand '{term[:80]}'")
