"""Hosts: the list, and one of them drawn as it is wired: NUMA nodes, PCIe switches, devices, who holds what."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bessemer.portal import code, words
from bessemer.portal.desk import Desk
from bessemer.portal.facts import ClaimFact, DeviceFact, HostFact, NumaFact
from bessemer.portal.live import Page, Part
from bessemer.portal.pages import price, waiting
from bessemer.portal.pages.chart import BAD, FREE, natural
from bessemer.portal.pages.shell import Here, colours, page
from bessemer.portal.parts import Acts, Cell, Cores, Fact, Gpu, Head, Plugged, Row, Stat

CORES_DRAWN = 56
ROWS_SHOWN = 500


def build_list(desk: Desk) -> Page:
    """Every host, for the administrator."""
    hosts = sorted(desk.all(HostFact), key=lambda h: (h.fake, natural(h.name)))
    claims = _claims(desk)
    rows: list[Part] = [_row(host, claims[host.name]) for host in hosts[:ROWS_SHOWN]]
    if not rows:
        text = "No host yet. A host joins with a one-time token; its agent then says what is in it."
        rows.append(Row("row-none", (Cell(text, "empty", note="bessemer host enrol NAME"),)))
    here = Here(
        section="hosts",
        title="Hosts",
        crumbs=(("Factory", ""), ("Hosts", "")),
        code=code.list_code("hosts", "", namespaced=False),
        request=code.path("hosts"),
    )
    heads = (("Name", ""), ("State", ""), ("Devices", "lo"), ("GPUs held", "num"), ("Cores", "num lo"), ("Leaf", "lo"))
    lead = f"{words.some(len(hosts), 'host')}, {sum(h.fake for h in hosts):,} of them fake"
    lead += f"; the first {ROWS_SHOWN} are shown" if len(hosts) > ROWS_SHOWN else ""
    return page(desk, here, template="list.html", lists={"rows": rows}, heads=heads, lead=lead)


def _claims(desk: Desk) -> Mapping[str, list[ClaimFact]]:
    claims: dict[str, list[ClaimFact]] = defaultdict(list)
    for claim in desk.all(ClaimFact):
        claims[claim.host].append(claim)
    return claims


def _row(host: HostFact, claims: Sequence[ClaimFact]) -> Row:
    word = words.state(host)
    gpus = {g.id for g in host.gpus}
    held = sum(len(gpus & set(c.devices)) for c in claims)
    model = f"{len(gpus)} × {words.device(host.gpus[0].model)}" if gpus else host.cpu_model
    return Row(
        f"row-{host.uid}",
        (
            Cell(host.name, "name", href=f"/hosts/{host.name}", fake=host.fake),
            Cell(word, "state", tone=words.tone(word), since=None if host.ready else host.since),
            Cell(model, low=True),
            Cell(f"{held} of {len(gpus)}" if gpus else "–", "num"),
            Cell(f"{host.threads}" if host.threads else "–", "num", low=True),
            Cell(host.leaf or "–", low=True),
        ),
    )


# --- one --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Node:
    """The skeleton of a NUMA node: what hangs below it, by switch."""

    id: int
    title: str
    switches: tuple[tuple[str, str], ...]


def build(desk: Desk, name: str, *, body: str) -> Page:
    """One host. Raises NotFound once it is gone."""
    host = desk.one(HostFact, name)
    claims = [claim for claim in desk.all(ClaimFact) if claim.host == name]
    nodes = [_node(host, numa) for numa in host.numa]
    lists: dict[str, Sequence[Part]] = {
        "head": [head(host)],
        "acts": [acts(host)],
        "stats": figures(desk, host, claims=claims),
        **drawing(desk, host, claims=claims),
        "claims": [_claim(desk, claim) for claim in claims]
        or [Row("claim-none", (Cell("Nothing holds a part of this host.", "empty"),))],
        "why": waiting.of_host(host),
        "facts": facts(host),
        "feed": waiting.feed(desk, "all", about=host),
    }
    here = Here(
        section="hosts",
        title=name,
        crumbs=(("Fleet", "/fleet"), (host.site, ""), *(((host.leaf, ""),) if host.leaf else ()), (name, "")),
        code=code.host_code(name, body),
        request=code.path("hosts", name),
    )
    owners = sorted({claim.tenant for claim in claims})
    return page(
        desk,
        here,
        template="host.html",
        lists=lists,
        host=host,
        sub=subtitle(host),
        nodes=nodes,
        owners=[(owner, colours(desk).get(owner, 0)) for owner in owners],
        nvlink=nvlink(host),
        rails=[d for d in host.devices if d.kind == "nic" and d.rail is not None],
    )


def subtitle(host: HostFact) -> str:
    """What it is made of and where it stands."""
    gpus = f"{len(host.gpus)} × {words.device(host.gpus[0].model)}, " if host.gpus else ""
    places = ", ".join(p for p in (host.rack, host.leaf, host.spine) if p)
    made = f"{gpus}{words.some(host.threads, 'thread')}, {words.gib(host.memory_bytes)}"
    return made + (f". {places[:1].upper()}{places[1:]}" if places else "")


def head(host: HostFact) -> Head:
    word = words.state(host)
    broken = [d.id for d in host.devices if not d.healthy]
    badges: list[tuple[str, str, float | None]] = [(word, words.tone(word), None if host.ready else host.since)]
    if broken:
        badges.append((f"Degraded: {', '.join(broken[:3])}", "stuck", None))
    return Head("head-state", tuple(badges), fake=host.fake)


def acts(host: HostFact) -> Acts:
    """Cordoning keeps what runs and lets nothing new land."""
    if host.cordoned:
        return Acts("acts-all", f"/hosts/{host.name}", (("uncordon", "Uncordon", False, ""),))
    ask = f"Cordon {host.name}? What runs goes on, and nothing new lands here."
    return Acts("acts-all", f"/hosts/{host.name}", (("cordon", "Cordon", False, ask),))


def figures(desk: Desk, host: HostFact, *, claims: Sequence[ClaimFact]) -> list[Part]:
    milli, memory = sum(c.milli_cores for c in claims), sum(c.memory_bytes for c in claims)
    sold = host.threads * host.overcommit_milli
    gpus = {g.id for g in host.gpus}
    held = sum(len(gpus & set(c.devices)) for c in claims)
    prices = [p for p in (price.of_claim(desk, claim) for claim in claims) if p is not None]
    earns = price.Hourly(sum(p.micro for p in prices), prices[0].currency) if prices else None
    overcommit = f"each thread sold {host.overcommit_milli / 1000:g} times" if host.overcommit_milli > 1000 else ""
    rows: list[Part] = []
    if gpus:
        free = len(gpus) - held
        rows.append(
            Stat(id="st-gpus", label="GPUs claimed", figure=str(held), unit=f"of {len(gpus)}", note=f"{free} free")
        )
    rows += [
        Stat(
            id="st-cores",
            label="Cores claimed",
            figure=words.cores(milli),
            unit=f"of {words.cores(sold)}",
            note=overcommit or "never sold twice",
        ),
        Stat(
            id="st-memory",
            label="Memory claimed",
            figure=words.gib(memory),
            note=f"of {words.gib(host.memory_bytes)}",
        ),
        Stat(
            id="st-earns",
            label="Earns now",
            figure=price.shown(earns),
            unit="/ h" if earns else "",
            note=words.some(len(claims), "claim"),
        ),
        Stat(id="st-class", label="Isolation", figure=host.isolation or "–", note=host.isolation_note),
    ]
    return rows


def _node(host: HostFact, numa: NumaFact) -> Node:
    switches = {d.switch for d in host.devices if d.numa == numa.id}
    return Node(
        numa.id,
        f"NUMA node {numa.id}",
        tuple((switch_id(numa.id, s), s or "Directly attached") for s in sorted(switches, key=natural)),
    )


def switch_id(node: int, switch: str) -> str:
    return f"{node}-{switch or 'direct'}"


def drawing(desk: Desk, host: HostFact, *, claims: Sequence[ClaimFact]) -> dict[str, Sequence[Part]]:
    """The lists of the drawing: cores by node, GPUs and the rest by switch."""
    colour = colours(desk)
    holder = {device: claim for claim in claims for device in claim.devices}
    lists: dict[str, Sequence[Part]] = {}
    for numa in host.numa:
        lists[f"cores-{numa.id}"] = [_cores(host, numa, claims=claims, colour=colour)]
        for switch in {d.switch for d in host.devices if d.numa == numa.id}:
            here = [d for d in host.devices if d.numa == numa.id and d.switch == switch]
            place = switch_id(numa.id, switch)
            lists[f"gpus-{place}"] = [_gpu(d, holder.get(d.id), colour=colour) for d in here if d.kind == "gpu"]
            lists[f"small-{place}"] = [_small(d, holder.get(d.id), colour=colour) for d in here if d.kind != "gpu"]
    return lists


def _cell(device: DeviceFact, claim: ClaimFact | None, *, colour: Mapping[str, int]) -> str:
    if claim is not None:
        return f"t{colour.get(claim.tenant, 0)}"
    return FREE if device.healthy else BAD


def _gpu(device: DeviceFact, claim: ClaimFact | None, *, colour: Mapping[str, int]) -> Gpu:
    return Gpu(
        id=f"dev-{device.id}",
        name=device.id.replace("gpu-", "GPU "),
        cell=_cell(device, claim, colour=colour),
        holder=f"{claim.workload}-{claim.replica}" if claim else "free" if device.healthy else "",
        note=words.gib(device.memory_bytes) if device.memory_bytes else "",
        healthy=device.healthy,
    )


def _small(device: DeviceFact, claim: ClaimFact | None, *, colour: Mapping[str, int]) -> Plugged:
    if device.kind == "nic":
        rail = f"rail {device.rail}, " if device.rail is not None else ""
        note = f"{rail}{device.speed_mbps // 1000}G" if device.speed_mbps >= 1000 else rail.rstrip(", ")
    else:
        note = f"{device.memory_bytes / 1e12:.2f} TB" if device.memory_bytes >= 1e12 else words.gib(device.memory_bytes)
    cell = _cell(device, claim, colour=colour)
    return Plugged(id=f"dev-{device.id}", name=device.id, cell=cell, note=note, healthy=device.healthy)


def _cores(host: HostFact, numa: NumaFact, *, claims: Sequence[ClaimFact], colour: Mapping[str, int]) -> Cores:
    """A cell is a thread, or as many as make 56 cells; with overcommit a cell is that many cores that are sold."""
    sold = numa.threads * host.overcommit_milli
    drawn = min(CORES_DRAWN, numa.threads * host.overcommit_milli // 1000) or 1
    cells: list[str] = []
    segments: list[tuple[str, float, float]] = []
    start, held_milli, held_memory = 0.0, 0, 0
    for claim in claims:
        for node, milli, memory in claim.allocations:
            if node != numa.id:
                continue
            cell = f"t{colour.get(claim.tenant, 0)}"
            cells += [cell] * max(1, round(drawn * milli / (sold or 1)))
            width = 100 * memory / (numa.memory_bytes or 1)
            segments.append((cell, round(start, 3), round(width, 3)))
            start, held_milli, held_memory = start + width, held_milli + milli, held_memory + memory
    cells = [*cells[:drawn], *[FREE] * (drawn - len(cells))]
    made = f"{words.some(numa.cores, 'core')}, {words.some(numa.threads, 'thread')}"
    text = f"{made}, {words.cores(held_milli)} of {words.cores(sold)} claimed"
    memory_text = f"{words.gib(numa.memory_bytes)}, {words.gib(held_memory)} claimed"
    return Cores(f"cores-of-{numa.id}", text, memory_text, tuple(cells), tuple(segments))


def _claim(desk: Desk, claim: ClaimFact) -> Row:
    plural = {"Instance": "instances", "Endpoint": "endpoints"}.get(claim.workload_kind, "")
    to = f"/in/{claim.project}/{plural}/{claim.workload}" if plural else ""
    devices = ", ".join(claim.devices) or "–"
    return Row(
        f"claim-{claim.uid}",
        (
            Cell(
                f"{words.place(claim.project)} / {claim.workload}",
                "name",
                note=f"{claim.workload_kind}, replica {claim.replica}",
                href=to,
                colour=colours(desk).get(claim.tenant, 0),
            ),
            Cell(claim.phase or "Pending", "state", tone=words.tone(claim.phase or "Pending")),
            Cell(devices, low=True),
            Cell(words.cores(claim.milli_cores), "num", low=True),
            Cell(words.gib(claim.memory_bytes), "num", low=True),
            Cell("", "since", since=claim.created, low=True),
            Cell(price.shown(price.of_claim(desk, claim)), "num"),
        ),
    )


def facts(host: HostFact) -> list[Part]:
    found = [
        ("Processor", host.cpu_model),
        ("Kernel", host.kernel),
        ("Virtualisation", ": ".join(p for p in (host.virtualization, host.virtualization_note) if p)),
        ("Isolation", ": ".join(p for p in (host.isolation, host.isolation_note) if p)),
        ("Agent", host.agent_version),
        ("Rack", host.rack),
        ("Spine", host.spine),
        ("UID", host.uid),
    ]
    return [Fact(f"fact-{label.lower()}", label, value, mono=label == "UID") for label, value in found if value]


def nvlink(host: HostFact) -> str:
    """What joins the GPUs, or "" where nothing does."""
    domains: dict[str, int] = defaultdict(int)
    for gpu in host.gpus:
        if gpu.nvlink:
            domains[gpu.nvlink] += 1
    if not domains:
        return ""
    joined = sum(domains.values())
    many = words.some(len(domains), "domain")
    return f"{many}, {joined} of {words.some(len(host.gpus), 'GPU')} joined"
