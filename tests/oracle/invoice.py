"""A second way from ledger rows to a total: ``python tests/oracle/invoice.py FILE``.

FILE is what ``bessemer invoice --export`` writes: ``{"start", "end", "pricePlan", "rows"}``. It adds up
exact fractions, shares no line with the product, and prints the total with all its digits.
"""

import json
import sys
from collections import defaultdict
from fractions import Fraction

QUANTITIES = ("devices", "milliCores", "memoryBytes", "requests", "inputTokens", "cachedInputTokens", "outputTokens")


def corrected(rows):
    """Rows by id, with what corrections say in place of what they correct."""
    rows = sorted(rows, key=lambda row: row["id"])
    kept = {row["id"]: dict(row) for row in rows if row["kind"] != "correction"}
    origin = {number: number for number in kept}
    for row in rows:
        if row["kind"] == "correction" and row.get("corrects") in origin:
            target = origin[row["id"]] = origin[row["corrects"]]
            kept[target].update({name: row.get(name, 0) for name in QUANTITIES})
    return [kept[number] for number in sorted(kept)]


def held(rows, start, end, billed):
    """(open row, seconds) for each stretch of billed time of each claim."""
    claims = defaultdict(list)
    for row in rows:
        if row["kind"] in ("open", "state", "close"):
            claims[row["claimUid"]].append(row)
    for history in claims.values():
        state = "deploying"
        for row, following in zip(history, [*history[1:], {"at": end}], strict=True):
            if row["kind"] == "close":
                break
            state = row.get("state", state)
            seconds = min(following["at"], end) - max(row["at"], start)
            if seconds > 0 and state in billed:
                yield history[0], seconds


def lines(document):
    """Line → exact amount in micro-units, before its one rounding."""
    start, end = document["start"], document["end"]
    plan = document["pricePlan"]
    rates = plan.get("rates", {})
    devices = rates.get("deviceHour", {})
    rows = corrected(document["rows"])
    amounts = defaultdict(Fraction)
    for row, seconds in held(rows, start, end, plan["billedStates"]):
        model = row.get("deviceModel", "")
        hours = Fraction(seconds, 3600)
        prices = {
            "cores": Fraction(row.get("milliCores", 0), 1000) * rates.get("coreHour", 0),
            "memory": Fraction(row.get("memoryBytes", 0), 2**30) * rates.get("memoryGibHour", 0),
            f"device {model}": Fraction(row.get("devices", 0) * row.get("deviceMilli", 1000), 1000)
            * devices.get(model, devices.get("*", 0)),
        }
        for meter, per_hour in prices.items():
            amounts[key(row, meter)] += hours * per_hour
    for row in rows:
        if row["kind"] == "tokens" and start <= row["at"] < end:
            cached = row.get("cachedInputTokens", 0)
            fresh = max(0, row.get("inputTokens", 0) - cached)
            said = row.get("model", "")
            each = token_rates(plan, said)
            model = said if plan.get("models") else own_name(said)
            out = row.get("outputTokens", 0)
            for sort, count, rate in zip(("in", "cached", "out"), (fresh, cached, out), each, strict=True):
                amounts[key(row, f"{sort} {model}")] += Fraction(count, 10**6) * rate
    return amounts


def token_rates(plan, said):
    """What a million tokens of each sort cost of whom a row names: MODEL, PROJECT/MODEL, either with :ADAPTER behind
    it, or external/ANYTHING."""
    sorts = ("millionInputTokens", "millionCachedInputTokens", "millionOutputTokens")
    models = plan.get("models", {})
    base, adapter = (said, None) if said.startswith("external/") else [*said.split(":", 1), None][:2]
    known = [models.get(base, plan.get("rates", {}))] + [models[name] for name in (adapter,) if name in models]
    return [max(rates.get(sort, 0) for rates in known) for sort in sorts]


def own_name(said):
    """A model's name without what stands around it."""
    if said.startswith("external/"):
        return said[len("external/") :]
    return said.split(":", 1)[0].split("/")[-1]


def key(row, meter):
    """What makes a line of its own."""
    workload = tuple(row[name] for name in ("workloadKind", "workloadName", "workloadUid", "project"))
    return (*workload, row.get("fake", False), meter)


def half_up(amount):
    """The nearest integer; a half goes up."""
    whole = amount.numerator // amount.denominator
    return whole + (amount - whole >= Fraction(1, 2))


def total_micro(document):
    """The invoice's total in micro-units: each line rounded once."""
    return sum(half_up(amount) for amount in lines(document).values())


def main(path):
    with open(path, encoding="utf-8") as file:
        document = json.load(file)
    total = total_micro(document)
    print(f"{document['pricePlan'].get('currency', 'EUR')} {total // 10**6}.{total % 10**6:06d}")


if __name__ == "__main__":
    main(sys.argv[1])
