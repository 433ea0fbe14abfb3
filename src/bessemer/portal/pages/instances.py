"""Instances: the list, and one of them: where it is in its boot, what it costs, what it says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from bessemer.core.resource import Key, tenant_of
from bessemer.core.units import parse_bytes
from bessemer.portal import code, words
from bessemer.portal.desk import Desk
from bessemer.portal.facts import ClaimFact, FlavorFact, InstanceFact, Mark
from bessemer.portal.live import Page, Part
from bessemer.portal.pages import placed, price, waiting
from bessemer.portal.pages.shell import EVERYTHING, Here, colours, href, in_place, page, visible
from bessemer.portal.parts import Acts, Cell, Fact, Head, Phase, Row, Text

STEPS = ("Pending", "Preparing", "Booting", "Running")
"""The phases of a boot, in order."""

_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "Pending": "Placement",
        "Preparing": "Preparation",
        "Booting": "Boot",
        "Running": "Ready",
        "Stopping": "Stopping",
        "Stopped": "Stopped",
        "Failed": "Failed",
        "Unknown": "Out of sight",
        "Terminating": "Deleting",
    }
)


def build_list(desk: Desk, scope: str) -> Page:
    """Every instance of the scope."""
    found: list[InstanceFact] = visible(desk, InstanceFact, scope=scope)
    colour = colours(desk)
    rows: list[Part] = [_row(desk, fact, scope=scope, colour=colour.get(tenant_of(fact.project), 0)) for fact in found]
    if not rows:
        rows.append(
            Row(
                "row-none",
                (
                    Cell(
                        "No instance yet. An instance is a virtual machine with cores, memory and devices of its own; "
                        "with the flavor micro it costs some cents an hour and is up in seconds.",
                        "empty",
                        note="kubectl apply -f vm.yaml",
                    ),
                ),
            )
        )
    project = "" if scope == EVERYTHING else scope
    here = Here(
        section="instances",
        title="Instances",
        scope=scope,
        crumbs=((words.place(project) if project else "Everything", ""), ("Instances", "")),
        code=(*code.list_code("instances", project), ("YAML", code.new_instance(project))),
        request=code.path("instances", project=project),
    )
    heads = (("Name", ""), ("State", ""), ("Flavor", "lo"), ("Host", "lo"), ("Age", "num lo"), ("Per hour", "num"))
    return page(desk, here, template="list.html", lists={"rows": rows}, heads=heads, lead=_lead(found))


def _lead(found: Sequence[InstanceFact]) -> str:
    return f"{words.some(len(found), 'instance')}" if found else "Virtual machines"


def _row(desk: Desk, fact: InstanceFact, *, scope: str, colour: int) -> Row:
    word = words.state(fact)
    return Row(
        f"row-{fact.uid}",
        (
            Cell(in_place(fact, scope), "name", note=fact.image, href=href(fact), colour=colour, fake=fact.fake),
            Cell(word, "state", tone=words.tone(word), since=None if fact.ready else fact.since),
            Cell(fact.flavor, low=True),
            Cell(fact.host or "–", href=f"/hosts/{fact.host}" if desk.me.admin and fact.host else "", low=True),
            Cell("", "since", since=fact.created, low=True),
            Cell(price.shown(price.of_instance(desk, fact)), "num"),
        ),
    )


# --- one --------------------------------------------------------------------------------------------------------


def build(desk: Desk, which: Key, *, body: str, deadlines: Mapping[str, float]) -> Page:
    """One instance. Raises NotFound once it is gone."""
    project, name = which.namespace, which.name
    fact = desk.one(InstanceFact, name, project=project)
    phases = boot(fact, deadlines=deadlines)
    claim = desk.find(ClaimFact, fact.claim, project=project) if fact.claim else None
    lists: dict[str, Sequence[Part]] = {
        "head": [head(fact)],
        "acts": [acts(fact)] if desk.writes(project) else [],
        "phase-sum": [Text("phase-sum-text", progress(phases))],
        "phases": phases,
        "phase-foot": [Text("phase-foot-text", footnote(fact, phases))],
        "price": prices(desk, fact),
        "why": waiting.of(desk, fact),
        "placed": placed.of(claim, admin=desk.me.admin),
        "facts": facts(desk, fact, claim=claim),
        "feed": waiting.feed(desk, project, about=fact),
    }
    here = Here(
        section="instances",
        title=name,
        scope=project,
        crumbs=((words.place(project), ""), ("Instances", f"/in/{project}/instances"), (name, "")),
        code=code.instance_code(project, name, body=body),
        request=code.path("instances", name, project=project),
    )
    sub = f"Instance in {words.place(project)}, flavor {fact.flavor}, image {fact.image}"
    plan = price.plan_for(desk, project)
    return page(
        desk,
        here,
        template="instance.html",
        lists=lists,
        sub=sub,
        fact=fact,
        plan=plan.name if plan else "",
        log=f"/in/{project}/instances/{name}/log",
    )


def head(fact: InstanceFact) -> Head:
    """``Booting, 14 s``; stuck and fake beside it."""
    word = words.state(fact)
    since = None if fact.ready or word == "Stopped" else (fact.stuck_since if fact.stuck else fact.since)
    return Head("head-state", ((word, words.tone(word), since),), fake=fact.fake)


def acts(fact: InstanceFact) -> Acts:
    """What one can do with it now."""
    if fact.deleting:
        return Acts("acts-all", "", ())
    run = (
        ("stop", "Stop", False, f"Stop {fact.name}? Its disk and its place stay, and are billed.")
        if fact.running
        else ("start", "Start", False, "")
    )
    delete = ("delete", "Delete", True, f"Delete {fact.name} and its disk? This cannot be undone.")
    return Acts("acts-all", f"/in/{fact.project}/instances/{fact.name}", (run, delete))


def boot(fact: InstanceFact, *, deadlines: Mapping[str, float]) -> list[Phase]:
    """The phases of the last boot: what is done with its times, what runs now, what is to come."""
    marks = last_run(fact)
    zero = marks[0].at
    found: list[Phase] = []
    for mark, after in zip(marks, [*marks[1:], None], strict=True):
        settled = after is None and (fact.ready or mark.phase == "Stopped")
        state = "done" if after is not None or settled else _running_state(fact, mark.phase)
        end = after.at if after is not None else mark.at if settled else None
        found.append(
            Phase(
                id=f"phase-{len(found)}",
                name=_NAMES.get(mark.phase, mark.phase),
                note=_note(fact, mark.phase, state=state),
                state=state,
                start=mark.at,
                end=end,
                deadline=deadlines.get(mark.phase),
                zero=zero,
            )
        )
    if fact.running and not fact.deleting and not fact.ready and found[-1].state != "failed":
        found += _later(fact, marks, deadlines=deadlines, zero=zero)
    return found


def _later(
    fact: InstanceFact, marks: Sequence[Mark], *, deadlines: Mapping[str, float], zero: float
) -> Iterator[Phase]:
    """The phases of a boot that have not begun."""
    last = max((STEPS.index(mark.phase) for mark in marks if mark.phase in STEPS), default=-1)
    for number, phase in enumerate(STEPS[last + 1 :], len(marks)):
        note = _note(fact, phase, state="later")
        name, limit = _NAMES[phase], deadlines.get(phase)
        yield Phase(id=f"phase-{number}", name=name, note=note, state="later", deadline=limit, zero=zero)


def _running_state(fact: InstanceFact, phase: str) -> str:
    if phase == "Failed":
        return "failed"
    return "stuck" if fact.stuck else "now"


def last_run(fact: InstanceFact) -> list[Mark]:
    """The marks since it was last made to run; without a history, what creation and phase say."""
    marks = list(fact.history)
    if not marks:
        marks = [Mark("Pending", fact.created)]
        if fact.phase and fact.phase != "Pending":
            marks.append(Mark(fact.phase, fact.since or fact.created))
    starts = [i for i in range(1, len(marks)) if marks[i].phase in STEPS[:3] and marks[i - 1].phase not in STEPS[:3]]
    if starts:
        return marks[starts[-1] :]
    if marks[0].phase == STEPS[1]:
        # A place that is found at once leaves no mark of its own.
        marks.insert(0, Mark(STEPS[0], marks[0].at))
    return marks[-8:]


def _note(fact: InstanceFact, phase: str, *, state: str) -> str:
    """What a phase did, or waits for."""
    if state in {"now", "stuck", "failed"} and fact.message:
        return fact.message
    if phase == "Running" and fact.cpus:
        return f"the guest reported {words.some(fact.cpus, 'core')}, {words.gib(fact.memory_bytes)}"
    return {
        "Pending": f"on {fact.host}" if fact.host and state == "done" else "quota, a host, a claim",
        "Preparing": f"image {fact.image}, disk and seed",
        "Booting": "kernel up, the guest reports",
        "Running": "the guest reports what was asked for",
        "Stopped": "its disk and its place stay",
    }.get(phase, "")


def progress(phases: Sequence[Phase]) -> str:
    """``2 of 4 done``; once all are, how long the boot took."""
    done = sum(p.state == "done" for p in phases)
    if phases and done == len(phases) and phases[-1].start is not None:
        return f"{phases[-1].name.lower()} {words.duration(phases[-1].start - phases[0].zero)} after it was asked for"
    return f"{done} of {len(phases)} done"


def footnote(fact: InstanceFact, phases: Sequence[Phase]) -> str:
    """What happens when the running phase takes too long."""
    running = next((p for p in phases if p.state == "now"), None)
    if fact.stuck:
        return "It passed its deadline. Stop and Delete work at any time."
    if running is None or running.deadline is None:
        return "Every phase has a deadline; past it the instance says Stuck, why, and what would unblock it."
    limit = words.bound(running.deadline)
    return f"If {running.name} passes {limit}, the instance says Stuck, why, and what would unblock it."


def prices(desk: Desk, fact: InstanceFact) -> list[Part]:
    """The hour's price, line by line, and the month's."""
    plan, flavor = price.plan_for(desk, fact.project), desk.find(FlavorFact, fact.flavor)
    if plan is None or flavor is None:
        return [Fact("price-none", "The flavor or the price plan is gone", "not known", num=True)]
    if flavor.gpu_profile:
        return [Fact("price-none", f"{flavor.gpu_profile}: known once it has a host", "not known", num=True)]
    memory = parse_bytes(flavor.memory)
    held = price.Held(flavor.cpus * 1000, memory, flavor.gpus * flavor.gpu_milli, flavor.gpu_model)
    hour = price.hourly(plan, held)
    digits = price.digits_for(hour)

    def line(name: str, label: str, *, micro: int) -> Fact:
        shown = words.money(micro, plan.currency, digits=digits)
        return Fact(f"price-{name}", label, f"{shown} / h", num=True, strong=name == "hour")

    found: list[Part] = []
    if flavor.gpus:
        text = f"{flavor.gpus * flavor.gpu_milli / 1000:g} × {words.device(flavor.gpu_model) or 'GPU'}"
        found.append(line("gpus", text, micro=price.devices(plan, held)))
    found += [
        line("cores", words.some(flavor.cpus, "core"), micro=price.cores(plan, held)),
        line("memory", f"{words.gib(memory)} memory", micro=price.memory(plan, held)),
        line("hour", "From Ready on", micro=hour),
        Fact("price-month", "A month of 730 h", words.money(hour * 730, plan.currency), num=True),
    ]
    return found


def facts(desk: Desk, fact: InstanceFact, *, claim: ClaimFact | None) -> list[Part]:
    """What is known of it."""
    found = [
        ("Host", fact.host, False, f"/hosts/{fact.host}" if desk.me.admin and fact.host else ""),
        ("Address", ", ".join(fact.addresses), True, ""),
        ("Kernel", fact.kernel, True, ""),
        ("Cores", cores_of(fact, claim), False, ""),
        ("Memory", words.gib(fact.memory_bytes) + " as the guest sees it" if fact.memory_bytes else "", False, ""),
        ("Devices", ", ".join(claim.devices) if claim else "", False, ""),
        ("Restarts", str(fact.restarts) if fact.restarts else "", False, ""),
        ("Claim", fact.claim, True, ""),
        ("Process", str(claim.pid) if claim and claim.pid else "", True, ""),
        ("UID", fact.uid, True, ""),
    ]
    return [
        Fact(f"fact-{label.lower()}", label, value, mono=mono, href=to) for label, value, mono, to in found if value
    ]


def cores_of(fact: InstanceFact, claim: ClaimFact | None) -> str:
    if claim and claim.allocations:
        nodes = ", ".join(f"node {node}" for node, _, _ in claim.allocations)
        return f"{words.cores(claim.milli_cores)} on NUMA {nodes}"
    return str(fact.cpus) if fact.cpus else ""
