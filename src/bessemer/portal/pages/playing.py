"""The playground: a conversation with any model of the scope, with all that a request can say, and the same as code."""

from __future__ import annotations

from dataclasses import dataclass

from bessemer.portal import code, words
from bessemer.portal.desk import Desk
from bessemer.portal.facts import EndpointFact
from bessemer.portal.live import Page
from bessemer.portal.pages.shell import EVERYTHING, Here, href, in_place, page, visible


@dataclass(frozen=True, slots=True)
class Choice:
    """A model that can be asked: the name that clients give, where its questions go, and what people read."""

    model: str
    action: str
    text: str
    chosen: bool = False


def choices(fact: EndpointFact, *, text: str = "") -> list[Choice]:
    """An endpoint, and each of its adapters as ENDPOINT:ADAPTER."""
    action = f"/in/{fact.project}/endpoints/{fact.name}/chat"
    shown = text or fact.name
    adapters = [Choice(f"{fact.name}:{adapter}", action, f"{shown}:{adapter}") for adapter in fact.adapters]
    return [Choice(fact.name, action, shown), *adapters]


def build(desk: Desk, scope: str, *, gate: code.Gate, chosen: str) -> Page:
    """``chosen`` is asked at first, where it is there. Raises NotFound once the project is gone."""
    facts: list[EndpointFact] = [fact for fact in visible(desk, EndpointFact, scope=scope) if desk.writes(fact.project)]
    embed = [(in_place(fact, scope), href(fact)) for fact in facts if fact.embeds]
    facts = [fact for fact in facts if not fact.embeds]
    facts = sorted(facts, key=lambda fact: not fact.ready)  # those that answer first
    project = "" if scope == EVERYTHING else scope
    found: list[Choice] = []
    for fact in facts:
        text = in_place(fact, scope)
        note = "" if fact.ready else f" ({words.state(fact).lower()})"
        found += [
            Choice(one.model, one.action, f"{one.text}{note}", one.model == chosen) for one in choices(fact, text=text)
        ]
    place = project or "TENANT--PROJECT"
    here = Here(
        section="playground",
        title="Playground",
        scope=scope,
        crumbs=((words.place(project) if project else "Everything", ""), ("Playground", "")),
        code=(("CLI", f'bessemer chat {found[0].model if found else "NAME"} "What is a furnace?" -n {place}'),),
        request="POST /v1/chat/completions",
    )
    return page(
        desk,
        here,
        template="playground.html",
        lists={},
        choices=found,
        embed=embed,
        gateway=gate.url,
        trust=bool(gate.ca),
        first=found[0].model if found else "",
    )
