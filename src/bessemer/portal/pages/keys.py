"""Keys of applications: the list with the form of a new one, and one of them: what is left of each bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bessemer.core.bounds import METERS
from bessemer.core.resource import Key
from bessemer.portal import code, words
from bessemer.portal.desk import Desk
from bessemer.portal.facts import EndpointFact, KeyFact
from bessemer.portal.forms import NOTHING, Said
from bessemer.portal.live import Page, Part
from bessemer.portal.pages import price
from bessemer.portal.pages.quota import NEARLY
from bessemer.portal.pages.shell import EVERYTHING, Here, in_place, page, visible
from bessemer.portal.parts import Act, Cell, Fact, Head, Row
from bessemer.portal.playground import PLAYGROUND
from bessemer.portal.reading import seconds

Bounds = Sequence[Mapping[str, Any]]
"""What the api answers of a key's use."""

_LEAD = "A key lets an application ask endpoints, within bounds. It is shown once, and stored as a hash."
FULL = 100.0
NBSP = "\u00a0"
_NONE = "No key yet. An application shows one with each request; what it asks is billed to the project."
_CLASSES = {"flex": "Flex: last in line", "default": "Default", "priority": "Priority: first in line"}


@dataclass(slots=True)
class Held:
    """What an open page of one key was last told; ``hidden`` where the session may not ask."""

    bounds: Bounds = field(default_factory=tuple)
    hidden: bool = False


def build_list(desk: Desk, scope: str, *, said: Said = NOTHING) -> Page:
    """Every key of the scope; those of playgrounds last. Raises NotFound once the project is gone."""
    found: list[KeyFact] = visible(desk, KeyFact, scope=scope)
    found = sorted(found, key=lambda key: (key.name.startswith(PLAYGROUND), key.project, key.name))
    project = "" if scope == EVERYTHING else scope
    here = Here(
        section="keys",
        title="Keys",
        scope=scope,
        crumbs=((words.place(project) if project else "Everything", ""), ("Keys", "")),
        code=(("CLI", _cli(project)), *code.list_code("apikeys", project)),
        request=code.path("apikeys", project=project),
    )
    heads = (("Name", ""), ("State", ""), ("Opens", "lo"), ("Bounds", "lo"), ("Ends, UTC", "num lo"), ("", "acts"))
    rows: list[Part] = [_row(desk, key, scope=scope) for key in found]
    plan = price.plan_for(desk, project) if project else None
    endpoints = sorted(one.name for one in desk.all(EndpointFact) if one.project == project)
    return page(
        desk,
        here,
        template="keys.html",
        lists={"rows": rows or [Row("row-none", (Cell(_NONE, "empty"),))]},
        heads=heads,
        lead=_LEAD,
        said=said,
        makes=bool(project) and desk.writes(project),
        endpoints=endpoints,
        classes=_CLASSES,
        currency=plan.currency if plan else "",
        me=desk.me.name,
    )


def _cli(project: str) -> str:
    place = project or "TENANT--PROJECT"
    return (
        f"bessemer key create app -n {place} \\\n  --limit requests/minute=60 --budget 25/month\n"
        f"bessemer key show app -n {place}"
    )


def _row(desk: Desk, key: KeyFact, *, scope: str) -> Row:
    gone = key.deleting
    phase = "Revoked" if gone else key.phase or "Pending"
    acts = (_revoke(key),) if desk.writes(key.project) and not gone else ()
    return Row(
        f"row-{key.uid}",
        (
            Cell(in_place(key, scope), "name", note=_note(key), href=href(key)),
            Cell(phase, "state", tone=words.tone(phase), note=f"{key.hint}…" if key.hint else "no token yet"),
            Cell(", ".join(key.endpoints) or "all endpoints", low=True),
            Cell(_bounds(desk, key), low=True),
            Cell("", "until", since=key.expires, low=True),
            Cell("", "acts", acts=acts),
        ),
    )


def _note(key: KeyFact) -> str:
    owner = f"of {key.owner}" if key.owner else "of the project"
    return ", ".join(filter(None, (key.description, owner)))


def _bounds(desk: Desk, key: KeyFact) -> str:
    """Its own, in a line."""
    plan = price.plan_for(desk, key.project)
    currency = plan.currency if plan else ""
    parts = [_bound(meter, bound, currency=currency) for meter, bound in key.bounds]
    parts += [f"from {', '.join(key.networks)}"] if key.networks else []
    parts += [f"class {key.priority}"] if key.priority != "default" else []
    return "; ".join(parts) or "none of its own"


def _bound(meter: str, bound: int, *, currency: str) -> str:
    known = METERS.get(meter)
    if known is None:
        return f"{bound:,} {meter}"
    if known.unit == "micro":
        return f"{_money(bound, currency)} {known.title.removeprefix('spend ')}"
    return f"{bound:,} {known.title}"


