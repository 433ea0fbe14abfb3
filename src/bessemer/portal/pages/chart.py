"""How the fleet's map is drawn: hosts as tiles under their leaf, each GPU a cell in its tenant's colour, rail 0 first.

Up to `TILES_MAX` hosts each tile is an element. Beyond, a leaf is one line of text and the browser paints what is in
sight (``static/chart.js``), so that ten thousand hosts cost no more than what one sees of them. What was worked out for
a host stands until its facts, its claims or a colour change.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bessemer.portal import words
from bessemer.portal.facts import ClaimFact, HostFact
from bessemer.portal.live import Part
from bessemer.portal.parts import Chart, Leaf, Site, SiteUse, Strip, Tile, Use

TILES_MAX = 1000
CORE_CELLS = 8
FREE, OUT, BAD = "fr", "co", "bad"
_NUMBERS = re.compile(r"(\d+)")
_CELLS: Mapping[str, str] = {FREE: ".", OUT: "-", BAD: "!"}
_OWNER_FIRST = 0x100
"""A cell that somebody holds is written as this character and those after it: the number in the strip's owners."""

Lists = dict[str, Sequence[Part]]


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a host looks like. ``cells`` are classes, ``owners`` tenants ("" where nobody holds it), of equal length;
    ``shares`` counts the cells by class, ``holders`` by class and tenant, ``held`` is how many somebody holds."""

    host: HostFact
    cells: tuple[str, ...]
    owners: tuple[str, ...]
    shares: Mapping[str, int]
    holders: Mapping[tuple[str, str], int]
    held: int
    word: str
    frame: str
    flags: str


@dataclass(slots=True)
class Memo:
    """What was worked out for a page before, so that a change costs what it changes."""

    colour: Mapping[str, int] = field(default_factory=dict)
    drawn: dict[str, tuple[HostFact, Sequence[ClaimFact], Drawn]] = field(default_factory=dict)
    parts: dict[str, tuple[Sequence[Drawn], Part]] = field(default_factory=dict)
    names: dict[str, list[tuple[int, str]]] = field(default_factory=dict)

    def tinted(self, colour: Mapping[str, int]) -> None:
        """Forget everything where tenants have other colours now."""
        if self.colour != colour:
            self.colour = dict(colour)
            self.drawn.clear()
            self.parts.clear()

    def draw(self, host: HostFact, claims: Sequence[ClaimFact]) -> Drawn:
        """The host as it looks now."""
        kept = self.drawn.get(host.name)
        if kept is None or kept[0] is not host or kept[1] != claims:
            kept = self.drawn[host.name] = host, claims, drawn(host, claims, colour=self.colour)
        return kept[2]

    def order(self, name: str) -> list[tuple[int, str]]:
        """`natural`, worked out once for each name."""
        found = self.names.get(name)
        if found is None:
            found = self.names[name] = natural(name)
        return found


def lists(hosts: Sequence[Drawn], memo: Memo) -> Lists:
    """The lists of the map. Real hosts come first, fake ones stand apart."""
    tree: dict[tuple[bool, str], dict[str, list[Drawn]]] = defaultdict(lambda: defaultdict(list))
    for one in hosts:
        host = one.host
        tree[host.fake, host.site][host.leaf or host.rack or "–"].append(one)
    if len(hosts) > TILES_MAX:
        return _strips(tree, memo, hosts=hosts)
    found: list[Part] = []
    made: Lists = {"map": found}
    for (fake, name), leaves in sorted(tree.items()):
        site = f"{name}-fake" if fake else name
        found.append(Site(f"site-{site}", site, name, fake))
        use = site_use([one for members in leaves.values() for one in members])
        made[f"siteuse-{site}"] = [SiteUse(f"su-{site}", *use)]
        parts: list[Part] = []
        # A list comes after the one that holds its element, so that a browser has a place for it.
        made[f"leaves-{site}"] = parts
        for leaf, members in sorted(leaves.items(), key=lambda item: memo.order(item[0])):
            place = f"{site}-{leaf}"
            parts.append(Leaf(f"leaf-{place}", short(leaf), f"Leaf {leaf}"))
            made[f"tiles-{place}"] = [tile(one) for one in members]
            made[f"use-{place}"] = [Use(f"used-{place}", *used(members))]
    return made


def _strips(tree: Mapping[tuple[bool, str], Mapping[str, list[Drawn]]], memo: Memo, *, hosts: Sequence[Drawn]) -> Lists:
    """The map as lines of text: one for each site, and one for each of its leaves."""
    found: list[Part] = []
    for (fake, name), leaves in sorted(tree.items()):
        site = f"{name}-fake" if fake else name
        share, models = site_use([one for members in leaves.values() for one in members])
        found.append(Strip(f"strip-{site}", site=name, fake=fake, note=models, use=share))
        for leaf, members in sorted(leaves.items(), key=lambda item: memo.order(item[0])):
            part = f"strip-{site}-{leaf}"
            kept = memo.parts.get(part)
            if kept is None or kept[0] != members:
                kept = memo.parts[part] = members, strip(part, leaf, members=members)
            found.append(kept[1])
    text = (
        f"{len(hosts):,} hosts{', their GPUs in rail order' if railed(hosts) else ''}. Arrow keys walk from one to the "
        "next, Enter opens it; the page Hosts lists them as a table."
    )
    return {"map": [Chart("chart", text)], "strips": found}


def strip(part: str, leaf: str, *, members: Sequence[Drawn]) -> Strip:
    """A leaf as text. Hosts are lines of name, model, cells, frame, state and flags, apart by tabs; models and owners
    are numbered within the strip."""
    owners: dict[tuple[str, str], str] = {}
    models: dict[str, int] = {}
    lines = []
    for one in members:
        model = models.setdefault(about(one.host), len(models))
        cells = "".join(
            _CELLS.get(cell) or owners.setdefault((cell, owner), chr(_OWNER_FIRST + len(owners)))
            for cell, owner in zip(one.cells, one.owners, strict=True)
        )
        state = "" if one.word in {"Ready", "Running"} else one.word.lower()
        lines.append("\t".join((one.host.name, str(model), cells, one.frame, state, one.flags)))
    holds, total = used(members)
    return Strip(
        part,
        leaf=short(leaf),
        fake=members[0].host.fake,
        note="\n".join(models),
        owners="\n".join(f"{cell}\t{owner}" for cell, owner in owners),
        hosts="\n".join(lines),
        use=f"{holds} / {total}",
    )


def site_use(hosts: Sequence[Drawn]) -> tuple[str, str]:
    """``64 / 1,600 GPUs, 4 %`` and the models there."""
    models: Counter[str] = Counter()
    for one in hosts:
        if one.host.gpus:
            models[one.host.gpus[0].model] += len(one.host.gpus)
    held, total = used([one for one in hosts if one.host.gpus])
    named = ", ".join(words.device(model) for model, _ in models.most_common(3))
    if not total:
        return words.some(len(hosts), "host") + " without GPUs", named
    return f"{held:,} / {total:,} GPUs, {100 * held / total:.0f} %", named


def railed(hosts: Sequence[Drawn]) -> bool:
    """Whether the order of a host's cells says which rail a GPU hangs on."""
    return any(gpu.rail is not None for one in hosts for gpu in one.host.gpus)


