"""The parts that pages are made of. Each is drawn by the macro of its name in ``templates/parts.html``.

They hold values, not markup, and compare by value: that is what decides whether a tab is sent anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bessemer.portal.live import Part


@dataclass(frozen=True, slots=True)
class Count(Part):
    """Beside an entry of the navigation: how many there are, or how many are stuck."""

    macro: ClassVar[str] = "count"

    count: int
    stuck: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stat(Part):
    """A figure of the row at the top. ``first`` comes first on phones."""

    macro: ClassVar[str] = "stat"

    label: str
    figure: str
    unit: str = ""
    note: str = ""
    since: float | None = None
    href: str = ""
    tone: str = ""
    first: bool = False


@dataclass(frozen=True, slots=True)
class Head(Part):
    """The states beside a page's title: (word, tone, since or None)."""

    macro: ClassVar[str] = "head"

    badges: tuple[tuple[str, str, float | None], ...]
    fake: bool = False


@dataclass(frozen=True, slots=True)
class Text(Part):
    """A sentence that changes."""

    macro: ClassVar[str] = "text"

    text: str
    href: str = ""


@dataclass(frozen=True, slots=True)
class Site(Part):
    """A site of the map, its fake hosts apart; its leaves live in the list ``leaves-PLACE``."""

    macro: ClassVar[str] = "site"

    place: str
    name: str
    fake: bool


@dataclass(frozen=True, slots=True)
class SiteUse(Part):
    macro: ClassVar[str] = "site_use"

    text: str
    models: str


@dataclass(frozen=True, slots=True)
class Leaf(Part):
    """A leaf of the map; its tiles live in the list ``tiles-ID``."""

    macro: ClassVar[str] = "leaf"

    name: str
    label: str


@dataclass(frozen=True, slots=True)
class Use(Part):
    """So much of so much."""

    macro: ClassVar[str] = "use"

    used: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile(Part):
    """A host on the map. ``cells`` are classes, one for each device (or eighth of the cores)."""

    macro: ClassVar[str] = "tile"

    host: str
    cells: tuple[str, ...]
    label: str
    frame: str = ""
    fake: bool = False
    cores: bool = False
    flags: str = ""


@dataclass(frozen=True, slots=True)
class Chart(Part):
    """A map too large for elements: ``chart.js`` paints it from the list ``strips``. ``text`` says what it is, and what
    to do in its place."""

    macro: ClassVar[str] = "chart"

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip(Part):
    """A line of a `Chart`: a site (``site``), or one of its leaves. ``pages.chart`` says how hosts are written."""

    macro: ClassVar[str] = "strip"

    site: str = ""
    leaf: str = ""
    fake: bool = False
    note: str = ""
    owners: str = ""
    hosts: str = ""
    use: str = ""


@dataclass(frozen=True, slots=True)
class Bar(Part):
    """Occupancy as a bar: (class, start in percent, width in percent)."""

    macro: ClassVar[str] = "occupancy"

    label: str
    segments: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True, slots=True)
class Legend(Part):
    """One owner; pressing shows it alone. ``value`` is the class of its cells."""

    macro: ClassVar[str] = "legend"

    value: str
    name: str
    count: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Why(Part):
    """Somebody waits: who, for what, since when, and the cheapest change."""

    macro: ClassVar[str] = "why"

    colour: int
    name: str
    href: str
    tone: str
    word: str
    since: float | None
    what: str
    text: str
    fix_label: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened(Part):
    """An event."""

    macro: ClassVar[str] = "happened"

    at: float
    name: str
    href: str
    text: str
    warning: bool
    count: int


