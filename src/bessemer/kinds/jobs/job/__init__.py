"""Job: a gang of processes, run to completion (see `spec`): `control` and `place` are its control side, `host` its
members' host side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bessemer.core.resource import ALL, READ, Column, Kind
from bessemer.kinds.context import Context
from bessemer.kinds.fields import at
from bessemer.kinds.jobs.job.control import DEADLINES, finalize, reconcile
from bessemer.kinds.jobs.job.host import JobHost
from bessemer.kinds.jobs.job.spec import Job, JobIntent, JobSpec, JobStatus, validate
from bessemer.kinds.workload import wake_by_claim, wake_by_host, wake_by_part

__all__ = ["KIND", "Job", "JobHost", "JobIntent", "JobSpec", "JobStatus"]


def _running(body: Mapping[str, Any]) -> str:
    phases = at("status", "members", default={})(body)
    return f"{phases.get('Running', 0) + phases.get('Stopped', 0)}/{at('spec', 'members', default=1)(body)}"


KIND: Kind[Context, Job] = Kind(
    resource=Job,
    plural="jobs",
    namespaced=True,
    short_names=("jb",),
    rights={"admin": ALL, "auditor": READ, "tenant-admin": ALL, "member": ALL, "reader": READ},
    below={"log": {"admin": ("get",), "tenant-admin": ("get",), "member": ("get",), "reader": ("get",)}},
    columns=(
        Column(name="Phase", value=at("status", "phase")),
        Column(name="Members", value=_running, description="Members that run or have ended well, of all."),
        Column(name="Flavor", value=at("spec", "flavor")),
        Column(name="Hosts", value=lambda body: len(at("status", "hosts", default=())(body)), type="integer"),
        Column(name="Failures", value=at("status", "failures", default=0), type="integer"),
        Column(name="Leaves", value=at("status", "leaves", default=0), type="integer", wide=True),
        Column(name="Fake", value=at("status", "fake", default=False), type="boolean"),
        Column(name="Message", value=at("status", "message"), wide=True),
    ),
    validate=validate,
    reconcile=reconcile,
    finalize=finalize,
    wakes={
        "Claim": wake_by_claim("Job"),
        "Host": wake_by_host("Job"),
        "Flavor": wake_by_part("Job"),
    },
    deadlines=DEADLINES,
)
