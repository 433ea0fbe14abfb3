"""Why a gang fits nowhere: every host set aside, counted by set."""

from __future__ import annotations

from bessemer.core.asking import Gang, Reason, Refusal
from bessemer.placement.filters import fitting
from bessemer.placement.gangs.changes import cheapest
from bessemer.placement.gangs.ground import Ground
from bessemer.placement.gangs.rails import most
from bessemer.placement.sight import Sight

PLURALS = {"host": "hosts", "leaf": "leaves", "spine": "spines", "site": "sites"}


def refused(ground: Ground, gang: Gang, *, sight: Sight, reasons: tuple[Reason, ...]) -> Refusal:
    """What is said of a gang for which there is no way. ``reasons`` are those against hosts that fit no member."""
    there = int(sight.fleet.present[: sight.size].sum()) - sum(reason.hosts for reason in reasons)
    if there:
        words = _words(ground, gang)
        if ground.most(gang) >= gang.count:
            most_of_them = most(sight, gang, fits=fitting(sight))
            words = f"with room, but on the same rails for at most {most_of_them} of {gang.count} members"
        reasons = (Reason("ShortOfPlaces", there, words), *reasons)
    change = cheapest(sight, gang)
    return Refusal(reasons=reasons, cheapest=change.text if change is not None else "")


def _words(ground: Ground, gang: Gang) -> str:
    """What the hosts that fit some members have together."""
    room = ground.most(gang)
    if gang.segment:
        room, whole = room // gang.segment, f"{gang.count // gang.segment} blocks of {gang.segment} members"
    else:
        whole = f"{gang.count} members"
    if gang.per_host:
        whole += f", {gang.per_host} to a host"
    if not room and gang.segment:
        return f"with room, but for no block of {gang.segment} members under one {gang.segment_level}"
    if gang.policy == "preferred":
        return f"with room, but together for {room} of {whole}"
    if gang.level == "host":
        return f"with room, but each for at most {room} of {whole}"
    switches = int((ground.at(gang.level) > 0).sum())
    if switches == 1:
        return f"with room, but under one {gang.level} for {room} of {whole}"
    return f"with room, but under each of {switches} {PLURALS[gang.level]} for at most {room} of {whole}"
