"""Quota: what may be held at the same time, and the register of its meters.

A field of `Quota` is a meter, and its annotation says in which unit and how it is counted. To add a meter is to add one
line there: bounds, counting, API, CLI and portal follow. What is counted is said here and done by ``store``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field

from bessemer.core.money import Purse
from bessemer.core.resource import ApiModel
from bessemer.core.units import show_bytes

Unit = Literal["", "cores", "bytes", "tokens", "money"]
"""What a meter's number is of: things, thousandths of a core, bytes, tokens, or millionths of a currency."""

ALL_DEVICES = "devices/*"
SHARES = "shares/"
"""What meters begin with that count thousandths of devices which are had in part. They have no bound of their own."""
ALL_SHARES = "shares/*"


class Taken(Protocol):
    """What of a Claim is counted."""

    @property
    def milli_cores(self) -> int: ...
    @property
    def memory_bytes(self) -> int: ...
    @property
    def device_milli(self) -> int: ...
    @property
    def shared(self) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """One of the ways to count: each object of ``kind``, in the write that makes it, as one, or as many as ``each``
    field of its status says, in each write of that; what ``per_claim`` says, in the transaction that takes;
    devices ``by_model``, there too; what gateways hold within ``window_seconds``; and
    money, of which the control side has ``told`` what the ledger came to, and gateways hold beside it.

    ``name`` is the field's.
    """

    unit: Unit = ""
    kind: str = ""
    each: str = ""
    per_claim: Callable[[Taken], int] | None = None
    by_model: bool = False
    window_seconds: int = 0
    told: bool = False
    name: str = ""


class Quota(ApiModel):
    """Upper bounds; None is no bound. ``devices`` is by model, with ``*`` for the sum of all."""

    milli_cores: Annotated[int | None, Meter(unit="cores", per_claim=lambda claim: claim.milli_cores)] = Field(
        None, description="Thousandths of cores that may be held."
    )
    memory_bytes: Annotated[int | None, Meter(unit="bytes", per_claim=lambda claim: claim.memory_bytes)] = Field(
        None, description="Memory that may be held."
    )
    devices: Annotated[dict[str, int], Meter(by_model=True)] = Field(
        default_factory=dict, description="Devices by model; * is the sum of all."
    )
    instances: Annotated[int | None, Meter(kind="Instance")] = Field(None, description="Instances that may exist.")
    endpoints: Annotated[int | None, Meter(kind="Endpoint")] = Field(None, description="Endpoints that may exist.")
    jobs: Annotated[int | None, Meter(kind="Job")] = Field(None, description="Jobs that may exist, ended ones too.")
    claims: Annotated[int | None, Meter(per_claim=lambda _: 1)] = Field(None, description="Claims that may stand.")
    api_keys: Annotated[int | None, Meter(kind="ApiKey")] = Field(None, description="Keys that may exist.")
    projects: Annotated[int | None, Meter(kind="Project")] = Field(
        None, description="Projects that may exist; of a tenant."
    )
    content_bytes: Annotated[int | None, Meter(unit="bytes", kind="ProjectModel", each="heldBytes")] = Field(
        None,
        exclude_if=lambda said: said is None,
        description="Bytes of the models that projects bring, counted while they come.",
    )
    tokens_per_minute: Annotated[int | None, Meter(unit="tokens", window_seconds=60)] = Field(
        None, description="Tokens of models, read and written, in each minute of the clock."
    )
    spend_micro: Annotated[int | None, Meter(unit="money", told=True)] = Field(
        None, description="What a month (UTC) may cost, in millionths of the currency of the tenant's plan."
    )


def _register() -> tuple[Meter, ...]:
    found = []
    for name, field in Quota.model_fields.items():
        (meter,) = (one for one in field.metadata if isinstance(one, Meter))
        found.append(replace(meter, name=name))
    return tuple(found)


METERS: tuple[Meter, ...] = _register()
"""The register, in the order in which it is shown."""


(CLAIMS,) = (meter.name for meter in METERS if meter.name == "claims")
(MONEY,) = (meter.name for meter in METERS if meter.told)


def meter_of_kind(kind: str) -> str:
    """The meter that counts objects of the kind, or ""."""
    return next((meter.name for meter in METERS if meter.kind == kind), "")


