"""Who answers for an endpoint and of what: revisions and how far a rollout is, how many replicas are wanted and why,
backends by weight, a service elsewhere, fallbacks."""

from __future__ import annotations

from collections.abc import Iterator

from bessemer.portal import words
from bessemer.portal.desk import Desk
from bessemer.portal.facts import EndpointFact, Revision
from bessemer.portal.live import Part
from bessemer.portal.parts import Cell, Row

REVISIONS_SHOWN = 5


def rows(desk: Desk, fact: EndpointFact) -> list[Part]:
    """A row for each, what answers now first."""
    found = [*_elsewhere(desk, fact), *_scaling(fact), *_revisions(fact), *_fallbacks(desk, fact)]
    return list(found) or [Row("made-none", (Cell("Nothing was made for it yet.", "empty"),))]


def _elsewhere(desk: Desk, fact: EndpointFact) -> Iterator[Row]:
    whole = sum(weight for _, weight in fact.backends)
    for name, weight in fact.backends:
        share = f"{100 * weight / whole:.3g} % of requests" if whole else "no requests"
        yield _named(desk, fact, name=name, id=f"made-backend-{name}", what="Backend", why=f"{share}, weight {weight}")
    url, model = fact.external
    if url:
        state = Cell(words.state(fact), "state", tone=words.tone(words.state(fact)))
        why = Cell("a service elsewhere answers; it costs no replica here", low=True)
        yield Row("made-external", (Cell(model, "name", note=url), state, why, Cell("", "since", since=fact.since)))


def _fallbacks(desk: Desk, fact: EndpointFact) -> Iterator[Row]:
    for place, name in enumerate(fact.fallbacks, 1):
        why = "asked where nobody here answers"
        yield _named(desk, fact, name=name, id=f"made-fallback-{name}", what=f"Fallback {place}", why=why)


def _named(desk: Desk, fact: EndpointFact, *, name: str, id: str, what: str, why: str) -> Row:
    """Another endpoint of the project."""
    other = desk.find(EndpointFact, name, project=fact.project)
    word = words.state(other) if other is not None else "Missing"
    tone = words.tone(word) if other is not None else "stuck"
    href = f"/in/{fact.project}/endpoints/{name}" if other is not None else ""
    since = other.since if other is not None else None
    state = Cell(word, "state", tone=tone)
    return Row(
        id, (Cell(name, "name", note=what, href=href), state, Cell(why, low=True), Cell("", "since", since=since))
    )


def _scaling(fact: EndpointFact) -> Iterator[Row]:
    scaling = fact.scaling
    if scaling is None:
        return
    there = fact.ready_replicas
    tone = "ok" if there == scaling.wanted else "waiting"
    word = "Asleep" if not scaling.wanted and not there else f"{there} of {scaling.wanted}"
    what = Cell("Scale", "name", note=f"{scaling.low} to {scaling.high} replicas, by what is asked")
    since = Cell("", "since", since=scaling.since)
    yield Row("made-scale", (what, Cell(word, "state", tone=tone), Cell(scaling.why, low=True), since))


def _revisions(fact: EndpointFact) -> Iterator[Row]:
    newest = sorted(fact.revisions, key=lambda one: -one.number)[:REVISIONS_SHOWN]
    for one in newest:
        word, tone = _rollout(fact, one)
        what = Cell(f"Revision {one.number}", "name", note=one.name)
        since = Cell("", "since", since=one.since)
        yield Row(f"made-{one.name}", (what, Cell(word, "state", tone=tone), Cell(one.what, low=True), since))


def _rollout(fact: EndpointFact, one: Revision) -> tuple[str, str]:
    """(word, tone) of a revision: what is rolled out says how far it is."""
    if one.name != fact.revision:
        return "Before", "free"
    if fact.updated >= fact.wanted and fact.ready_replicas >= fact.wanted:
        return "Current", "ok"
    return f"Rolling out, {fact.updated} of {fact.wanted}", "waiting"
