"""Endpoints: the list, and one of them: its replicas, what went through it, a place to talk to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bessemer.core.money import OUTSIDE
from bessemer.core.resource import Key, tenant_of
from bessemer.portal import code, words
from bessemer.portal.desk import Desk
from bessemer.portal.facts import ClaimFact, EndpointFact, KeyFact, Replica
from bessemer.portal.live import Page, Part
from bessemer.portal.pages import made, placed, playing, price, waiting
from bessemer.portal.pages.shell import EVERYTHING, Here, colours, href, in_place, page, visible
from bessemer.portal.parts import Acts, Cell, Fact, Head, Row, Stat, Text
from bessemer.portal.playground import PLAYGROUND


def build_list(desk: Desk, scope: str) -> Page:
    """Every endpoint of the scope."""
    found: list[EndpointFact] = visible(desk, EndpointFact, scope=scope)
    colour = colours(desk)
    rows: list[Part] = [_row(desk, fact, scope=scope, colour=colour.get(tenant_of(fact.project), 0)) for fact in found]
    if not rows:
        text = (
            "No endpoint yet. An endpoint serves a model to OpenAI clients under a name; each replica costs what its "
            "flavor holds, and each million tokens what the price plan says."
        )
        rows.append(Row("row-none", (Cell(text, "empty", note="kubectl apply -f endpoint.yaml"),)))
    project = "" if scope == EVERYTHING else scope
    here = Here(
        section="endpoints",
        title="Endpoints",
        scope=scope,
        crumbs=((words.place(project) if project else "Everything", ""), ("Endpoints", "")),
        code=(*code.list_code("endpoints", project), ("YAML", code.new_endpoint(project))),
        request=code.path("endpoints", project=project),
    )
    heads = (("Name", ""), ("State", ""), ("Model", "lo"), ("Replicas", "num"), ("Age", "num lo"), ("Per hour", "num"))
    lead = words.some(len(found), "endpoint") if found else "Models served to OpenAI clients"
    return page(desk, here, template="list.html", lists={"rows": rows}, heads=heads, lead=lead)


def _row(desk: Desk, fact: EndpointFact, *, scope: str, colour: int) -> Row:
    word = words.state(fact)
    return Row(
        f"row-{fact.uid}",
        (
            Cell(in_place(fact, scope), "name", note=fact.flavor, href=href(fact), colour=colour, fake=fact.fake),
            Cell(word, "state", tone=words.tone(word), since=None if fact.ready else fact.since),
            Cell(answering(fact), low=True),
            Cell(f"{fact.ready_replicas} of {fact.wanted}" if fact.wanted or fact.ready_replicas else "–", "num"),
            Cell("", "since", since=fact.created, low=True),
            Cell(price.shown(price.of_endpoint(desk, fact)), "num"),
        ),
    )


def answering(fact: EndpointFact, *, long: bool = False) -> str:
    """What answers: a model of its own, other endpoints, or a service elsewhere."""
    if fact.backends:
        return f"answered by {', '.join(name for name, _ in fact.backends)}"
    if fact.external[0]:
        return f"{fact.external[1]}, elsewhere"
    return f"model {fact.model}" if long else fact.model


# --- one --------------------------------------------------------------------------------------------------------


def build(desk: Desk, which: Key, *, body: str, gate: code.Gate, settled: int = 0) -> Page:
    """One endpoint; ``settled`` is the newest ledger row of its project. Raises NotFound once it is gone."""
    project, name = which.namespace, which.name
    fact = desk.one(EndpointFact, name, project=project)
    last = placed.newest([desk.find(ClaimFact, replica.claim, project=project) for replica in fact.replicas])
    lists: dict[str, Sequence[Part]] = {
        "head": [head(fact)],
        "acts": [acts(fact)] if desk.writes(project) else [],
        "stats": figures(desk, fact),
        "settled": [Text("settled-row", str(settled))],
        "made": made.rows(desk, fact),
        "replicas": replicas(desk, fact),
        "why": waiting.of(desk, fact),
        "placed": placed.of(last, admin=desk.me.admin),
        "placed-sum": [Text("placed-sum-text", f"replica {last.replica}, placed last")] if last else [],
        "keys": keys(desk, fact),
        "facts": facts(fact),
        "feed": waiting.feed(desk, project, about=fact),
    }
    here = Here(
        section="endpoints",
        title=name,
        scope=project,
        crumbs=((words.place(project), ""), ("Endpoints", f"/in/{project}/endpoints"), (name, "")),
        code=code.endpoint_code(project, name, body=body, gate=gate, embeds=fact.embeds),
        request=code.path("endpoints", name, project=project),
    )
    fixed: dict[str, Any] = {
        "fact": fact,
        "sub": f"Endpoint in {words.place(project)}, {answering(fact, long=True)}.",
        "gateway": gate.url,
        "shell_text": code.shell(project, gate),
        "calls": code.calls(name, gate, embeds=fact.embeds),
        "choices": playing.choices(fact),
        "playground": f"/in/{project}/playground?model={name}",
        "may_chat": desk.writes(project),
        "base": f"/in/{project}/endpoints/{name}",
    }
    return page(desk, here, template="endpoint.html", lists=lists, **fixed)


def head(fact: EndpointFact) -> Head:
    """``Ready``; replicas that are missing stand beside it."""
    word = words.state(fact)
    badges: list[tuple[str, str, float | None]] = [(word, words.tone(word), None if fact.ready else fact.since)]
    if 0 < fact.ready_replicas < fact.wanted:
        badges.append((f"{fact.ready_replicas} of {fact.wanted} replicas", "waiting", None))
    return Head("head-state", tuple(badges), fake=fact.fake)


def acts(fact: EndpointFact) -> Acts:
    if fact.deleting:
        return Acts("acts-all", "", ())
    delete = ("delete", "Delete", True, f"Delete {fact.name}? Requests for it are refused from that moment.")
    return Acts("acts-all", f"/in/{fact.project}/endpoints/{fact.name}", (delete,))


def tokens_of(desk: Desk, fact: EndpointFact) -> str:
    """What a million tokens out cost of whoever answers, or in, of one that embeds; nothing where a plan has rates of
    models and it is not known yet who that is."""
    plan = price.plan_for(desk, fact.project)
    if plan is None:
        return ""
    claims = (desk.find(ClaimFact, replica.claim, project=fact.project) for replica in fact.replicas)
    who = {claim.answers for claim in claims if claim is not None and claim.answers}
    if fact.external[0]:
        who = {OUTSIDE + fact.external[1]}
    if plan.tokens.models and not who:
        return ""
    rates = [plan.tokens.of(model) for model in who] or [plan.tokens]
    due = {rate.input if fact.embeds else rate.output for rate in rates}
    most, way = "up to " if len(due) > 1 else "", "in" if fact.embeds else "out"
    return f"{most}{words.money(max(due), plan.currency)} per million tokens {way}"


def figures(desk: Desk, fact: EndpointFact) -> list[Part]:
    """What lives of the row of figures; what the ledger says is fetched beside it."""
    hour = price.of_endpoint(desk, fact)
    tokens = tokens_of(desk, fact)
    spoken: list[Part] = [
        Stat(id="stat-out", label="Tokens out", figure="–", note="in the last hour"),
        Stat(id="stat-first", label="First token", figure="–", note="ask to measure it"),
    ]
    return [
        Stat(
            id="stat-replicas",
            label="Replicas",
            figure=str(fact.ready_replicas),
            unit=f"of {fact.wanted}",
            note=f"{fact.slots} requests at a time each",
        ),
        Stat(id="stat-price", label="Price", figure=price.shown(hour), unit="/ h", note=tokens),
        # These are filled by usage.js and chat.js: from the ledger, and from what this browser measured.
        Stat(id="stat-requests", label="Requests", figure="–", note="in the last hour"),
        *(spoken if not fact.embeds else ()),
    ]


def replicas(desk: Desk, fact: EndpointFact) -> list[Part]:
    """A row for each replica."""
    if not fact.replicas:
        text = f"No replica has a place yet: {fact.message}" if fact.message else "No replica has a place yet."
        return [Row("replica-none", (Cell(text, "empty"),))]
    return [_replica(desk, fact, replica=replica) for replica in fact.replicas]


def _replica(desk: Desk, fact: EndpointFact, *, replica: Replica) -> Row:
    claim = desk.find(ClaimFact, replica.claim, project=fact.project)
    word = "Ready" if replica.ready else replica.phase or "Pending"
    devices = f"{len(claim.devices)} devices" if claim and claim.devices else ""
    cells = (
        Cell(f"{fact.name}-{replica.number}", "name", note=f"{replica.host} {devices}".strip(), fake=fact.fake),
        Cell(word, "state", tone="ok" if replica.ready else words.tone(word), note=replica.message),
        Cell(words.cores(claim.milli_cores) if claim else "–", "num", low=True),
        Cell(words.gib(claim.memory_bytes) if claim else "–", "num", low=True),
        Cell(str(claim.pid or "–") if claim else "–", "num", low=True),
        Cell("", "since", since=claim.created if claim else None),
    )
    return Row(f"replica-{replica.number}", cells)


def keys(desk: Desk, fact: EndpointFact) -> list[Part]:
    """The project's keys that open this endpoint."""
    found = [
        key
        for key in desk.all(KeyFact)
        if key.project == fact.project
        and (not key.endpoints or fact.name in {name.partition(":")[0] for name in key.endpoints})
    ]
    if not found:
        text = "No key yet. An application shows a key; it is shown once, when it is made, and stored as a hash."
        return [Row("key-none", (Cell(text, "empty", note=f"bessemer key create app -n {fact.project}"),))]
    return [_key(key) for key in sorted(found, key=lambda key: (key.name.startswith(PLAYGROUND), key.name))]


def _key(key: KeyFact) -> Row:
    word = key.phase or "Pending"
    return Row(
        f"key-{key.uid}",
        (
            Cell(
                key.name,
                "name",
                href=f"/in/{key.project}/keys/{key.name}",
                note=f"{key.hint}…" if key.hint else "no token yet",
            ),
            Cell(word, "state", tone=words.tone(word)),
            Cell(", ".join(key.endpoints) or "all endpoints", low=True),
            Cell("", "until", since=key.expires),
        ),
    )


def facts(fact: EndpointFact) -> list[Part]:
    """What is known of it."""
    found = [
        ("Model", answering(fact)),
        ("Flavor", fact.flavor or "none of its own"),
        ("Context", f"{fact.context_tokens:,} tokens a request"),
        ("Requests", f"{fact.slots} at a time on each replica"),
        ("Prompts", f"are logged to {fact.logged}" if fact.logged else "are not logged"),
        ("UID", fact.uid),
    ]
    of = {"Model": f"/in/{fact.project}/models/{fact.model}"} if fact.model else {}
    return [
        Fact(f"fact-{label.lower()}", label, value, mono=label == "UID", href=of.get(label, ""))
        for label, value in found
    ]
