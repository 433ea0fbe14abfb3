"""How a device is cut into instances: what an agent says of a model, and what of one device is in use.

A device has slices of memory in a row and slices of compute beside them. A profile is a size that is offered: so many
slices of memory side by side, which may begin at certain ones only, and so many of compute. Instances of all profiles
may stand together where none takes what another has; the hardware moves none of them while it runs.

What is in use of a device is one whole number, so that arrays and databases hold it, and a sum is as good as a set: a
bit for each slice of memory, one for the engines that there are once, then the slices of compute, then the instances.
No vendor is known here: tables of known devices stand with whoever makes inventories (``drivers/inspect/tables``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Self

from pydantic import Field, model_validator

from bessemer.core.resource import ApiModel

MEMORY_MAX, COMPUTE_MAX, INSTANCES_MAX, PROFILES_MAX = 32, 512, 128, 32
"""Of one device: larger than any known."""

_ENGINES = 1 << MEMORY_MAX
_COMPUTE = 33
_COUNT = 44
_AREA = (_ENGINES << 1) - 1
WHOLE_MILLI = 1000

Slice = Annotated[int, Field(ge=0, lt=MEMORY_MAX)]
Name = Annotated[str, Field(min_length=1, max_length=63)]


class Profile(ApiModel):
    """A size of instance."""

    name: Name = Field(description="As flavors name it.")
    memory: int = Field(ge=1, le=MEMORY_MAX, description="Slices of memory, side by side.")
    compute: int = Field(ge=0, le=COMPUTE_MAX, description="Slices of compute.")
    starts: tuple[Slice, ...] = Field(
        min_length=1, max_length=MEMORY_MAX, description="The slices of memory with which it may begin."
    )
    engines: bool = Field(False, description="Whether it takes the engines that a device has once (video, images).")


class Partitioning(ApiModel):
    """Into what devices of a model can be cut."""

    memory: int = Field(ge=1, le=MEMORY_MAX, description="Slices of memory.")
    compute: int = Field(ge=1, le=COMPUTE_MAX, description="Slices of compute.")
    instances: int = Field(ge=1, le=INSTANCES_MAX, description="Instances at most.")
    profiles: tuple[Profile, ...] = Field(
        min_length=1, max_length=PROFILES_MAX, description="The sizes that there are."
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        names = [profile.name for profile in self.profiles]
        if len(set(names)) != len(names):
            raise ValueError("two profiles of one name")
        for profile in self.profiles:
            if max(profile.starts) + profile.memory > self.memory or profile.compute > self.compute:
                raise ValueError(f"profile {profile.name} is larger than the device")
        return self

    def find(self, name: str) -> Profile | None:
        """The profile of that name."""
        return next((profile for profile in self.profiles if profile.name == name), None)

    def milli(self, profile: Profile) -> int:
        """What an instance is of the device, in thousandths: by its memory, for slices of memory are what nobody else
        has then. All that stand on a device are 1000 together at most."""
        return max(1, WHOLE_MILLI * profile.memory // self.memory)

    def milli_of(self, name: str) -> int:
        """The same of the profile of that name; 0 where there is none."""
        profile = self.find(name)
        return 0 if profile is None else self.milli(profile)

    @property
    def full(self) -> int:
        """In use as if all of it were."""
        return (1 << self.memory) - 1 | _ENGINES | self.compute << _COMPUTE | self.instances << _COUNT


def taken(profile: Profile, start: int) -> int:
    """What an instance takes."""
    area = ((1 << profile.memory) - 1) << start | (_ENGINES if profile.engines else 0)
    return area | profile.compute << _COMPUTE | 1 << _COUNT


def room(table: Partitioning, used: int, *, profile: Profile) -> bool:
    """Whether as much is free as the profile takes, wherever it lies."""
    area = (1 << table.memory) - 1
    free = (~used & area).bit_count()
    return free >= profile.memory and fits(table, used & ~area, take=taken(profile, 0))


def fits(table: Partitioning, used: int, *, take: int) -> bool:
    """Whether what `taken` says can be had beside what is in ``used``."""
    both = used + take
    compute = (both >> _COMPUTE) & ((1 << _COUNT - _COMPUTE) - 1)
    return not used & take & _AREA and compute <= table.compute and both >> _COUNT <= table.instances


def starts(table: Partitioning, used: int, *, profile: Profile) -> Sequence[int]:
    """Where an instance may begin now."""
    return [start for start in profile.starts if fits(table, used, take=taken(profile, start))]


def standing(table: Partitioning, instances: Iterable[tuple[str, int]]) -> int | None:
    """What is in use by instances (profile, start); None where they do not go together, or one is none that such a
    device can have."""
    used = 0
    for name, start in instances:
        profile = table.find(name)
        if profile is None or start not in profile.starts or not fits(table, used, take=taken(profile, start)):
            return None
        used += taken(profile, start)
    return used


def together(table: Partitioning, instances: Iterable[tuple[str, int]]) -> int:
    """The same, and all of it where they do not go together: who reads may be behind who writes, and then nothing is
    given."""
    used = standing(table, instances)
    return table.full if used is None else used
