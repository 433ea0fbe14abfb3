"""quota: what tenants and projects use of what they may, as bars; and where nothing more would fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bessemer.cli import render
from bessemer.cli.connection import ProjectOption, run
from bessemer.cli.output import DOCUMENTS, OutputOption, shown

if TYPE_CHECKING:
    from bessemer.client import Client

BAR = 20
_EIGHTHS = " ▏▎▍▌▋▊▉█"
NEARLY = 0.8
"""From this share of a bound on, a bar warns."""


def add(app: typer.Typer) -> None:
    """Put the command into the tree."""
    app.command("quota")(quota)


def quota(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="[TENANT|PROJECT]", help="Whose; all that you may see where none is named.")
    ] = "",
    *,
    project: ProjectOption = "",
    output: OutputOption = "table",
) -> None:
    """What tenants and projects use of what they may.

    Of a project its tenant's meters are shown, too: both must have room.

    Example: `bessemer quota acme`, `bessemer quota acme--lab`
    """
    meters = run(context, lambda client: _meters(client, name or project))
    if output not in DOCUMENTS and not any(map(_tells, meters)):
        typer.echo("Nothing is used.", err=True)
        return
    typer.echo(shown({"meters": meters}, output, text=lambda within: quota_text(meters, within=within)))


async def _meters(client: Client, name: str) -> list[dict[str, Any]]:
    from bessemer.core.ports import Scope
    from bessemer.core.resource import SEPARATOR

    if name:
        return await (client.projects.use(name) if SEPARATOR in name else client.projects.tenant_use(name))
    tenants = await client.list(Scope(kind="Tenant"))
    return [meter for tenant in tenants.items for meter in await client.projects.tenant_use(tenant.key.name)]


def _tells(meter: Mapping[str, Any]) -> bool:
    return bool(meter["used"]) or meter["limit"] is not None


def quota_text(meters: Sequence[Mapping[str, Any]], *, within: int = 0) -> str:
    """A line per meter that is bounded or used. What is bounded has a bar."""
    rows = [
        [meter["scope"], meter["title"], _used(meter), _amount(meter, "limit"), _left(meter), bar(meter)]
        for meter in filter(_tells, meters)
    ]
    return render.columns(["SCOPE", "METER", "USED", "LIMIT", "LEFT", ""], rows, within=within, spare=["", "LEFT"])


def _amount(meter: Mapping[str, Any], field: str) -> str:
    return "-" if meter[field] is None else _shown(meter, meter[field])


def _shown(meter: Mapping[str, Any], value: int) -> str:
    from bessemer.core.quota import show_amount

    return f"{meter.get('currency', '')} {show_amount(meter['meter'], value)}".strip()


def _used(meter: Mapping[str, Any]) -> str:
    """With what gateways hold beside it."""
    held = meter.get("held", 0)
    return f"{_amount(meter, 'used')} + {_shown(meter, held)} held" if held else _amount(meter, "used")


def _left(meter: Mapping[str, Any]) -> str:
    return "-" if meter["limit"] is None else _shown(meter, max(meter["limit"] - _taken(meter), 0))


def _taken(meter: Mapping[str, Any]) -> int:
    return int(meter["used"]) + int(meter.get("held", 0))


def bar(meter: Mapping[str, Any], width: int = BAR) -> str:
    """``██████▌░░░``: how much of the bound is used; ``!`` follows where it is passed, or nearly."""
    used, limit = _taken(meter), meter["limit"]
    if limit is None:
        return ""
    share = min(used / limit, 1.0) if limit else 1.0
    whole, eighth = divmod(round(share * width * 8), 8)
    drawn = "█" * whole + (_EIGHTHS[eighth] if eighth else "")
    warning = " full" if used == limit else " over" if used > limit else " nearly" if share >= NEARLY else ""
    return f"{drawn:░<{width}}{warning}"
