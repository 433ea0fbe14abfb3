"""An operator in kopf, run by `test_kopf` as a program: it notes on each Instance what it has seen of it.

It has no other words with the test than through the api, as any operator.
"""

from __future__ import annotations

from typing import Any

import kopf

GROUP, VERSION = "bessemer.dev", "v1alpha1"
"""Both are named: of a group alone kopf looks at the preferred version, which need not have every kind."""


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    """The status of our kinds is the platform's: what kopf remembers, it remembers in annotations."""
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage()
    settings.persistence.finalizer = "clients.example/instances"
    settings.posting.loggers = True
    settings.peering.standalone = True


@kopf.on.create(GROUP, VERSION, "instances")
def made(spec: kopf.Spec, patch: kopf.Patch, **_: Any) -> None:
    patch.metadata.labels["seen"] = "made"
    patch.metadata.annotations["clients.example/flavor"] = spec["flavor"]


@kopf.on.update(GROUP, VERSION, "instances", field="spec.running")
def switched(old: bool, new: bool, patch: kopf.Patch, **_: Any) -> None:
    patch.metadata.annotations["clients.example/running"] = f"{old} {new}"


@kopf.on.resume(GROUP, VERSION, "instances")
def resumed(patch: kopf.Patch, **_: Any) -> None:
    patch.metadata.labels["resumed"] = "yes"


@kopf.timer("configmaps", interval=0.2, annotations={"clients.example/tick": kopf.PRESENT})
def tick(annotations: kopf.Annotations, patch: kopf.Patch, **_: Any) -> None:
    patch.metadata.annotations["clients.example/tick"] = str(int(annotations["clients.example/tick"]) + 1)


@kopf.on.delete(GROUP, VERSION, "instances")
def gone(body: kopf.Body, name: str, **_: Any) -> None:
    kopf.info(body, reason="LetGo", message=f"instance {name} is let go")
