"""One request and the fleet as it sees it: the arrays as they are, or as they would be after a change that is tried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, reduce

import numpy as np

from bessemer.core.asking import Request
from bessemer.core.hosts import DEVICES_MAX, NODES_MAX
from bessemer.placement.arrays import Arrays, Glance
from bessemer.placement.cells import arranged
from bessemer.placement.partitions import free_partitions, wants_partition
from bessemer.placement.room import OfSort, Spare
from bessemer.placement.slices.instances import Instances
from bessemer.placement.vectors import NONE, Bools, Ints, Smalls, thousandths

_BITS = max(DEVICES_MAX, NODES_MAX).bit_length()
"""Of the index of a node, a switch or a domain within its host."""


@dataclass(frozen=True, slots=True)
class Groups:
    """[groups]: the row of each, its index in the first thing that its devices have in common, and their count."""

    rows: Ints
    leads: Ints
    counts: Ints


@dataclass(frozen=True)
class Sight(OfSort):
    """Rows ``[:size]`` of what may be changed in thought; the rest is read from ``fleet``. What is derived is kept."""

    fleet: Arrays
    request: Request
    reachable: Bools
    schedulable: Bools
    cores_free: Ints
    memory_free: Ints
    device_milli: Ints
    drained: bool = False
    """Whether nothing is in use of what can be cut."""
    changed_spare: Spare | None = None

    @classmethod
    def of(cls, fleet: Arrays, request: Request) -> Sight:
        n = fleet.size
        return cls(
            fleet,
            request,
            fleet.reachable[:n],
            fleet.schedulable[:n],
            fleet.cores_free[:n],
            fleet.memory_free[:n],
            fleet.device_milli[:n],
        )

    @cached_property
    def wanted(self) -> Bools:
        """[hosts, devices]: sound devices of the models asked for, free or not."""
        sound = self.fleet.device_sound[: self.size]
        if self.request.device_profile:
            sound = sound & self.instances.offered
        if not self.request.device_models:
            return sound
        device_model = self.fleet.device_model[: self.size]
        # What is not in the fleet is found as `NONE`, and so has a device that is none: but that is not sound.
        of_a_model = (device_model == self.fleet.models.find(model) for model in self.request.device_models)
        chosen: Bools = sound & reduce(np.logical_or, of_a_model)
        return chosen

    @cached_property
    def each(self) -> Ints:
        """[hosts, devices]: thousandths that are asked for of each; more than `WHOLE` where it has not the memory."""
        if self.request.device_bytes:
            return thousandths(self.fleet.device_memory[: self.size], self.request.device_bytes)
        each: Ints = np.broadcast_to(np.int64(self.request.device_milli), self.device_milli.shape)
        return each

    @cached_property
    def usable(self) -> Bools:
        """[hosts, devices]: those of them with as much free as is asked for of each."""
        enough = self.device_milli >= (self.each if self.request.device_bytes else self.request.device_milli)
        chosen: Bools = self.wanted & (self.instances.fits if self.request.device_profile else enough)
        return chosen

    @cached_property
    def instances(self) -> Instances:
        """Where an instance may be made, of what is asked for."""
        n = self.size
        return Instances.of(
            self.fleet.cuts,
            self.fleet.device_cut[:n],
            milli=self.device_milli,
            name=self.request.device_profile,
            drained=self.drained,
        )

    @cached_property
    def usable_count(self) -> Ints:
        """[hosts]: how many those are."""
        total: Ints = self.usable.sum(axis=1)
        return total

    @cached_property
    def able(self) -> Bools:
        """[hosts, devices]: of those, where one is asked for, which will do: what must be the same must be known."""
        able = self.usable
        if self.request.same_switch:
            able = able & (self.fleet.device_switch[: self.size] != NONE)
        if self.request.same_nvlink:
            able = able & ((self.fleet.device_nvlink[: self.size] != NONE) | self.offering[:, None])
        return able

    @cached_property
    def offering(self) -> Bools:
        """[hosts]: who offers NVLink partitions, where the request wants one."""
        if not wants_partition(self.request):
            return ~self.everyone
        offers: Bools = self.fleet.offer[: self.size] != NONE
        return offers

    @cached_property
    def partitions(self) -> Partitions:
        """The free partitions of as many devices as are wanted."""
        among = self.usable & self.offering[:, None]
        rows, columns = free_partitions(self.fleet, among, count=self.request.device_count)
        milli = np.zeros((len(rows), self.device_milli.shape[1]), dtype=np.int64)
        here = rows[:, None], columns
        milli[np.arange(len(rows))[:, None], columns] = self.device_milli[here]
        apart = replace(
            self,
            fleet=Glance(self.fleet, rows),
            request=replace(self.request, same_nvlink=False),
            reachable=self.reachable[rows],
            schedulable=self.schedulable[rows],
            cores_free=self.cores_free[rows],
            memory_free=self.memory_free[rows],
            device_milli=milli,
            changed_spare=self.spare.at(rows),
        )
        return Partitions(rows, columns, apart)

    @cached_property
    def able_near(self) -> Bools:
        """[hosts, devices]: of those, which have the cores and the memory on their NUMA node."""
        devices = np.flatnonzero(self.able)
        node = self.fleet.device_node[: self.size].ravel()[devices]
        there = self.node_room[devices // self.able.shape[1], node] & (node != NONE)
        near = np.zeros(self.able.size, dtype=np.bool_)
        near[devices[there]] = True
        return near.reshape(self.able.shape)

    @cached_property
    def close(self) -> Bools:
        """[hosts]: whether cores, memory and devices of one NUMA node suffice, devices as near as they must be."""
        return self.together(numa=True)

    @cached_property
    def node_room(self) -> Bools:
        """[hosts, nodes]: whether one NUMA node has all the cores and memory."""
        ask = self.request
        room: Bools = (self.cores_here >= ask.milli_cores) & (self.memory_here >= ask.memory_bytes)
        return room

    def together(self, *, numa: bool) -> Bools:
        """[hosts]: whether devices and companions lie as near to one another as they must; with ``numa`` see
        `close`."""
        if not self.request.companions:
            return self.devices_together(numa=numa)
        room = self.node_room if numa else None
        fits = arranged(self.fleet, self.request, usable=self.usable, companions=self.companions, room=room)
        return _offered(self, fits, judged=lambda apart: apart.together(numa=numa))

    def devices_together(self, *, numa: bool) -> Bools:
        """[hosts]: likewise, whatever is to lie beside them."""
        fleet, ask = self.fleet, self.request
        if not ask.device_count:
            somewhere: Bools = np.logical_or.reduce(self.node_room, axis=1)
            return somewhere if numa else self.everyone
        if ask.device_count == 1:
            anywhere: Bools = np.logical_or.reduce(self.able_near if numa else self.able, axis=1)
            return anywhere
        near = [fleet.device_node] if numa else []
        near += [fleet.device_switch] if ask.same_switch else []
        near += [fleet.device_nvlink] if ask.same_nvlink else []
        if not near:
            all_there: Bools = self.usable_count >= ask.device_count
            return all_there
        groups = self.groups(*near)
        enough = groups.counts >= ask.device_count
        if numa:
            enough &= self.node_room[groups.rows, groups.leads]
        fits: Bools = np.zeros(self.size, dtype=np.bool_)
        fits[groups.rows[enough]] = True
        return _offered(self, fits, judged=lambda apart: apart.devices_together(numa=numa))

    def groups(self, *near: Smalls) -> Groups:
        """The usable devices of each host by what they have in common: ``near`` are [hosts, devices], and what is
        `NONE` in one of them is in no group. A device is looked at once, however wide the widest host is."""
        codes: Ints = np.repeat(np.arange(self.size), self.usable_count)
        known = np.ones(len(codes), dtype=np.bool_)
        for indices in near:
            values = indices[: self.size][self.usable]
            known &= values != NONE
            codes = (codes << _BITS) + values
        # They come by host, and nearly in order: what a stable sort makes use of, and `np.unique` does not.
        codes = np.sort(codes[known], kind="stable")
        first = np.flatnonzero(np.append(True, codes[1:] != codes[:-1])[: len(codes)])
        counts = np.diff(first, append=len(codes))
        codes = codes[first] >> _BITS * (len(near) - 1)
        return Groups(codes >> _BITS, codes & (1 << _BITS) - 1, counts)


@dataclass(frozen=True, slots=True, eq=False)
class Partitions:
    """Free NVLink partitions: of each its row and its devices, [n] and [n, devices wanted] by column; and ``apart``
    [n], each as a host for itself that has its own devices and the cores, memory and companions of its host."""

    rows: Ints
    columns: Ints
    apart: Sight


def _offered(sight: Sight, fits: Bools, *, judged: Callable[[Sight], Bools]) -> Bools:
    """``fits`` [hosts]; but of those who offer partitions the ones where a free one is ``judged`` to fit."""
    if not sight.offering.any():
        return fits
    fits = fits & ~sight.offering
    fits[sight.partitions.rows[judged(sight.partitions.apart)]] = True
    return fits