def used(hosts: Sequence[Drawn]) -> tuple[int, int]:
    """Cells that somebody holds, and all."""
    return sum(one.held for one in hosts), sum(len(one.cells) for one in hosts)


def drawn(host: HostFact, claims: Sequence[ClaimFact], *, colour: Mapping[str, int]) -> Drawn:
    """What a host looks like."""
    owners = cell_owners(host, claims)
    word = words.host_state(host)
    out = host.cordoned or host.fenced or word in {"Silent", "Failed"}
    cells = tuple(
        BAD if owner == BAD else f"t{colour.get(owner) or 0}" if owner else OUT if out else FREE for owner in owners
    )
    frame = {"Silent": "failed", "Failed": "failed", "Cordoned": "cordoned", "Fenced": "cordoned"}.get(word, "")
    free = cells.count(FREE)
    flags = (
        ("free", free),
        ("part", free and free < len(cells)),
        ("out", out or BAD in cells),
        ("real", not host.fake),
    )
    named = " ".join(name for name, holds in flags if holds)
    shares = Counter(cells)
    holders = Counter((cell, owner) for cell, owner in zip(cells, owners, strict=True) if cell.startswith("t"))
    frame = "stuck" if host.stuck else frame
    return Drawn(host, cells, tuple(owners), shares, holders, holders.total(), word, frame, named)


def tile(one: Drawn) -> Tile:
    """A host as an element, with all that it says in its name."""
    return Tile(
        id=f"tile-{one.host.name}",
        host=one.host.name,
        cells=one.cells,
        label=tile_label(one.host, one.owners, word=one.word),
        frame=one.frame,
        fake=one.host.fake,
        cores=not one.host.gpus,
        flags=one.flags,
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


def about(host: HostFact) -> str:
    """``H100 80GB``, or what a host without GPUs has."""
    if host.gpus:
        return words.device(host.gpus[0].model)
    return f"no GPU, {words.some(host.threads, 'thread')} in eighths" if host.threads else "not yet inspected"


def tile_label(host: HostFact, owners: Sequence[str], *, word: str) -> str:
    """``lul1-a2-07, H100 80GB: acme 4, failed 1, free 3``: the state of a tile is in its name. ``chart.js`` writes the
    same."""
    named = Counter("failed" if o == BAD else o or "free" for o in owners)
    held = ", ".join(f"{name} {count}" for name, count in sorted(named.items(), key=lambda i: (i[0] == "free", -i[1])))
    state = "" if word in {"Ready", "Running"} else f"; {word.lower()}"
    return f"{host.name}, {about(host)}: {held}{state}{'; fake host' if host.fake else ''}"


def natural(name: str) -> list[tuple[int, str]]:
    """``host-2`` before ``host-10``."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in _NUMBERS.split(name)]


def short(leaf: str) -> str:
    """``leaf-07`` → ``07``: the row's name."""
    return leaf.removeprefix("leaf-")
