"""key: keys of applications, what they may ask and spend, and what is left of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bessemer.cli import render
from bessemer.cli.connection import ProjectOption, run
from bessemer.cli.output import OutputOption, shown
from bessemer.core.errors import Invalid

if TYPE_CHECKING:
    from bessemer.client import Client
    from bessemer.core.resource import Key

NameArgument = Annotated[str, typer.Argument(show_default=False)]

_LIMITS = {
    "requests/minute": "requestsPerMinute",
    "requests/day": "requestsPerDay",
    "tokens/minute": "tokensPerMinute",
    "tokens/day": "tokensPerDay",
    "concurrent": "concurrent",
}


class Priority(StrEnum):
    """In which class requests wait."""

    FLEX = "flex"
    DEFAULT = "default"
    PRIORITY = "priority"


_PERIODS = {"day": "Day", "month": "Month", "total": "Total"}


def keys() -> typer.Typer:
    """The commands of `key`."""
    app = typer.Typer(help="Keys with which applications use endpoints.", no_args_is_help=True, rich_markup_mode=None)
    app.command("create")(create)
    app.command("show")(show)
    app.command("token")(token)
    app.command("revoke")(revoke)
    return app


def create(
    context: typer.Context,
    name: NameArgument,
    *,
    project: ProjectOption = "",
    endpoint: Annotated[
        list[str] | None, typer.Option(help="Only this endpoint, or ENDPOINT:ADAPTER; repeat for more.")
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(help=f"As requests/minute=60; of {', '.join(_LIMITS)}. Repeat for more.", metavar="WHAT=N"),
    ] = None,
    budget: Annotated[
        str, typer.Option(help="Money, as 25/month, or tokens=1000000/day; of day, month, total.", metavar="N/PERIOD")
    ] = "",
    owner: Annotated[
        str, typer.Option(help="The member whose key it is; yours unless you may change the project.")
    ] = "",
    network: Annotated[
        list[str] | None, typer.Option(help="Only from this network, as 192.0.2.0/24; repeat for more.")
    ] = None,
    priority: Annotated[
        Priority | None,
        typer.Option(help="Whose turn it is where requests wait; raised by who may change the project."),
    ] = None,
) -> None:
    """Create a key and print its token, once.

    Example: `bessemer key create app -n acme--lab --limit requests/minute=60 --budget 25/month --owner mia`
    """
    place = _place(name, project=project)
    said: dict[str, Any] = {"endpoints": endpoint or []}
    more = {"owner": owner, "networks": network, "priority": priority.value if priority else None}
    said |= {field: value for field, value in more.items() if value}
    if limit:
        said["limits"] = dict(map(_limit, limit))
    if budget:
        said["budget"] = _budget(budget)

    async def work(client: Client) -> str:
        from bessemer.client import an_object

        await client.create(an_object(place, said))
        return await client.account.key_token(project, name)

    typer.echo(run(context, work))


def show(
    context: typer.Context, name: NameArgument, *, project: ProjectOption = "", output: OutputOption = "table"
) -> None:
    """What bounds a key: its own limits and budget, and those of its owner, project and tenant; and what is left.

    Example: `bessemer key show app -n acme--lab`
    """
    place = _place(name, project=project)
    bounds = run(context, lambda client: client.account.key_use(place.namespace, name))
    typer.echo(shown({"bounds": bounds}, output, text=lambda within: bounds_text(bounds, within=within)))


def token(context: typer.Context, name: NameArgument, *, project: ProjectOption = "") -> None:
    """Make a key a new token, in place of the one it has, and print it, once.

    Example: `bessemer key token app -n acme--lab`
    """
    place = _place(name, project=project)
    typer.echo(run(context, lambda client: client.account.key_token(place.namespace, name)))


def revoke(context: typer.Context, name: NameArgument, *, project: ProjectOption = "") -> None:
    """Make a key worth nothing. Example: `bessemer key revoke app -n acme--lab`"""
    from bessemer.core.resource import Key

    run(context, lambda client: client.delete(Key("ApiKey", project, name)))
    typer.echo(f"apikey/{name} revoked")


def bounds_text(bounds: Sequence[Mapping[str, Any]], *, within: int = 0) -> str:
    """A line for each bound."""
    if not bounds:
        return "Nothing bounds it."
    rows = [
        [one["scope"], one["title"], *(_amount(one, field) for field in ("limit", "used", "held", "left"))]
        for one in bounds
    ]
    return render.columns(["SCOPE", "BOUND", "LIMIT", "USED", "HELD", "LEFT"], rows, within=within, spare=["HELD"])


def _amount(one: Mapping[str, Any], field: str) -> str:
    from bessemer.core.units import show_price

    return show_price(one[field], one["currency"]) if one["unit"] == "micro" else str(one[field])


def _place(name: str, *, project: str) -> Key:
    from bessemer.core.resource import Key

    if not project:
        raise Invalid("keys live in a project: -n TENANT--PROJECT")
    return Key("ApiKey", project, name)


def _limit(text: str) -> tuple[str, int]:
    what, _, number = text.partition("=")
    if what not in _LIMITS or not number.isascii() or not number.isdigit():
        raise Invalid(f"--limit {text[:63]}: write WHAT=N, with WHAT one of {', '.join(_LIMITS)}")
    return _LIMITS[what], int(number)


def _budget(text: str) -> dict[str, Any]:
    amount, _, period = text.partition("/")
    tokens = amount.startswith("tokens=")
    try:
        value = Decimal(amount.removeprefix("tokens="))
        number = value if tokens else value * 1_000_000
        if period not in _PERIODS or not value.is_finite() or number < 0 or number != number.to_integral_value():
            raise InvalidOperation
    except InvalidOperation:
        raise Invalid(f"--budget {text[:63]}: write 25/month or tokens=1000000/day; of day, month, total") from None
    return {"period": _PERIODS[period], ("tokens" if tokens else "micro"): int(number)}
