"""What was billed beside what gateways sent to be settled, what clients saw, and what engines wrote down themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bessemer.gateway.exchange import UNTOLD_MAX
from tests.soak.plant import Asked, Plant, Settled

Made = Mapping[str, Sequence[tuple[int, int]]]


@dataclass(frozen=True, slots=True)
class Compared:
    """``whole`` answers are billed to the token what their engines made; ``parts`` were begun, and are billed no more
    than that; of ``unseen`` the client heard nothing. ``read`` and ``wrote`` are all tokens that were billed,
    ``cost`` what they cost; ``made`` those of whole answers by the engines' logs."""

    whole: int
    parts: int
    unseen: int
    read: int
    wrote: int
    made: int

    @property
    def cost(self) -> int:
        return self.read + 3 * self.wrote


def compare(plant: Plant, billed: Mapping[str, tuple[int, int, int]]) -> Compared:
    """That each whole answer is billed once what its engine made; one that is not whole at most once, no more than its
    engine made, and no less than its client saw but for what a gateway that is killed has not written down yet; and
    that each key is billed the sum of its requests, not a token more or less."""
    made, paid = plant.made(), [one for one in plant.sent() if one.ended != "unpaid"]
    by_request = {one.request: one for one in paid}
    assert len(by_request) == len(paid), "a request is billed twice"
    assert billed == _sums(paid), "the ledger has what gateways sent"
    whole, parts = [one for one in plant.asked if one.whole], [one for one in plant.asked if not one.whole]
    for one in whole:
        record = by_request.pop(one.request)
        assert (record.key, record.read, record.wrote) == (one.key, one.read, one.wrote), (record, one)
        assert (one.read, one.wrote) in made[one.id], ("the engine made something else", one, made.get(one.id))
    told = [one for one in parts if one.request in by_request]
    for one in told:
        _check_part(one, by_request.pop(one.request), made)
    lost = [one for one in parts if one.request and one.status == 200 and one not in told]
    assert all(one.wrote <= UNTOLD_MAX for one in lost), "what was sent is billed"
    _check_unseen(list(by_request.values()), parts, made)
    return Compared(
        len(whole),
        len(told),
        len(by_request),
        sum(one.read for one in paid),
        sum(one.wrote for one in paid),
        sum(one.read + one.wrote for one in whole),
    )


def _sums(paid: Sequence[Settled]) -> Mapping[str, tuple[int, int, int]]:
    found: dict[str, tuple[int, int, int]] = {}
    for one in paid:
        many, read, wrote = found.get(one.key, (0, 0, 0))
        found[one.key] = (many + 1, read + one.read, wrote + one.wrote)
    return found


def _check_part(one: Asked, record: Settled, made: Made) -> None:
    """Of one that was begun and is not whole by what its client saw."""
    assert record.key == one.key, (record, one)
    least = one.wrote - UNTOLD_MAX if record.ended == "killed" else one.wrote
    assert least <= record.wrote, ("more was sent than is billed", one, record)
    assert any(record.read <= read and record.wrote <= wrote for read, wrote in made[one.id]), (one, record)


def _check_unseen(records: Sequence[Settled], parts: Sequence[Asked], made: Made) -> None:
    """Of those whose clients never heard what they are called: each key's are no more than its engines made of its."""
    silent = [one for one in parts if not one.request and one.id in made]
    many, wrote = Counter(one.key for one in silent), Counter[str]()
    for one in silent:
        wrote[one.key] += max(tokens for _, tokens in made[one.id])
    billed, tokens = Counter(one.key for one in records), Counter[str]()
    for record in records:
        tokens[record.key] += record.wrote
    assert all(billed[key] <= many[key] and tokens[key] <= wrote[key] for key in billed), (
        billed - many,
        tokens - wrote,
    )
