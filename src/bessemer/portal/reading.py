"""From an object's JSON to its `facts`. A reader takes a body as the api serves it and forgives what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import orjson

from bessemer.core.clock import epoch
from bessemer.core.money import Prices, said_of
from bessemer.core.resource import Key
from bessemer.kinds.fields import at
from bessemer.kinds.fleet.host import FAKE_TAINT
from bessemer.kinds.inference.endpoint.prompts import logged_to
from bessemer.kinds.inference.endpoint.revisions import MODEL_OF, TEMPLATE
from bessemer.portal.facts import (
    ClaimFact,
    DeviceFact,
    EndpointFact,
    EventFact,
    Fact,
    FlavorFact,
    HostFact,
    InstanceFact,
    KeyFact,
    Mark,
    NumaFact,
    PlanFact,
    ProjectFact,
    Replica,
    Revision,
    Scaling,
    TenantFact,
)

Body = Mapping[str, Any]


def seconds(text: str | None) -> float | None:
    """A time of the API as seconds since the epoch; None for none, or for one that nobody can read."""
    try:
        return epoch(text) if text else None
    except ValueError:
        return None


def _fact(body: Body) -> dict[str, Any]:
    meta, status = body.get("metadata") or {}, body.get("status") or {}
    conditions = {c.get("type"): c for c in status.get("conditions") or ()}
    ready, stuck = conditions.get("Ready", {}), conditions.get("Stuck", {})
    is_stuck = stuck.get("status") == "True"
    return {
        "key": Key(str(body.get("kind", "")), meta.get("namespace") or "", meta.get("name", "")),
        "uid": meta.get("uid", ""),
        "created": seconds(meta.get("creationTimestamp")) or 0.0,
        "deleting": bool(meta.get("deletionTimestamp")),
        "phase": status.get("phase", ""),
        "since": seconds(status.get("phaseSince")),
        "ready": ready.get("status") == "True",
        "reason": ready.get("reason", ""),
        "message": ready.get("message") or status.get("message", ""),
        "stuck": stuck.get("message") or stuck.get("reason", "Stuck") if is_stuck else "",
        "stuck_since": seconds(stuck.get("lastTransitionTime")) if is_stuck else None,
        "changed": seconds(ready.get("lastTransitionTime")),
    }


def _workload(body: Body) -> dict[str, Any]:
    spec, status = body.get("spec") or {}, body.get("status") or {}
    return {
        **_fact(body),
        "flavor": spec.get("flavor", ""),
        "fake": bool(status.get("fake")),
        "reasons": _reasons(status),
        "remedy": status.get("remedy", ""),
    }


def _reasons(body: Body) -> tuple[tuple[int, str], ...]:
    return tuple((int(r.get("hosts", 0)), str(r.get("text", ""))) for r in body.get("reasons") or ())


def _history(status: Body) -> tuple[Mark, ...]:
    marks = ((str(m.get("phase", "")), seconds(m.get("at"))) for m in status.get("history") or ())
    return tuple(Mark(phase, when) for phase, when in marks if when is not None)


def instance(body: Body) -> InstanceFact:
    spec, status = body.get("spec") or {}, body.get("status") or {}
    guest = status.get("guest") or {}
    return InstanceFact(
        **_workload(body),
        image=spec.get("image", ""),
        running=spec.get("running", True),
        host=status.get("host", ""),
        claim=status.get("claim", ""),
        restarts=status.get("restarts", 0),
        kernel=guest.get("kernel", ""),
        cpus=guest.get("cpus", 0),
        memory_bytes=guest.get("memoryBytes", 0),
        addresses=tuple(guest.get("addresses") or ()),
        history=_history(status),
    )


def endpoint(body: Body) -> EndpointFact:
    spec, status = body.get("spec") or {}, body.get("status") or {}
    external = spec.get("external") or {}
    own = not (external or spec.get("backends"))
    wanted = status.get("wantedReplicas", 1) if spec.get("scale") else spec.get("replicas", 1) if own else 0
    return EndpointFact(
        **_workload(body),
        model=spec.get("model", ""),
        embeds=spec.get("task") == "embed",
        slots=spec.get("slots", 4),
        context_tokens=spec.get("contextTokens", 2048),
        wanted=wanted,
        ready_replicas=status.get("readyReplicas", 0),
        replicas=tuple(
            Replica(
                r.get("replica", 0),
                r.get("claim", ""),
                r.get("host", ""),
                r.get("phase", ""),
                bool(r.get("ready")),
                r.get("message", ""),
            )
            for r in status.get("replicas") or ()
        ),
        adapters=tuple(spec.get("adapters") or ()),
        backends=tuple((one.get("endpoint", ""), one.get("weight", 1)) for one in spec.get("backends") or ()),
        external=(external.get("url", ""), external.get("model", "")),
        fallbacks=tuple(spec.get("fallbacks") or ()),
        revision=status.get("revision", ""),
        updated=status.get("updatedReplicas", 0),
        revisions=tuple(_revision(one) for one in status.get("revisions") or ()),
        scaling=_scaling(spec, status),
        logged=logged_to(spec["logging"], status) if spec.get("logging") else "",
    )


def _revision(body: Body) -> Revision:
    template = body.get("template") or {}
    what = [template.get("model", ""), template.get("flavor", "")]
    what += [f"{template['slots']} slots"] if template.get("slots") else []
    what += [f"adapters {', '.join(template['adapters'])}"] if template.get("adapters") else []
    number = body.get("number", 0)
    return Revision(body.get("revision", ""), number, seconds(body.get("since")), ", ".join(filter(None, what)))


def _scaling(spec: Body, status: Body) -> Scaling | None:
    scale, said = spec.get("scale"), status.get("scaling")
    if not scale:
        return None
    said = said or {}
    wanted = said.get("wanted", max(1, scale.get("min", 1)))
    why = " ".join(filter(None, (said.get("why", "nothing was decided yet"), said.get("reported", ""))))
    return Scaling(wanted, seconds(said.get("since")), why, scale.get("min", 1), scale.get("max", 1))


def host(body: Body) -> HostFact:
    spec, status = body.get("spec") or {}, body.get("status") or {}
    report = status.get("report") or {}
    heard: Body = next((c for c in status.get("conditions") or () if c.get("type") == "Reachable"), {})
    return HostFact(
        **_fact(body),
        site=report.get("site") or spec.get("site", "local"),
        leaf=report.get("leaf", ""),
        rack=report.get("rack", ""),
        spine=report.get("spine", ""),
        fake=bool(report.get("fake")) or any(t.get("key") == FAKE_TAINT for t in spec.get("taints") or ()),
        cordoned=bool(spec.get("unschedulable")),
        fenced=bool(spec.get("fenced")),
        reachable=heard["status"] == "True" if "status" in heard else None,
        silence=heard.get("message") or heard.get("reason", ""),
        overcommit_milli=spec.get("overcommitMilli", 1000),
        cpu_model=report.get("cpuModel", ""),
        kernel=report.get("kernel", ""),
        virtualization=report.get("virtualization", ""),
        virtualization_note=report.get("virtualizationNote", ""),
        isolation=report.get("isolation", ""),
        isolation_note=report.get("isolationNote", ""),
        agent_version=report.get("agentVersion", ""),
        joined=seconds(status.get("joinedAt")),
        numa=tuple(
            NumaFact(n.get("id", 0), n.get("cores", 0), n.get("threads", 0), n.get("memoryBytes", 0))
            for n in report.get("numa") or ()
        ),
        devices=tuple(_device(d) for d in report.get("devices") or ()),
    )


def _device(body: Body) -> DeviceFact:
    return DeviceFact(
        id=body.get("id", ""),
        kind=body.get("kind", ""),
        model=body.get("model", ""),
        memory_bytes=body.get("memoryBytes", 0),
        numa=body.get("numaNode", 0),
        switch=body.get("pcieSwitch", ""),
        nvlink=body.get("nvlinkDomain", ""),
        rail=body.get("rail"),
        speed_mbps=body.get("speedMbps", 0),
        healthy=body.get("healthy", True),
    )


def claim(body: Body) -> ClaimFact:
    spec, status = body.get("spec") or {}, body.get("status") or {}
    workload, placement = spec.get("workload") or {}, spec.get("placement") or {}
    return ClaimFact(
        **{**_fact(body), "reason": status.get("reason", ""), "message": status.get("message", "")},
        host=spec.get("host", ""),
        tenant=spec.get("tenant", ""),
        workload_kind=workload.get("kind", ""),
        workload=workload.get("name", ""),
        replica=workload.get("replica", 0),
        devices=tuple(spec.get("devices") or ()),
        device_model=spec.get("deviceModel", ""),
        device_milli=spec.get("deviceMilli", 1000),
        device_profile=spec.get("deviceProfile", ""),
        allocations=tuple(
            (a.get("numaNode", 0), a.get("milliCores", 0), a.get("memoryBytes", 0))
            for a in spec.get("allocations") or ()
        ),
        fake=bool(spec.get("fake")),
        pid=status.get("pid"),
        address=status.get("address", ""),
        restarts=status.get("restarts", 0),
        fitting=placement.get("fitting", 0),
        score=tuple((placement.get("score") or {}).items()),
        refused=_reasons(placement),
        answers=_answers(body.get("metadata") or {}),
    )


def _answers(metadata: Body) -> str:
    """Of the marks that a replica was placed with; one of an older release has none."""
    said = (metadata.get("annotations") or {}).get(TEMPLATE)
    model = orjson.loads(said).get("model", "") if said else ""
    return said_of(model, project=(metadata.get("labels") or {}).get(MODEL_OF, "")) if model else ""


def tenant(body: Body) -> TenantFact:
    spec = body.get("spec") or {}
    return TenantFact(
        **_fact(body),
        colour=at("status", "colour", default=0)(body),
        display=spec.get("displayName", ""),
        plan=spec.get("pricePlan", "standard"),
        members=tuple((m.get("user", ""), m.get("role", "member")) for m in spec.get("members") or ()),
    )


def project(body: Body) -> ProjectFact:
    return ProjectFact(**_fact(body), display=at("spec", "displayName", default="")(body))


def event(body: Body) -> EventFact:
    about = body.get("involvedObject") or {}
    fact = _fact(body)
    last = seconds(body.get("lastTimestamp") or body.get("eventTime")) or fact["created"]
    return EventFact(
        **{**fact, "reason": body.get("reason", ""), "message": body.get("message", "")},
        about_kind=about.get("kind", ""),
        about=about.get("name", ""),
        warning=body.get("type") == "Warning",
        last=last,
        count=body.get("count", 1),
    )


def flavor(body: Body) -> FlavorFact:
    spec = body.get("spec") or {}
    devices = spec.get("devices") or {}
    return FlavorFact(
        **_fact(body),
        cpus=spec.get("cores", 0),
        memory=spec.get("memory", "0"),
        disk=spec.get("disk", "0"),
        gpus=devices.get("count", 0),
        gpu_milli=int(float(devices.get("share") or 1) * 1000 + 0.5),
        gpu_profile=devices.get("profile", ""),
        gpu_model=devices.get("model", ""),
    )


def plan(body: Body) -> PlanFact:
    rates = at("spec", "rates", default={})(body)
    return PlanFact(
        **_fact(body),
        currency=at("spec", "currency", default="EUR")(body),
        core_hour=rates.get("coreHour", 0),
        memory_gib_hour=rates.get("memoryGibHour", 0),
        tokens=Prices.read(body.get("spec") or {}),
        devices=MappingProxyType(dict(rates.get("deviceHour") or {})),
    )


def key(body: Body) -> KeyFact:
    spec = body.get("spec") or {}
    return KeyFact(
        **_fact(body),
        hint=at("status", "hint", default="")(body),
        endpoints=tuple(spec.get("endpoints") or ()),
        expires=seconds(spec.get("expiresAt")),
        description=spec.get("description", ""),
        owner=spec.get("owner") or "",
        networks=tuple(spec.get("networks") or ()),
        priority=spec.get("priority") or "default",
        disabled=bool(spec.get("disabled")),
        bounds=tuple(_bounds(spec)),
    )


LIMITS: Mapping[str, str] = MappingProxyType(
    {
        "requestsPerMinute": "requests/minute",
        "requestsPerDay": "requests/day",
        "tokensPerMinute": "tokens/minute",
        "tokensPerDay": "tokens/day",
        "concurrent": "concurrent",
    }
)
"""Field of a key's limits → its meter (`core.bounds`)."""


def _bounds(spec: Body) -> Iterator[tuple[str, int]]:
    """(meter, bound) of limits and budget."""
    limits, budget = spec.get("limits") or {}, spec.get("budget") or {}
    for name, meter in LIMITS.items():
        if limits.get(name) is not None:
            yield meter, limits[name]
    for unit in ("micro", "tokens"):
        if budget.get(unit) is not None:
            yield f"{unit}/{budget.get('period', 'Month').lower()}", budget[unit]


READERS: Mapping[str, Callable[[Body], Fact]] = MappingProxyType(
    {
        ClaimFact.KIND: claim,
        EndpointFact.KIND: endpoint,
        EventFact.KIND: event,
        FlavorFact.KIND: flavor,
        HostFact.KIND: host,
        InstanceFact.KIND: instance,
        KeyFact.KIND: key,
        PlanFact.KIND: plan,
        ProjectFact.KIND: project,
        TenantFact.KIND: tenant,
    }
)
"""Kind → its reader: the kinds that a session may mirror."""
