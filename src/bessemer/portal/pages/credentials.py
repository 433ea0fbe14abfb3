"""Credentials of a project: programs that act for a person, within bounds; when each was last used, and until when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bessemer.portal import code, words
from bessemer.portal.desk import Desk
from bessemer.portal.forms import Said
from bessemer.portal.live import Page, Part
from bessemer.portal.pages.lists import Listed, caveats
from bessemer.portal.pages.shell import EVERYTHING, Here, page, within
from bessemer.portal.parts import Act, Cell, Row
from bessemer.portal.reading import seconds

_LEAD = "A credential lets a program act for its owner, within bounds. Its secret is shown once."
_NONE = "No credential yet. One lets a program act for you: a pipeline, GitOps, a script."


@dataclass(slots=True)
class Held:
    """What an open page was last told."""

    credentials: Listed


def build(desk: Desk, scope: str, *, held: Held, said: Said) -> Page:
    """The table, and the form of a new one where the session may write. Raises NotFound once the project is gone."""
    within(desk, scope)
    project = "" if scope == EVERYTHING else scope
    here = Here(
        section="credentials",
        title="Credentials",
        scope=scope,
        crumbs=((words.place(project) if project else "Everything", ""), ("Credentials", "")),
        code=(("CLI", _cli(project)), *code.list_code("applicationcredentials", project)),
        request=code.path("applicationcredentials", project=project),
    )
    rows: list[Part] = [_row(desk, body, spread=not project) for body in held.credentials.bodies]
    rows += caveats(held.credentials, what="the credentials here", plural="applicationcredentials")
    heads = (("Name", ""), ("State", ""), ("May", "lo"), ("Expires", "num lo"), ("Last used", "num lo"), ("", "acts"))
    return page(
        desk,
        here,
        template="credentials.html",
        lists={"rows": rows or [Row("row-none", (Cell(_NONE, "empty"),))]},
        heads=heads,
        lead=_LEAD,
        said=said,
        makes=bool(project) and desk.writes(project),
    )


def _cli(project: str) -> str:
    place = project or "TENANT--PROJECT"
    return f"bessemer credential create ci -n {place} --verb get --days 90\nbessemer credential list -n {place}"


def _row(desk: Desk, body: Mapping[str, Any], *, spread: bool) -> Row:
    meta, spec, status = body["metadata"], body.get("spec", {}), body.get("status", {})
    name, project = meta["name"], meta["namespace"]
    gone = bool(meta.get("deletionTimestamp"))
    phase = "Revoked" if gone else status.get("phase", "Pending")
    used = seconds(status["lastUsed"]) if status.get("lastUsed") else None
    note = ", ".join(filter(None, (spec.get("description", ""), f"of {spec.get('user', '')}")))
    last = f" from {status['lastSource']}" if used and status.get("lastSource") else ""
    target = f"/in/{project}/credentials"
    revoke = Act(target, "revoke", name, "Revoke", ask=f"Revoke {name}? Whatever uses it is refused from then on.")
    own = spec.get("user") == desk.me.name  # nobody else makes it a secret
    acts = (Act(target, "rotate", name, "New secret"), revoke) if own else (revoke,)
    return Row(
        f"row-{meta['uid']}",
        (
            Cell(f"{words.place(project)} / {name}" if spread else name, "name", note=note),
            Cell(phase, "state", tone=words.tone(phase), note=_secrets(status)),
            Cell(bounds(spec), low=True),
            Cell("", "until", since=seconds(spec["expiresAt"]), low=True),
            Cell("never" if used is None else "", "since" if used else "num", since=used, note=last, low=True),
            Cell("", "acts", acts=acts if desk.writes(project) and not gone else ()),
        ),
    )


def _secrets(status: Mapping[str, Any]) -> str:
    """Of two secrets, that the older one is good still."""
    return "the secret before is still good" if len(status.get("secrets", ())) > 1 else ""


def bounds(spec: Mapping[str, Any]) -> str:
    """What it may, in a line: all that its owner may, or what is left of it."""
    reach = {"tenant": "in the whole tenant", "owner": "wherever its owner may"}.get(spec.get("reach", ""), "here")
    parts = [", ".join(spec[name]) for name in ("roles", "verbs", "kinds", "names") if spec.get(name)]
    parts += [f"from {', '.join(spec['networks'])}"] if spec.get("networks") else []
    return "; ".join([*(parts or ["all that its owner may"]), reach])