def part_of_kind(kind: str) -> str:
    """The field of its status that says for how many an object of the kind counts; "" where each is one."""
    return next((meter.each for meter in METERS if meter.kind == kind), "")


def amount_in(body: Mapping[str, Any], field: str) -> int:
    """For how many an object counts, by that field of its status; one where that is ""."""
    if not field:
        return 1
    said = (body.get("status") or {}).get(field, 0)
    return said if isinstance(said, int) and said > 0 else 0


def amounts_of(claim: Taken, models: Mapping[str, int]) -> dict[str, int]:
    """Meter → what a claim with devices of these ``models`` (model → number) takes of it."""
    found = {meter.name: meter.per_claim(claim) for meter in METERS if meter.per_claim is not None}
    if claim.shared:
        parts = {model: number * claim.device_milli for model, number in models.items()}
        return found | {f"{SHARES}{model}": milli for model, milli in parts.items()} | {ALL_SHARES: sum(parts.values())}
    found |= {f"devices/{model}": number for model, number in models.items()}
    return found | {ALL_DEVICES: sum(models.values())}


def begun(milli: int) -> int:
    """As how many devices parts of that many thousandths count, all of a meter together: four quarters are one. A bound
    is of whole devices, so that what it lets through is the same as were they counted to the thousandth."""
    return -(-milli // 1000)


def devices_of(meter: str) -> str:
    """The meter of devices to which one of shares adds what is `begun`; "" of any other."""
    return f"devices/{meter.removeprefix(SHARES)}" if meter.startswith(SHARES) else ""


def bounds_of(wanted: Quota) -> dict[str, int]:
    """Meter → bound, of those that have one. Devices are ``devices/MODEL``."""
    found: dict[str, int] = {}
    for meter in METERS:
        value = getattr(wanted, meter.name)
        if meter.by_model:
            found |= {f"{meter.name}/{model}": bound for model, bound in value.items()}
        elif value is not None:
            found[meter.name] = value
    return found


def by_claims(meter: str) -> bool:
    """Whether a meter of that name counts what Claims take."""
    return meter.startswith("devices/") or any(one.name == meter and one.per_claim is not None for one in METERS)


def unit_of(meter: str) -> Unit:
    """The unit of a meter by its name; of one that is not known, things."""
    return next((one.unit for one in METERS if one.name == meter), "")


def window_of(meter: str) -> int:
    """Seconds of the window within which a meter is counted; 0 of one that is not."""
    return next((one.window_seconds for one in METERS if one.name == meter), 0)


def show_amount(meter: str, value: int) -> str:
    """``16``, ``1.5 GiB``, ``3``: beside the meter's title."""
    unit = unit_of(meter)
    if unit == "bytes":
        return show_bytes(value)
    if unit == "money":
        return f"{value / 1_000_000:,.2f}"
    return f"{value / 1000:g}" if unit == "cores" or meter.startswith(SHARES) else str(value)


def title_of(meter: str) -> str:
    """What people call it: ``memory``, ``API keys``, ``H100``, ``devices``."""
    if meter.startswith(SHARES):
        return f"{title_of(devices_of(meter))} in part"
    if meter.startswith("devices/"):
        return meter.removeprefix("devices/").replace("*", "devices")
    if meter == "content_bytes":
        return "content of models"
    return {"cores": "cores", "bytes": "memory", "money": "spend this month"}.get(
        unit_of(meter), meter.replace("_", " ").replace("api ", "API ")
    )


def said(meter: str, value: int) -> str:
    """``16 cores``, ``1.5 GiB of memory``, ``3 H100``: within a sentence."""
    return f"{show_amount(meter, value)} {'of ' if unit_of(meter) == 'bytes' else ''}{title_of(meter)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One meter of a scope (``tenant/NAME`` or ``project/NAME``): what is used of what bound. Of money also what is
    ``held`` beside it by gateways."""

    scope: str
    meter: str
    used: int
    limit: int | None
    held: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What somebody may use of a meter before ``until`` (epoch seconds, when its window ends). ``left`` is what nobody
    has yet; None where there is no bound, and no need to ask before then. ``money`` is None where that is
    not bounded."""

    amount: int
    until: int
    left: int | None
    money: Purse | None = None