def _revoke(key: KeyFact) -> Act:
    ask = f"Revoke {key.name}? Whatever shows it is refused from that moment."
    return Act(f"/in/{key.project}/keys", "revoke", key.name, "Revoke", ask=ask)


def href(key: KeyFact) -> str:
    """The page of a key."""
    return f"/in/{key.project}/keys/{key.name}"


# --- one --------------------------------------------------------------------------------------------------------


def build(desk: Desk, which: Key, *, held: Held, said: Said = NOTHING) -> Page:
    """One key. Raises NotFound once it is gone."""
    project, name = which.namespace, which.name
    key = desk.one(KeyFact, name, project=project)
    phase = "Revoked" if key.deleting else key.phase or "Pending"
    here = Here(
        section="keys",
        title=name,
        scope=project,
        crumbs=((words.place(project), ""), ("Keys", f"/in/{project}/keys"), (name, "")),
        code=(
            ("CLI", f"bessemer key show {name} -n {project}\nbessemer usage -n {project} --by key"),
            ("kubectl", f"kubectl -n {project} get apikey {name} -o yaml"),
        ),
        request=f"{code.path('apikeys', name, project=project)}/use",
    )
    lists: dict[str, Sequence[Part]] = {
        "head": [Head("head-state", ((phase, words.tone(phase), None),))],
        "bounds": bounds(held),
        "facts": facts(key),
    }
    may = desk.writes(project) and not key.deleting
    fresh = Act(f"/in/{project}/keys", "token", name, "New token", ask=f"New token for {name}? The old one ends now.")
    return page(
        desk,
        here,
        template="key.html",
        lists=lists,
        sub=f"Key of {words.place(project)}, {_note(key)}.",
        name=name,
        said=said,
        acts=(fresh, _revoke(key)) if may else (),
        usage_href=f"/in/{project}/usage/figures?by=endpoint&key={name}",
    )


def bounds(held: Held) -> list[Part]:
    """What is used of each bound, what is nearest to it first; of several as near, the key's own."""
    if held.hidden:
        return [Row("bound-none", (Cell("You may not see what is used of its bounds.", "empty"),))]
    rows: list[Part] = [_left(one) for one in sorted(held.bounds, key=_share, reverse=True)]
    if not rows:
        text = "Nothing bounds it: neither limits nor a budget of its own, its owner's, the project's or the tenant's."
        rows.append(Row("bound-none", (Cell(text, "empty"),)))
    return rows


def _left(one: Mapping[str, Any]) -> Row:
    share = _share(one)
    tone = "failed" if share >= FULL else "stuck" if share >= NEARLY else "ok"
    title = str(one["title"])
    kind, _, name = str(one["scope"]).partition("/")
    whose = "of the key" if kind == "key" else f"of the {kind} {words.place(name.rpartition('/')[2])}"
    figure = _amount(one, "used") + (f" + {_amount(one, 'held')} held" if one["held"] else "")
    ident = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in f"{kind}-{one['meter']}")
    return Row(
        f"bound-{ident}",
        (
            Cell(title[:1].upper() + title[1:], "name", note=whose),
            Cell(f"{figure} of {_amount(one, 'limit')}", "num"),
            Cell(f"{title}: {figure} of {_amount(one, 'limit')}", "bar", tone=tone, share=round(share, 1)),
            Cell(_amount(one, "left"), "num", low=True),
            Cell("", "until", since=seconds(one["until"]), low=True) if one["until"] else Cell("–", "num", low=True),
        ),
    )


def _share(one: Mapping[str, Any]) -> float:
    """Percent of the bound, with what gateways hold of it."""
    taken, limit = int(one["used"]) + int(one["held"]), int(one["limit"])
    return min(FULL, FULL * taken / limit) if limit else FULL


def _amount(one: Mapping[str, Any], name: str) -> str:
    value = max(0, int(one[name]))
    return _money(value, str(one.get("currency", ""))) if one["unit"] == "micro" else f"{value:,}"


def _money(micro: int, currency: str) -> str:
    """Sign and figure on one line."""
    return words.money(micro, currency).replace(" ", NBSP)


def facts(key: KeyFact) -> list[Part]:
    """What is known of it."""
    found = [
        ("Begins with", f"{key.hint}…" if key.hint else "no token yet", True),
        ("Owner", key.owner or "the project", False),
        ("Opens", ", ".join(key.endpoints) or "all endpoints of the project", False),
        ("From networks", ", ".join(key.networks) or "anywhere", False),
        ("Class", key.priority, False),
        ("Ends", f"{words.utc(key.expires)} UTC" if key.expires else "never", False),
        ("UID", key.uid, True),
    ]
    return [Fact(f"fact-{at}", label, value, mono=mono) for at, (label, value, mono) in enumerate(found)]
