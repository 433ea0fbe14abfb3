"""The fleet: every host as a tile under its leaf, every device a cell in its tenant's colour; what waits, and why.

A host without GPUs is drawn by its cores: a tile of eight cells, each an eighth of what may be sold there.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

from bessemer.portal import words
from bessemer.portal.code import fleet_code
from bessemer.portal.desk import Desk
from bessemer.portal.facts import ClaimFact, HostFact
from bessemer.portal.live import Page, Part
from bessemer.portal.pages import waiting
from bessemer.portal.pages.shell import EVERYTHING, Here, colours, page
from bessemer.portal.parts import Bar, Head, Leaf, Legend, Site, SiteUse, Stat, Text, Tile, Use

CORE_CELLS = 8
FREE, OUT, BAD = "fr", "co", "bad"
_NUMBERS = re.compile(r"(\d+)")

Holders = Mapping[str, Sequence[ClaimFact]]


def build(desk: Desk) -> Page:
    """The page of the administrator."""
    hosts = sorted(desk.all(HostFact), key=lambda h: natural(h.name))
    claims: dict[str, list[ClaimFact]] = defaultdict(list)
    for claim in desk.all(ClaimFact):
        claims[claim.host].append(claim)
    held = waiting.held_up(desk, EVERYTHING)
    tiles = {host.name: tile(host, claims[host.name], colour=colours(desk)) for host in hosts}
    lists: dict[str, Sequence[Part]] = {
        "head": [Head("head-state", (), fake=False)],
        "sub": [Text("sub-text", subtitle(hosts))],
        "stats": [*figures(hosts, claims), *waiting.stats(held)],
        "capacity": [occupancy(desk, tiles.values())],
        "legend": legend(desk, tiles.values()),
        **sites(hosts, tiles),
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
    return page(desk, here, template="fleet.html", lists=lists, cells="GPU" if any(h.gpus for h in hosts) else "core")


# --- the map ----------------------------------------------------------------------------------------------------


def sites(hosts: Sequence[HostFact], tiles: Mapping[str, Tile]) -> dict[str, Sequence[Part]]:
    """The lists of the map: sites, their leaves, their tiles. Real hosts come first, fake ones stand apart."""
    tree: dict[tuple[bool, str], dict[str, list[HostFact]]] = defaultdict(lambda: defaultdict(list))
    for host in hosts:
        tree[host.fake, host.site][host.leaf or host.rack or "–"].append(host)
    found: list[Part] = []
    lists: dict[str, Sequence[Part]] = {"map": found}
    for (fake, name), leaves in sorted(tree.items()):
        site = f"{name}-fake" if fake else name
        found.append(Site(f"site-{site}", site, name, fake))
        lists[f"siteuse-{site}"] = [site_use(site, [h for members in leaves.values() for h in members], tiles=tiles)]
        parts: list[Part] = []
        # A list comes after the one that holds its element, so that a browser has a place for it.
        lists[f"leaves-{site}"] = parts
        for leaf, members in sorted(leaves.items(), key=lambda item: natural(item[0])):
            place = f"{site}-{leaf}"
            here = [tiles[host.name] for host in members]
            parts.append(Leaf(f"leaf-{place}", short(leaf), f"Leaf {leaf}"))
            lists[f"tiles-{place}"] = here
            lists[f"use-{place}"] = [used(f"used-{place}", here)]
    return lists


def site_use(site: str, hosts: Sequence[HostFact], *, tiles: Mapping[str, Tile]) -> SiteUse:
    """``64 / 1,600 GPUs, 4 %`` and the models there."""
    models = Counter(gpu.model for host in hosts for gpu in host.gpus)
    count = used("", [tiles[host.name] for host in hosts if host.gpus])
    named = ", ".join(words.device(model) for model, _ in models.most_common(3))
    if not count.total:
        return SiteUse(f"su-{site}", words.some(len(hosts), "host") + " without GPUs", named)
    share = f"{count.used:,} / {count.total:,} GPUs, {100 * count.used / count.total:.0f} %"
    return SiteUse(f"su-{site}", share, named)


def used(part: str, tiles: Sequence[Tile]) -> Use:
    """Cells that somebody holds, of all."""
    cells = [cell for tile in tiles for cell in tile.cells]
    return Use(part, sum(cell.startswith("t") for cell in cells), len(cells))


def tile(host: HostFact, claims: Sequence[ClaimFact], *, colour: Mapping[str, int]) -> Tile:
    """A host as the map draws it, with all that it says in its name."""
    owners = cell_owners(host, claims)
    word = words.host_state(host)
    out = host.cordoned or host.fenced or word in {"Silent", "Failed"}
    cells = tuple(
        BAD if owner == BAD else f"t{colour.get(owner) or 0}" if owner else OUT if out else FREE for owner in owners
    )
    frame = {"Silent": "failed", "Failed": "failed", "Cordoned": "cordoned", "Fenced": "cordoned"}.get(word, "")
    free = cells.count(FREE)
    flags = [
        name
        for name, holds in (
            ("free", free),
            ("part", free and free < len(cells)),
            ("out", out or BAD in cells),
            ("real", not host.fake),
        )
        if holds
    ]
    return Tile(
        id=f"tile-{host.name}",
        host=host.name,
        cells=cells,
        label=tile_label(host, owners, word=word),
        frame="stuck" if host.stuck else frame,
        fake=host.fake,
        cores=not host.gpus,
        flags=" ".join(flags),
    )


def cell_owners(host: HostFact, claims: Sequence[ClaimFact]) -> list[str]:
    """The tenant of each cell, "" for a free one, `BAD` for a device that is broken."""
    if host.gpus:
        holder = {device: claim.tenant for claim in claims for device in claim.devices}
        return [holder.get(gpu.id, "" if gpu.healthy else BAD) for gpu in host.gpus]
    sold = host.threads * host.overcommit_milli or 1
    owners: list[str] = []
    for tenant, milli in Counter(
        {t: sum(c.milli_cores for c in claims if c.tenant == t) for t in {c.tenant for c in claims}}
    ).most_common():
        owners += [tenant] * max(1, round(CORE_CELLS * milli / sold))
    return [*owners[:CORE_CELLS], *[""] * (CORE_CELLS - len(owners))]


def tile_label(host: HostFact, owners: Sequence[str], *, word: str) -> str:
    """``lul1-a2-07, H100 80GB: acme 4, failed 1, free 3``: the state of a tile is in its name."""
    named = Counter("failed" if o == BAD else o or "free" for o in owners)
    held = ", ".join(f"{name} {count}" for name, count in sorted(named.items(), key=lambda i: (i[0] == "free", -i[1])))
    if host.gpus:
        about = words.device(host.gpus[0].model)
    else:
        about = f"no GPU, {words.some(host.threads, 'thread')} in eighths" if host.threads else "not yet inspected"
    state = "" if word in {"Ready", "Running"} else f"; {word.lower()}"
    return f"{host.name}, {about}: {held}{state}{'; fake host' if host.fake else ''}"


# --- figures ----------------------------------------------------------------------------------------------------


def figures(hosts: Sequence[HostFact], claims: Holders) -> list[Part]:
    """The first figures of the row: GPUs where there are any, and the cores of real hosts."""
    gpus = sum(len(h.gpus) for h in hosts)
    open_hosts = [h for h in hosts if not (h.cordoned or h.fenced or h.reachable is False)]
    taken = {h.name: sum(len(set(c.devices) & {g.id for g in h.gpus}) for c in claims[h.name]) for h in hosts}
    whole = [h for h in open_hosts if h.gpus and not taken[h.name]]
    held = sum(taken.values())
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
                note=f"on {words.some(len(whole), 'host')}, {fragmented(open_hosts, taken):,} more in parts",
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


def fragmented(hosts: Sequence[HostFact], taken: Mapping[str, int]) -> int:
    """Free GPUs on hosts that somebody already holds a part of."""
    return sum(len(h.gpus) - taken[h.name] for h in hosts if 0 < taken[h.name] < len(h.gpus))


def occupancy(desk: Desk, tiles: Collection[Tile]) -> Bar:
    """The bar above the map: largest tenant first, then free, then out."""
    shares = share_of(tiles)
    total = sum(shares.values()) or 1
    segments, start = [], 0.0
    for value, count in shares.items():
        width = 100 * count / total
        segments.append((value, round(start, 3), round(width, 3)))
        start += width
    held = sum(n for value, n in shares.items() if value.startswith("t"))
    label = f"{held:,} of {total:,} cells claimed, {shares.get(FREE, 0):,} free, {shares.get(OUT, 0):,} out"
    return Bar("bar-all", label, tuple(segments))


def legend(desk: Desk, tiles: Collection[Tile]) -> list[Part]:
    """One entry for each owner of cells, and free and out; who holds cores alone where others hold GPUs comes last."""
    names = {f"t{number}": name for name, number in colours(desk).items()}
    names |= {FREE: "free", OUT: "out", "t0": "others"}
    shares = share_of(tiles)
    others = {cell for tile in tiles for cell in tile.cells if cell.startswith("t")} - shares.keys()
    entries = [(value, f"{count:,}") for value, count in shares.items()] + [
        (value, "cores") for value in sorted(others)
    ]
    return [Legend(f"lg-{value}", value, names.get(value, value), count) for value, count in entries]


def share_of(tiles: Collection[Tile]) -> dict[str, int]:
    """Cells by owner; GPUs where there are any, cores else."""
    counted = [t for t in tiles if not t.cores] or tiles
    cells = Counter(OUT if cell == BAD else cell for t in counted for cell in t.cells)
    owners = [(value, n) for value, n in cells.most_common() if value.startswith("t")]
    return dict([*owners, *((value, cells[value]) for value in (FREE, OUT) if cells[value])])


def subtitle(hosts: Sequence[HostFact]) -> str:
    """``2 sites, 13 leaves, 201 hosts, 200 of them fake``."""
    fake = sum(host.fake for host in hosts)
    places = {host.site for host in hosts}, {(host.site, host.leaf) for host in hosts if host.leaf}
    leaves = f"{len(places[1]):,} {'leaf' if len(places[1]) == 1 else 'leaves'}, " if places[1] else ""
    told = f"{words.some(len(places[0]), 'site')}, {leaves}{words.some(len(hosts), 'host')}"
    return told + (f", {fake:,} of them fake" if fake else "")


def natural(name: str) -> list[tuple[int, str]]:
    """``host-2`` before ``host-10``."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in _NUMBERS.split(name)]


def short(leaf: str) -> str:
    """``leaf-07`` → ``07``: the row's name."""
    return leaf.removeprefix("leaf-")
