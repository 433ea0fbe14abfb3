"""What things cost by the hour, from a price plan and what a claim holds: integers in micro-units, for people to read.

Nothing is billed by these figures; invoices are derived from the ledger (``metering``).
"""

from __future__ import annotations

from dataclasses import dataclass

from bessemer.core.resource import tenant_of
from bessemer.core.units import GIB, parse_bytes
from bessemer.portal import words
from bessemer.portal.desk import Desk
from bessemer.portal.facts import ClaimFact, EndpointFact, FlavorFact, InstanceFact, PlanFact, TenantFact, Workload


@dataclass(frozen=True, slots=True)
class Held:
    """What one replica holds."""

    milli_cores: int
    memory_bytes: int
    milli_devices: int = 0
    model: str = ""


@dataclass(frozen=True, slots=True)
class Hourly:
    micro: int
    currency: str


def cores(plan: PlanFact, held: Held) -> int:
    return held.milli_cores * plan.core_hour // 1000


def memory(plan: PlanFact, held: Held) -> int:
    return held.memory_bytes * plan.memory_gib_hour // GIB


def devices(plan: PlanFact, held: Held) -> int:
    return held.milli_devices * plan.devices.get(held.model, plan.devices.get("*", 0)) // 1000


def hourly(plan: PlanFact, held: Held) -> int:
    """Micro-units an hour while it is billed."""
    return cores(plan, held) + memory(plan, held) + devices(plan, held)


def plan_for(desk: Desk, project: str) -> PlanFact | None:
    """The price plan by which the project's tenant is billed."""
    owner = desk.find(TenantFact, tenant_of(project))
    return desk.find(PlanFact, owner.plan if owner else "standard")


def of_flavor(desk: Desk, fact: Workload, *, replicas: int = 1) -> Hourly | None:
    """By the flavor; None where flavor or plan are not known, or what an instance is of a device: hosts say that."""
    plan, flavor = plan_for(desk, fact.project), desk.find(FlavorFact, fact.flavor)
    if plan is None or flavor is None or flavor.gpu_profile:
        return None
    held = Held(flavor.cpus * 1000, parse_bytes(flavor.memory), flavor.gpus * flavor.gpu_milli, flavor.gpu_model)
    return Hourly(hourly(plan, held) * replicas, plan.currency)


def of_instance(desk: Desk, fact: InstanceFact) -> Hourly | None:
    return of_flavor(desk, fact)


def of_endpoint(desk: Desk, fact: EndpointFact) -> Hourly | None:
    return of_flavor(desk, fact, replicas=fact.wanted)


def of_claim(desk: Desk, claim: ClaimFact) -> Hourly | None:
    """By what the claim itself holds."""
    plan = plan_for(desk, claim.project)
    if plan is None:
        return None
    held = Held(claim.milli_cores, claim.memory_bytes, len(claim.devices) * claim.device_milli, claim.device_model)
    return Hourly(hourly(plan, held), plan.currency)


def shown(price: Hourly | None) -> str:
    """``€ 0.041``, or a dash."""
    if price is None:
        return "–"
    return words.money(price.micro, price.currency, digits=digits_for(price.micro))


def digits_for(micro: int) -> int:
    """So many digits that three of them count, at least two and at most six."""
    return next((digits for digits in (2, 3, 4, 5) if micro >= 10 ** (8 - digits)), 6)
