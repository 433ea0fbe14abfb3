"""Why this host: how many had room, what chose between them, and why the others were set aside.

It is what placement said when the claim was made, and the claim keeps: `bessemer why` tells the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bessemer.portal import words
from bessemer.portal.facts import ClaimFact
from bessemer.portal.live import Part
from bessemer.portal.parts import Fact

_CRITERIA: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "spansNumaNodes": ("NUMA nodes", lambda value: "several" if value else "one holds it all"),
    "devicesLeftOnSwitch": ("Left free on its switch", lambda value: words.some(int(value), "GPU")),
    "devicesLeft": ("Left free on the host", lambda value: words.some(int(value), "GPU")),
    "milliCoresLeft": ("Cores left free", lambda value: words.cores(int(value))),
    "memoryLeft": ("Memory left free", lambda value: words.gib(int(value))),
}


def of(claim: ClaimFact | None, *, admin: bool) -> Sequence[Part]:
    """The panel's rows; ``admin`` may follow the host's name."""
    if claim is None:
        return [Fact("placed-none", "Once a host is chosen, this says of how many, and why it", "none yet", num=True)]
    found: list[Part] = [
        Fact("placed-host", "Host", claim.host, href=f"/hosts/{claim.host}" if admin else "", strong=True, num=True)
    ]
    if not claim.fitting:
        return [*found, Fact("placed-old", "Why it", "was not kept", num=True)]
    room = words.some(claim.fitting, "host") if claim.fitting > 1 else "this host alone"
    found.append(Fact("placed-room", "Had room", room, num=True))
    found += [
        Fact(f"placed-{name}", _CRITERIA[name][0], _CRITERIA[name][1](value), num=True)
        for name, value in claim.score
        if name in _CRITERIA and claim.fitting > 1
    ]
    return found + [
        Fact(f"placed-not-{number}", sentence(text), words.some(hosts, "host"), num=True)
        for number, (hosts, text) in enumerate(claim.refused)
    ]


def sentence(text: str) -> str:
    """``short of 2 cores`` → ``Not: short of 2 cores``."""
    return f"Not: {text}"


def newest(claims: Sequence[ClaimFact | None]) -> ClaimFact | None:
    """The claim that was made last: of an endpoint's replicas the one whose choice is most like the next."""
    made = [claim for claim in claims if claim is not None]
    return max(made, key=lambda claim: (claim.created, claim.replica), default=None)
