"""Small fleets on which the best placement is known: an integer program says how many devices could have been used.

The program knows all that comes and may refuse any of it; a policy sees one request at a time and refuses nothing that
fits. So the gap is that of placing without knowing what comes, not of the rule alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import highspy
import numpy as np

from bessemer.core.asking import Request
from bessemer.placement import HostFacts
from bessemer.placement.replay import Trace, openb
from bessemer.placement.replay.desk import OWN
from bessemer.placement.replay.jobs import FillJob
from bessemer.placement.replay.run import fill

MODELS = (("G2", 4, 48, 192), ("T4", 2, 64, 256), ("P100", 2, 16, 64), ("V100", 4, 32, 128))
"""Model, devices, cores, GiB of a host."""

WANTED = ((1, 1000, 8), (1, 1000, 12), (1, 810, 3), (1, 470, 6), (1, 320, 4), (1, 190, 2), (2, 1000, 16), (4, 1000, 40))
"""Devices, thousandths of each, cores."""

OFTEN = (0.3, 0.15, 0.15, 0.12, 0.08, 0.08, 0.07, 0.05)


def world(seed: int, *, hosts: int = 3, ratio: float = 1.3) -> Trace:
    """A few hosts, and requests that want ``ratio`` times their devices."""
    dice = np.random.default_rng((seed, 5))
    kinds = [MODELS[k] for k in dice.integers(len(MODELS), size=hosts)]
    nodes = [f"h{n}.{seed},{cores}000,{gib << 10},{gpus},{m}" for n, (m, gpus, cores, gib) in enumerate(kinds)]
    most, wanted, pods = ratio * 1000 * sum(kind[1] for kind in kinds), 0, []
    while wanted < most:
        count, milli, cores = WANTED[int(dice.choice(len(WANTED), p=OFTEN))]
        wanted += count * milli
        pods.append(f"p{len(pods)},{cores}000,{4096 * count},{count},{milli}")
    return Trace(
        tuple(openb.read_hosts([",".join(openb.NODE_COLUMNS), *nodes])),
        tuple(openb.read_requests([",".join(openb.POD_COLUMNS), *pods])),
    )


def filled(trace: Trace, policy: str = OWN, *, seed: int = 0) -> int:
    """Thousandths of devices that are held when all have come, in their order."""
    job = FillJob(trace=trace, seed=seed, policy=policy)
    order = np.arange(len(trace.requests))
    found = fill(job.desk(), trace.requests, arrivals=order, capacity_milli=trace.capacity_milli, levels=[1.0])
    return trace.capacity_milli - found.unallocated_milli


def reached(policy: str, *, worlds: int) -> float:
    """What part a policy reaches of what could have been held, over so many worlds."""
    traces = [world(seed) for seed in range(worlds)]
    held = sum(filled(trace, policy, seed=seed) for seed, trace in enumerate(traces))
    return held / sum(optimum(trace.hosts, trace.requests) for trace in traces)


def optimum(hosts: Sequence[HostFacts], requests: Sequence[Request]) -> int:
    """Most thousandths of devices that can be held at once. Raises RuntimeError where the program has no proven end."""
    model = highspy.Highs()
    model.setOptionValue("output_flag", False)
    model.setOptionValue("threads", 1)
    model.setOptionValue("time_limit", 60.0)
    once: list[list[highspy.highs_var]] = [[] for _ in requests]
    for host in hosts:
        _host(model, host, requests, once=once)
    for columns in once:
        model.addConstr(sum(columns) <= 1)
    worth = [request.device_count * request.device_milli for request in requests]
    model.maximize(sum(milli * column for milli, columns in zip(worth, once, strict=True) for column in columns))
    if model.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        raise RuntimeError(f"no optimum: {model.modelStatusToString(model.getModelStatus())}")
    return round(model.getObjectiveValue())


def _host(
    model: highspy.Highs, host: HostFacts, requests: Sequence[Request], *, once: list[list[highspy.highs_var]]
) -> None:
    """What one host may hold: a column for each whole request, and for a share one a device."""
    found = host.inventory
    whole = [model.addBinary() for _ in found.devices]
    lengths = [1000 * column for column in whole]
    cores, memory, devices = [], [], []
    for n, request in enumerate(requests):
        shared = request.device_count == 1 and request.device_milli < 1000
        mine = [model.addBinary() for _ in (whole if shared else [0])]
        once[n] += mine
        cores += [request.milli_cores // 1000 * column for column in mine]
        memory += [(request.memory_bytes >> 30) * column for column in mine]
        if shared:
            lengths = [length + request.device_milli * column for length, column in zip(lengths, mine, strict=True)]
        else:
            devices += [request.device_count * column for column in mine]
    for length in lengths:
        model.addConstr(length <= 1000)
    model.addConstr(sum(devices) - sum(whole) <= 0)
    model.addConstr(sum(cores) <= found.threads)
    model.addConstr(sum(memory) <= found.memory_bytes >> 30)
