"""A tenant's view: what its people run, what waits and why, what it costs by the hour."""

from __future__ import annotations

from collections.abc import Sequence

from bessemer.core.resource import tenant_of
from bessemer.portal import words
from bessemer.portal.code import list_code
from bessemer.portal.desk import Desk
from bessemer.portal.facts import EndpointFact, InstanceFact, ProjectFact
from bessemer.portal.live import Page, Part
from bessemer.portal.pages import price, waiting
from bessemer.portal.pages.shell import EVERYTHING, Here, colours, href, in_place, page, visible
from bessemer.portal.parts import Cell, Row, Stat, Text


def build(desk: Desk) -> Page:
    """All that the session sees, of all its projects."""
    instances: list[InstanceFact] = visible(desk, InstanceFact, scope=EVERYTHING)
    endpoints: list[EndpointFact] = visible(desk, EndpointFact, scope=EVERYTHING)
    held = waiting.held_up(desk, EVERYTHING)
    projects = desk.all(ProjectFact)
    running: list[InstanceFact | EndpointFact] = [
        *(i for i in instances if i.ready),
        *(e for e in endpoints if e.ready),
    ]
    lists: dict[str, Sequence[Part]] = {
        "sub": [Text("sub-text", f"{words.some(len(projects), 'project')} of yours")],
        "stats": [
            Stat(
                id="stat-running",
                label="Running",
                figure=str(len(running)),
                unit=f"of {len(instances) + len(endpoints)}",
                note=f"{words.some(len(instances), 'instance')}, {words.some(len(endpoints), 'endpoint')}",
            ),
            Stat(id="stat-hour", label="Costs now", figure=hourly(desk, running), unit="/ h", note="while they run"),
            *waiting.stats(held),
        ],
        "rows": rows(desk, [*instances, *endpoints]),
        "why-sum": [Text("why-sum-text", waiting.summary(held))],
        "why": waiting.cards(held),
        "feed": waiting.feed(desk, EVERYTHING),
    }
    here = Here(
        section="overview",
        title="Overview",
        crumbs=(("Everything", ""), ("Overview", "")),
        code=list_code("instances,endpoints", ""),
        request="GET /apis/bessemer.dev/v1alpha1/instances",
    )
    heads = (("Name", ""), ("State", ""), ("Kind", "lo"), ("Age", "num lo"), ("Per hour", "num"))
    return page(desk, here, template="overview.html", lists=lists, heads=heads)


def hourly(desk: Desk, running: Sequence[InstanceFact | EndpointFact]) -> str:
    """The sum of what runs; a dash where no price is known."""
    prices = [price.of_flavor(desk, f, replicas=f.wanted if isinstance(f, EndpointFact) else 1) for f in running]
    known = [p for p in prices if p is not None]
    if not known:
        return "–"
    return price.shown(price.Hourly(sum(p.micro for p in known), known[0].currency))


def rows(desk: Desk, found: Sequence[InstanceFact | EndpointFact]) -> list[Part]:
    """A row for each workload."""
    colour = colours(desk)
    if not found:
        text = (
            "Nothing runs yet. An instance is a virtual machine, an endpoint serves a model to OpenAI clients; "
            "“As code” above has a manifest of each to begin with."
        )
        return [Row("row-none", (Cell(text, "empty", note="kubectl apply -f vm.yaml"),))]
    return [_row(desk, fact, colour=colour.get(tenant_of(fact.project), 0)) for fact in found]


def _row(desk: Desk, fact: InstanceFact | EndpointFact, *, colour: int) -> Row:
    word = words.state(fact)
    hour = price.of_flavor(desk, fact, replicas=fact.wanted if isinstance(fact, EndpointFact) else 1)
    return Row(
        f"row-{fact.uid}",
        (
            Cell(in_place(fact, EVERYTHING), "name", note=fact.flavor, href=href(fact), colour=colour, fake=fact.fake),
            Cell(word, "state", tone=words.tone(word), since=None if fact.ready else fact.since),
            Cell(fact.KIND, low=True),
            Cell("", "since", since=fact.created, low=True),
            Cell(price.shown(hour), "num"),
        ),
    )
