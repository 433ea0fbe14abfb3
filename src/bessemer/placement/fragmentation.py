"""How much of what is free is of use for what is asked for, model by model.

The measure is FGD's (Weng et al., "Beware of Fragmentation", USENIX ATC 2023, §4.1): of each shape that is asked for,
the free devices of a host that it could not use, whole ones too where the host has too few of them, or too few cores or
too little memory for one; weighted by how often it is asked for. Other than there, a model is held against the shapes
that would take it, shapes that want no device are left out, and memory counts: this is a figure for people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bessemer.placement.arrays import Arrays
from bessemer.placement.demand.mix import MOST, Floats, Mix
from bessemer.placement.shape import Shape
from bessemer.placement.states import States
from bessemer.placement.vectors import NONE, WHOLE, Bools


@dataclass(frozen=True, slots=True)
class Stand:
    """A fleet at one moment, apart from it: ``states`` of its hosts [B], ``there`` and ``sound`` [B, D] devices;
    ``open`` [B] are hosts on which something new may land, ``fake`` [B] those that pretend."""

    states: States
    there: Bools
    sound: Bools
    open: Bools
    fake: Bools


def stand_of(fleet: Arrays) -> Stand:
    """As it is now."""
    rows = np.flatnonzero(fleet.present[: fleet.size])
    states = fleet.states(rows)
    return Stand(
        states=replace(states, models=tuple(states.models)),
        there=fleet.device_model[rows] != NONE,
        sound=fleet.device_sound[rows],
        open=fleet.reachable[rows] & fleet.schedulable[rows],
        fake=fleet.fake[rows],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUse:
    """The GPUs of one model. ``milli`` are thousandths of devices: ``free_milli`` of sound ones on hosts that take
    something new, ``closed_milli`` free on hosts that do not; of what is free, ``useless_milli`` serves nothing that is
    asked for (expected), ``stranded_milli`` of that for want of cores or memory alone. None where nobody knows what is
    asked for. ``whole`` devices are free entirely, ``largest`` of them on one host; ``shape`` is the largest of those
    that are asked for that still fits somewhere, None where none does."""

    model: str
    fake: bool
    devices: int
    unsound: int
    free_milli: int
    closed_milli: int
    whole: int
    largest: int
    useless_milli: float | None
    stranded_milli: float | None
    shape: Shape | None


def fragmentation(stand: Stand, mix: Mix) -> Sequence[ModelUse]:
    """By model, those of fake hosts apart; ``mix`` is what is asked for, of which the `MOST` most frequent shapes
    count."""
    asked = [(s, n) for s, n in zip(mix.shapes, mix.counts, strict=True) if s.device_count][:MOST]
    models = stand.states.models
    found = []
    for fake in (False, True):
        hosts = stand.fake == fake
        uses = [_Uses.of(shape, stand, hosts=hosts & stand.open) for shape, _ in asked]
        weights = np.array([count for _, count in asked], dtype=np.float64)
        for number in np.unique(stand.states.model[hosts][stand.there[hosts]]):
            own = stand.there & (stand.states.model == number) & hosts[:, None]
            found.append(_use(models[number], own, stand=stand, uses=uses, weights=weights))
    return sorted(found, key=lambda use: (use.fake, use.model))


@dataclass(frozen=True, slots=True)
class _Uses:
    """What one shape could use, [B, D] thousandths; and what it could, had hosts cores and memory enough."""

    shape: Shape
    usable: Floats
    with_more: Floats

    @classmethod
    def of(cls, shape: Shape, stand: Stand, *, hosts: Bools) -> _Uses:
        states = stand.states
        will_do = np.array([shape.serves(name) for name in [*states.models, ""]], dtype=np.bool_)
        fit = will_do[states.model] & stand.sound & (states.milli >= shape.device_milli) & hosts[:, None]
        enough = fit.sum(axis=1) >= shape.device_count
        room = (states.cores >= shape.milli_cores) & (states.memory >= shape.memory_bytes)
        free = np.where(fit & enough[:, None], states.milli, 0).astype(np.float64)
        return cls(shape, np.where(room[:, None], free, 0.0), free)


def _use(model: str, own: Bools, *, stand: Stand, uses: Sequence[_Uses], weights: Floats) -> ModelUse:
    """``own`` [B, D] are the devices of the model, of hosts of one sort."""
    states, sound = stand.states, own & stand.sound
    open_ = sound & stand.open[:, None]
    free = int(states.milli[open_].sum())
    whole = (open_ & (states.milli >= WHOLE)).sum(axis=1)
    useless = stranded = None
    if len(weights):
        takes = np.array([use.shape.serves(model) for use in uses], dtype=np.bool_)
        share = np.where(takes, weights, 0.0) / (weights[takes].sum() or 1.0)
        usable = float(share @ np.array([use.usable[own].sum() for use in uses]))
        with_more = float(share @ np.array([use.with_more[own].sum() for use in uses]))
        # Shares add up to one but for the last bit: of nothing there is never less.
        useless, stranded = max(0.0, free - usable), max(0.0, with_more - usable)
    fitting = [use.shape for use in uses if use.usable[own].any()]
    return ModelUse(
        model=model,
        fake=bool(stand.fake[own.any(axis=1)].any()),
        devices=int(sound.sum()),
        unsound=int(own.sum() - sound.sum()),
        free_milli=free,
        closed_milli=int(states.milli[sound].sum()) - free,
        whole=int(whole.sum()),
        largest=int(whole.max(initial=0)),
        useless_milli=useless,
        stranded_milli=stranded,
        shape=max(fitting, key=_size, default=None),
    )


def _size(shape: Shape) -> tuple[int, int, int]:
    return (shape.milli, shape.milli_cores, shape.memory_bytes)
