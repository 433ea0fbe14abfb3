"""kopf: an operator with handlers for create, update, resume, delete and a timer, its finalizer, and its events."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.api.world import instance
from tests.clients.plane import PROJECT, Plane

pytestmark = pytest.mark.real

INSTANCES = f"/apis/bessemer.dev/v1alpha1/namespaces/{PROJECT}/instances"
MAPS, EVENTS = f"/api/v1/namespaces/{PROJECT}/configmaps", f"/api/v1/namespaces/{PROJECT}/events"
FINALIZER = "clients.example/instances"
SUCCEEDED = {"Handler 'made' succeeded.", "Handler 'switched/spec.running' succeeded."}
PROGRAM = Path(__file__).with_name("operator.py")


@contextmanager
def operating(config: Path, folder: Path) -> Iterator[Path]:
    """The operator, with the rights of whose kubeconfig it is; its log."""
    log = folder / "operator.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "kopf", "run", "-n", PROJECT, str(PROGRAM)],
            env={"KUBECONFIG": str(config), "HOME": str(folder), "PATH": "/usr/bin:/bin"},
            stdout=out,
            stderr=out,
        )
        try:
            yield log
        finally:
            process.terminate()
            assert process.wait(60) == 0, log.read_text()


def until(look: Callable[[], Any], holds: Callable[[Any], bool], log: Path) -> Any:
    """What is looked at, once it holds."""
    end = time.monotonic() + 60
    while not holds(found := look()):
        assert time.monotonic() < end, f"{found}\n{log.read_text()}"
        time.sleep(0.05)
    return found


def words(found: Any, part: str) -> Any:
    return found.get("metadata", {}).get(part, {})


def test_an_operator_lives_with_our_kinds(control: Plane, tmp_path: Path) -> None:
    mia = control.config_of("mia")

    def vm() -> Any:
        return control.call("GET", f"{INSTANCES}/vm")

    with operating(mia, tmp_path) as log:
        control.call("POST", INSTANCES, instance("vm"))
        made = until(vm, lambda one: words(one, "labels").get("seen") == "made", log)
        assert words(made, "annotations")["clients.example/flavor"] == "small"
        assert FINALIZER in made["metadata"]["finalizers"]
        control.call("PATCH", f"{INSTANCES}/vm", {"spec": {"running": False}}, media="application/merge-patch+json")
        until(vm, lambda one: words(one, "annotations").get("clients.example/running") == "True False", log)
        ticking = {"metadata": {"name": "log", "annotations": {"clients.example/tick": "0"}}}
        control.call("POST", MAPS, ticking)
        until(
            lambda: control.call("GET", f"{MAPS}/log"),
            lambda one: int(words(one, "annotations")["clients.example/tick"]) >= 2,
            log,
        )
        assert "resumed" not in words(vm(), "labels")
        about = f"{EVENTS}?fieldSelector=involvedObject.kind%3DInstance"
        until(lambda: {e["message"] for e in control.call("GET", about)["items"]}, SUCCEEDED.issubset, log)
    with operating(mia, tmp_path) as log:
        until(vm, lambda one: words(one, "labels").get("resumed") == "yes", log)
        control.call("DELETE", f"{INSTANCES}/vm")
        until(vm, lambda one: one["kind"] == "Status" and one["reason"] == "NotFound", log)
        told = until(lambda: control.call("GET", f"{EVENTS}?fieldSelector=reason%3DLetGo")["items"], bool, log)
        assert told[0]["message"] == "instance vm is let go"
    said = log.read_text()
    # What it does where its own last change crosses what it was just told, as with any api: it tries again.
    wrong = [line for line in said.splitlines() if "[ERROR" in line and "APIConflictError" not in line]
    assert not wrong, said
    assert "Failed to post an event" not in said, said
