"""The fleet: figures, occupancy by tenant, the map (``chart``), what waits and why.

A host without GPUs is drawn by its cores: a tile of eight cells, each an eighth of what may be sold there.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from bessemer.portal import words
from bessemer.portal.code import fleet_code
from bessemer.portal.desk import Desk
from bessemer.portal.facts import ClaimFact, HostFact
from bessemer.portal.live import Page, Part
from bessemer.portal.pages import chart, waiting
from bessemer.portal.pages.chart import BAD, FREE, OUT, Drawn, Memo
from bessemer.portal.pages.shell import EVERYTHING, Here, colours, page
from bessemer.portal.parts import Bar, Head, Legend, Stat, Text

NAMED_MAX = 3
"""Tenants that the legend names of one colour."""

Holders = Mapping[str, Sequence[ClaimFact]]


def build(desk: Desk, memo: Memo) -> Page:
    """The page of the administrator; ``memo`` is what its tab has worked out before."""
    memo.tinted(colours(desk))
    hosts = sorted(desk.all(HostFact), key=lambda h: memo.order(h.name))
    claims: dict[str, list[ClaimFact]] = defaultdict(list)
    for claim in desk.all(ClaimFact):
        claims[claim.host].append(claim)
    held = waiting.held_up(desk, EVERYTHING)
    drawn = [memo.draw(host, claims[host.name]) for host in hosts]
    shares = share_of(drawn)
    lists: dict[str, Sequence[Part]] = {
        "head": [Head("head-state", (), fake=False)],
        "sub": [Text("sub-text", subtitle(hosts))],
        "stats": [*figures(drawn, claims), *waiting.stats(held)],
        "capacity": [occupancy(shares)],
        "legend": legend(drawn, shares=shares),
        **chart.lists(drawn, memo),
        "why-sum": [Text("why-sum-text", waiting.summary(held))],
        "why": waiting.cards(held),
        "feed": waiting.feed(desk, EVERYTHING),
    }
    here = Here(
        section="fleet",
        title="Fleet",
        crumbs=(("Factory", ""), ("Fleet", "")),
        code=fleet_code(),
        request="GET /apis/bessemer.dev/v1alpha1/hosts?limit=500",
    )
    cells = "GPU" if any(host.gpus for host in hosts) else "core"
    return page(desk, here, template="fleet.html", lists=lists, cells=cells, rails=chart.railed(drawn))


# --- figures ----------------------------------------------------------------------------------------------------


def figures(drawn: Sequence[Drawn], claims: Holders) -> list[Part]:
    """The first figures of the row: GPUs where there are any, and the cores of real hosts."""
    hosts = [one.host for one in drawn]
    gpus = sum(len(h.gpus) for h in hosts)
    carriers = [one for one in drawn if one.host.gpus]
    usable = [one for one in carriers if not (one.host.cordoned or one.host.fenced or one.host.reachable is False)]
    whole = [one.host for one in usable if not one.held]
    held = sum(one.held for one in carriers)
    real = [h for h in hosts if not h.fake]
    milli = sum(c.milli_cores for h in real for c in claims[h.name])
    sold = sum(h.threads * h.overcommit_milli for h in real)
    rows: list[Part] = []
    if gpus:
        free = sum(len(h.gpus) for h in whole)
        rows += [
            Stat(
                id="stat-claimed",
                label="GPUs claimed",
                figure=f"{100 * held / gpus:.1f}",
                unit="%",
                note=f"{held:,} of {words.some(gpus, 'GPU')}" + (", all fake" if not any(h.gpus for h in real) else ""),
            ),
            Stat(
                id="stat-whole",
                label="Free on whole hosts",
                figure=f"{free:,}",
                note=f"on {words.some(len(whole), 'host')}, {fragmented(usable):,} more in parts",
            ),
        ]
    note = f"of {words.cores(sold)} for sale" if real else "no real host"
    rows.append(Stat(id="stat-cores", label="Cores on real hosts", figure=words.cores(milli), note=note))
    if not gpus:
        memory = sum(c.memory_bytes for h in real for c in claims[h.name])
        whole_memory = sum(h.memory_bytes for h in real)
        note = f"of {words.gib(whole_memory)}"
        rows.append(Stat(id="stat-memory", label="Memory claimed", figure=words.gib(memory), note=note))
    return rows


def fragmented(hosts: Sequence[Drawn]) -> int:
    """Free GPUs on hosts that somebody already holds a part of."""
    return sum(len(one.cells) - one.held for one in hosts if 0 < one.held < len(one.cells))


def occupancy(shares: Mapping[str, int]) -> Bar:
    """The bar above the map: largest tenant first, then free, then out."""
    total = sum(shares.values()) or 1
    segments, start = [], 0.0
    for value, count in shares.items():
        width = 100 * count / total
        segments.append((value, round(start, 3), round(width, 3)))
        start += width
    held = sum(n for value, n in shares.items() if value.startswith("t"))
    label = f"{held:,} of {total:,} cells claimed, {shares.get(FREE, 0):,} free, {shares.get(OUT, 0):,} out"
    return Bar("bar-all", label, tuple(segments))


def legend(hosts: Sequence[Drawn], *, shares: Mapping[str, int]) -> list[Part]:
    """One entry for each colour of cells, and free and out; who holds cores alone where others hold GPUs comes last."""
    names = {**shared(counted(hosts), figures=True), FREE: "free", OUT: "out"}
    cores = shared([one for one in hosts if not one.host.gpus], figures=False)
    entries = [(value, names.get(value, value), f"{count:,}") for value, count in shares.items()]
    entries += [(value, cores[value], "cores") for value in sorted(cores.keys() - shares.keys())]
    return [Legend(f"lg-{value}", value, name, count) for value, name, count in entries]


def shared(hosts: Sequence[Drawn], *, figures: bool) -> dict[str, str]:
    """Who holds the cells of a colour. There are ten colours: where tenants share one, each is named with its part."""
    holders: Counter[tuple[str, str]] = Counter()
    for one in hosts:
        holders.update(one.holders)
    found: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for (value, name), count in holders.most_common():
        found[value].append((name, count))
    return {value: _joined(named, figures=figures) for value, named in found.items()}


def _joined(named: Sequence[tuple[str, int]], *, figures: bool) -> str:
    """``acme``, ``acme 12, kelvin 4``, ``acme 12, kelvin 4, osprey 2, 3 more``."""
    if len(named) == 1:
        return named[0][0] or "others"
    told = [f"{name} {count:,}" if figures else name for name, count in named[:NAMED_MAX]]
    return ", ".join([*told, f"{len(named) - NAMED_MAX} more"] if len(named) > NAMED_MAX else told)


def counted(hosts: Sequence[Drawn]) -> Sequence[Drawn]:
    """The hosts whose cells are counted: those with GPUs where there are any."""
    return [one for one in hosts if one.host.gpus] or hosts


def share_of(hosts: Sequence[Drawn]) -> dict[str, int]:
    """Cells by owner; GPUs where there are any, cores else."""
    cells: Counter[str] = Counter()
    for one in counted(hosts):
        for cell, count in one.shares.items():
            cells[OUT if cell == BAD else cell] += count
    owners = [(value, n) for value, n in cells.most_common() if value.startswith("t")]
    return dict([*owners, *((value, cells[value]) for value in (FREE, OUT) if cells[value])])


def subtitle(hosts: Sequence[HostFact]) -> str:
    """``2 sites, 13 leaves, 201 hosts, 200 of them fake``."""
    fake = sum(host.fake for host in hosts)
    places = {host.site for host in hosts}, {(host.site, host.leaf) for host in hosts if host.leaf}
    leaves = f"{len(places[1]):,} {'leaf' if len(places[1]) == 1 else 'leaves'}, " if places[1] else ""
    told = f"{words.some(len(places[0]), 'site')}, {leaves}{words.some(len(hosts), 'host')}"
    return told + (f", {fake:,} of them fake" if fake else "")
