"""What needs a person, what waits and why, and what happened: the side of the fleet page and of a tenant's overview."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bessemer.core.resource import tenant_of
from bessemer.portal import words
from bessemer.portal.desk import Desk
from bessemer.portal.facts import EndpointFact, EventFact, Fact, FlavorFact, HostFact, InstanceFact, Workload
from bessemer.portal.live import Part
from bessemer.portal.pages.shell import EVERYTHING, colours, href, in_place, visible
from bessemer.portal.parts import Empty, Happened, Stat, Why
from bessemer.portal.playground import PLAYGROUND

_ORDER = {"stuck": 0, "failed": 1, "waiting": 2}
EVENTS_SHOWN = 24
_CALM = ("", "Running", "Ready", "Stopped", "Active")


def held_up(desk: Desk, scope: str) -> list[Why]:
    """Everything that is not where it should be: stuck, then failed, then waiting; of each, workloads before hosts."""
    workloads: Iterable[Workload] = [
        *visible(desk, InstanceFact, scope=scope),
        *visible(desk, EndpointFact, scope=scope),
    ]
    found = _longest_first(_workload(desk, fact, scope=scope) for fact in workloads)
    if desk.me.admin and scope == EVERYTHING:
        found += _longest_first(_host(host) for host in desk.all(HostFact))
    return sorted(found, key=lambda why: _ORDER[why.tone])


def _longest_first(found: Iterable[Why | None]) -> list[Why]:
    return sorted((why for why in found if why is not None), key=lambda why: (why.since or 0.0, why.id))


def cards(held: Sequence[Why]) -> Sequence[Part]:
    """The cards of the list, or what it says when nothing waits."""
    return held or [
        Empty("why-none", "Nothing waits. What is asked for and cannot run yet stands here, with the reason.")
    ]


def of(desk: Desk, fact: Workload) -> Sequence[Part]:
    """The one card of a workload, or that it waits for nothing."""
    why = _workload(desk, fact, scope=fact.project)
    return [why] if why else [Empty("why-none", "It waits for nothing.")]


def of_host(host: HostFact) -> Sequence[Part]:
    """The one card of a host, or that it needs nobody."""
    why = _host(host)
    return [why] if why else [Empty("why-none", "Nothing here needs a person.")]


def stats(held: Sequence[Why]) -> list[Part]:
    """How many wait and how many are stuck, for the row of figures."""
    waits = [why for why in held if why.tone == "waiting"]
    stuck = [why for why in held if why.tone != "waiting"]
    return [
        Stat(
            id="stat-waiting",
            label="Waiting",
            figure=str(len(waits)),
            note="longest" if waits else "nothing waits",
            since=min((why.since for why in waits if why.since), default=None),
        ),
        Stat(
            id="stat-stuck",
            label="Stuck or failed",
            figure=str(len(stuck)),
            note=stuck[0].name if stuck else "nothing needs a person",
            href="#why-h" if stuck else "",
            tone="stuck" if stuck else "",
            first=bool(stuck),
        ),
    ]


def summary(held: Sequence[Why]) -> str:
    """``1 stuck, 3 waiting``."""
    tones = [why.tone for why in held]
    parts = [f"{tones.count(tone)} {tone}" for tone in _ORDER if tone in tones]
    return ", ".join(parts)


def _workload(desk: Desk, fact: Workload, *, scope: str) -> Why | None:
    word = words.state(fact)
    if not fact.stuck and (word in _CALM or (fact.ready and not fact.deleting)):
        return None
    tone = "stuck" if fact.stuck else "failed" if word == "Failed" else "waiting"
    reasons = "; ".join(f"{words.some(hosts, 'host')}: {text}" for hosts, text in fact.reasons)
    text = fact.stuck or reasons or fact.message or f"{word}."
    label = {"stuck": "To unblock", "failed": "Remedy"}.get(tone, "Cheapest change")
    return Why(
        id=f"why-{fact.uid}",
        colour=colours(desk).get(tenant_of(fact.project), 0),
        name=in_place(fact, scope),
        href=href(fact),
        tone=tone,
        word=word if tone != "waiting" or word != "Pending" else "",
        since=(fact.stuck_since if fact.stuck else fact.since) or fact.created,
        what=what(desk, fact),
        text=_sentence(text),
        fix_label=label if fact.remedy else "",
        fix=_sentence(fact.remedy) if fact.remedy else "",
    )


def _host(host: HostFact) -> Why | None:
    word = words.host_state(host)
    if word not in {"Silent", "Failed", "Fenced"} and not host.stuck and not host.broken:
        return None
    health = f"{', '.join(host.broken)} not healthy" if host.broken else ""
    text = host.stuck or (host.silence if word == "Silent" else "") or health or host.message or word
    fix = "Bring its agent back, or fence it, so that what ran there is placed anew." if word == "Silent" else ""
    return Why(
        id=f"why-{host.uid}",
        colour=0,
        name=host.name,
        href=href(host),
        tone="failed" if word == "Failed" else "stuck",
        word=word if not host.broken else "Degraded",
        since=host.stuck_since or host.since or host.created,
        what="Host" + (", fake" if host.fake else ""),
        text=_sentence(text),
        fix_label="To unblock" if fix else "",
        fix=fix,
    )


def what(desk: Desk, fact: Workload) -> str:
    """``Instance, micro: 2 cores, 256 MiB``: what it is and what it asks for."""
    kind = "Instance" if isinstance(fact, InstanceFact) else "Endpoint"
    flavor = desk.find(FlavorFact, fact.flavor)
    count = f"{fact.wanted} × " if isinstance(fact, EndpointFact) and fact.wanted != 1 else ""
    host = f", {fact.host}" if isinstance(fact, InstanceFact) and fact.host else ""
    return f"{kind}, {count}{sized(flavor) if flavor else fact.flavor}{host}"


def sized(flavor: FlavorFact) -> str:
    """``micro: 2 cores, 256 MiB`` with its GPUs."""
    memory = flavor.memory.replace("Gi", " GiB").replace("Mi", " MiB")
    gpus = f"{flavor.gpus} × {words.device(flavor.gpu_model) or 'GPU'}, " if flavor.gpus else ""
    return f"{flavor.name}: {gpus}{words.some(flavor.cpus, 'core')}, {memory}"


def feed(desk: Desk, scope: str, *, about: Fact | None = None) -> Sequence[Part]:
    """The newest events, newest first; of one object where ``about`` is given."""
    events: list[EventFact] = [e for e in visible(desk, EventFact, scope=scope) if worth_telling(e)]
    if about is not None:
        events = [e for e in events if (e.about_kind, e.about) == (about.KIND, about.name)]
    newest = sorted(events, key=lambda e: (e.last, e.uid), reverse=True)[:EVENTS_SHOWN]
    if not newest:
        return [Empty("feed-none", "No event yet. What happens to an object is told here as it happens.")]
    return [_happened(event) for event in newest]


def worth_telling(event: EventFact) -> bool:
    """Who signs in, and the keys that the playground makes, are nobody's news."""
    return event.about_kind != "Session" and not event.about.startswith(PLAYGROUND)


def _happened(event: EventFact) -> Happened:
    plural = {"Instance": "instances", "Endpoint": "endpoints"}.get(event.about_kind)
    to = f"/in/{event.project}/{plural}/{event.about}" if plural else ""
    if event.about_kind == "Host":
        to = f"/hosts/{event.about}"
    return Happened(
        id=f"ev-{event.uid or event.name}",
        at=event.last,
        name=event.about,
        href=to,
        text=event.message or event.reason,
        warning=event.warning,
        count=event.count,
    )


def _sentence(text: str) -> str:
    text = text.strip()
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "”", "!", "?")) else f"{text}."