@dataclass(frozen=True, slots=True)
class Act:
    """A button of a row: a form that posts ``act`` and ``name`` to the page's own path. ``ask`` is the question before
    what cannot be undone, "" of what can."""

    target: str
    act: str
    name: str
    label: str
    ask: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table: text, a state, a time, or a bar. ``kind`` is text, state, since, num, tenant, mono or bar, of
    which ``share`` percent are filled and ``text`` is what it says."""

    text: str
    kind: str = "text"
    note: str = ""
    href: str = ""
    tone: str = ""
    since: float | None = None
    colour: int = 0
    fake: bool = False
    low: bool = False
    share: float = 0.0
    acts: tuple[Act, ...] = ()


@dataclass(frozen=True, slots=True)
class Row(Part):
    """A row of a table; the first cell is its head."""

    macro: ClassVar[str] = "row"

    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRow(Part):
    """Somebody, and a role that they hold. ``roles`` are those that it can be changed to, none where the session may
    not; where there are ``more_roles`` than these, another is written by name; ``act`` takes it."""

    macro: ClassVar[str] = "member_row"

    who: str
    kind: str
    role: str
    where: str
    source: str
    roles: tuple[str, ...]
    more_roles: bool = False
    act: Act | None


@dataclass(frozen=True, slots=True)
class Empty(Part):
    """What stands where there is nothing yet: what it would be, and the one command."""

    macro: ClassVar[str] = "empty"

    text: str
    command: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase(Part):
    """A phase of a boot. ``state`` is done, now, later, stuck or failed; times are seconds since the epoch."""

    macro: ClassVar[str] = "phase"

    name: str
    note: str
    state: str
    start: float | None = None
    end: float | None = None
    deadline: float | None = None
    zero: float = 0.0


@dataclass(frozen=True, slots=True)
class Fact(Part):
    """A row of a list of facts."""

    macro: ClassVar[str] = "fact"

    label: str
    value: str
    mono: bool = False
    num: bool = False
    strong: bool = False
    href: str = ""


@dataclass(frozen=True, slots=True)
class Acts(Part):
    """The buttons of a page's head: (action, label, dangerous, question or "")."""

    macro: ClassVar[str] = "acts"

    target: str
    acts: tuple[tuple[str, str, bool, str], ...]


@dataclass(frozen=True, slots=True)
class Cores(Part):
    """The cores and the memory of one NUMA node, by who holds them."""

    macro: ClassVar[str] = "cores"

    text: str
    memory: str
    cells: tuple[str, ...]
    segments: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu(Part):
    """A GPU in the drawing of a host. ``cell`` is the class of its holder."""

    macro: ClassVar[str] = "gpu"

    name: str
    cell: str
    holder: str
    note: str
    healthy: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugged(Part):
    """A NIC or disk in the drawing of a host."""

    macro: ClassVar[str] = "plugged"

    name: str
    cell: str
    note: str
    healthy: bool


@dataclass(frozen=True, slots=True)
class LoadPlots(Part):
    """The plots of a vetting, which a script draws; ``empty`` is said where there is nothing to be drawn, with the
    ``command`` that would change it."""

    macro: ClassVar[str] = "load_plots"

    embeds: bool
    empty: str = ""
    command: str = ""


@dataclass(frozen=True, slots=True)
class Figure(Part):
    """A number and its unit."""

    macro: ClassVar[str] = "figure"

    text: str
    unit: str


@dataclass(frozen=True, slots=True)
class BillGroup(Part):
    """The lines of one workload on an invoice; they live in the list of its own id."""

    macro: ClassVar[str] = "bill_group"


@dataclass(frozen=True, slots=True)
class BillHead(Part):
    """The head of a group: its id ends in ``-head``, its sum lives in the list ``GROUP-sum``."""

    macro: ClassVar[str] = "bill_head"

    name: str
    fake: bool


@dataclass(frozen=True, slots=True)
class BillLine(Part):
    """A line, without its figures: those live in ``ID-held``, ``-low``, ``-quantity`` and ``-amount``. ``href`` is
    where its ledger rows are had; ``ID-drill`` opens to them."""

    macro: ClassVar[str] = "bill_line"

    name: str
    href: str
    price: str


@dataclass(frozen=True, slots=True)
class BillDrill(Part):
    """What a line opens to, as ``LINE-drill``: the rows that a script fetches, what is said of more, in ``LINE-more``,
    and the formula, in ``LINE-formula``."""

    macro: ClassVar[str] = "bill_drill"
