"""`Cuts`: into what devices are cut, by small numbers that arrays hold.

A fleet has few tables and few states of a device under each: one is judged once, and all devices that are so look it
up. A device of which nothing is in use is whole, and may be had whole, shared or cut: it is repartitioned only then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from bessemer.core.hosts import Device
from bessemer.core.slices import Partitioning, fits, taken, together
from bessemer.placement.numbering import Numbers
from bessemer.placement.vectors import NONE, WHOLE


class Cut(NamedTuple):
    """A state of a device: the number of its table, and what is in use (`core.slices`)."""

    table: int
    used: int


class Cuts:
    """Numbers of states. One that no device is in any more is given to the next newcomer."""

    def __init__(self) -> None:
        self._tables: Numbers[Partitioning] = Numbers()
        self._cuts: Numbers[Cut] = Numbers()
        self._rows: dict[int, Sequence[int]] = {}
        self._held: dict[int, list[int]] = {}
        self.asked: Counter[str] = Counter()
        """How many instances of each profile are held, of whatever device."""

    def __len__(self) -> int:
        return len(self._cuts.all)

    def begin(self, row: int, devices: Sequence[Device], *, tables: Mapping[str, Partitioning]) -> list[int]:
        """The numbers of a host's devices while nothing of them is in use; `NONE` for what cannot be cut."""
        models = {device.model for device in devices} & tables.keys()
        # A table is looked up once a host: it is large, and devices are many.
        numbers = {model: self._tables.take(tables[model]) for model in sorted(models)}
        self._rows[row] = tuple(numbers.values())
        found = (numbers.get(device.model) for device in devices)
        self._held[row] = [NONE if table is None else self._cuts.take(Cut(table, 0)) for table in found]
        return self._held[row]

    def end(self, row: int) -> None:
        """The host's devices are gone."""
        for number in self._held.pop(row, ()):
            if number != NONE:
                self._cuts.give_back(number)
        for table in self._rows.pop(row, ()):
            self._tables.give_back(table)

    def at(self, row: int, column: int) -> int:
        """The number of a device."""
        return self._held[row][column]

    def move(self, row: int, column: int, *, instances: Iterable[tuple[str, int]]) -> int:
        """The number of a device on which these stand now (profile, start)."""
        number = self.at(row, column)
        table = self._cuts.all[number].table
        moved = self._cuts.take(Cut(table, together(self._tables.all[table], sorted(set(instances)))))
        self._cuts.give_back(number)
        self._held[row] = [moved if at == column else other for at, other in enumerate(self._held[row])]
        return moved

    def open(self, row: int, column: int, *, instance: tuple[str, int], milli: int) -> bool:
        """Whether an instance (profile, start) can be had of a device of which ``milli`` thousandths are free."""
        number = self.at(row, column)
        profile = None if number == NONE else self.table(number).find(instance[0])
        if profile is None or instance[1] not in profile.starts or milli != (0 if self.used(number) else WHOLE):
            return False
        return fits(self.table(number), self.used(number), take=taken(profile, instance[1]))

    def copy(self) -> Cuts:
        """The same for itself, while no host is set in either: instances that come and go there change nothing here."""
        other = Cuts()
        other._tables, other._rows = self._tables, self._rows
        other._cuts, other._held, other.asked = self._cuts.copy(), dict(self._held), self.asked.copy()
        return other

    def count(self, profile: str, *, by: int) -> None:
        """So many more, or fewer, are held; "" is none."""
        if profile:
            self.asked[profile] += by

    def used(self, number: int) -> int:
        """What is in use of a device in that state."""
        return self._cuts.all[number].used

    def table(self, number: int) -> Partitioning:
        """Its table."""
        return self._tables.all[self._cuts.all[number].table]

    def names(self) -> Sequence[str]:
        """Every profile that there is somewhere, those with most memory first."""
        sizes = {profile.name: table.milli(profile) for table in self._tables.all for profile in table.profiles}
        return sorted(sizes, key=lambda name: (-sizes[name], name))

    def weights(self) -> Mapping[str, float]:
        """How much each profile is asked for, 1 in the mean: what is held, and one more of each."""
        names = self.names()
        total = sum(self.asked[name] + 1 for name in names)
        return {name: len(names) * (self.asked[name] + 1) / total for name in names}
