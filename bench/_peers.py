"""Proxies that stand beside the gateway: how each is started, and what each came to where it is not there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from _serve import ENDPOINT
from bessemer.main.settings import Settings, with_ports

KEPT: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "nginx": {"request": 15, "added": 0.055, "event": 19},
        "envoy": {"request": 34, "added": 0.087, "event": 29},
        "litellm": {"request": 12_000, "added": 11.7, "event": 930},
    }
)
"""nginx 1.22, Envoy 1.40, LiteLLM 1.106.2 with one worker: microseconds of CPU for a request and an event of a stream,
milliseconds added to a request, on 2 cores (AMD EPYC) by the same method."""

LITELLM_KEY = "sk-9f3b7c2e51a84d06b8e7f1c2d3a4b5c6e7f80912"

NGINX = """
user root; worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
events {{ worker_connections 8192; }}
http {{
  access_log off; client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5; keepalive_requests 10000000;
  upstream engine {{ server unix:{socket}; keepalive 64; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://engine; proxy_buffering off; proxy_http_version 1.1; proxy_set_header Connection "";
    }}
  }}
}}
"""

ENVOY = """
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          route_config:
            virtual_hosts:
            - {{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: engine, timeout: 0s}}}}]}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: engine
    connect_timeout: 5s
    load_assignment:
      cluster_name: engine
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{pipe: {{path: {socket}}}}}}}}}]}}]
"""


@dataclass(frozen=True, slots=True)
class Started:
    """Where the engine is, and where peers may be."""

    folder: Path
    socket: str
    port: int
    peer: Path | None


@dataclass(frozen=True, slots=True)
class Peer:
    """A proxy that is there: its command, and the port that it will listen at."""

    name: str
    argv: list[str]
    port: int


def peers(beside: Started) -> Iterator[Peer]:
    """Those that are there."""
    free = with_ports(Settings(api_port=0, portal_port=0, gateway_port=0), find_free=True)
    ports = iter((free.api_port, free.portal_port, free.gateway_port))
    folder = beside.folder
    if found := _find("nginx", beside.peer):
        port, config = next(ports), folder / "nginx.conf"
        config.write_text(NGINX.format(folder=folder, socket=beside.socket, port=port))
        yield Peer("nginx", [found, "-c", str(config), "-p", str(folder)], port)
    if found := _find("envoy", beside.peer):
        port, config = next(ports), folder / "envoy.yaml"
        config.write_text(ENVOY.format(socket=beside.socket, port=port))
        yield Peer(
            "envoy", [found, "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "-l", "error"], port
        )
    if found := _find("litellm", beside.peer):
        port, config = next(ports), folder / "litellm.yaml"
        engine = {"model": f"openai/{ENDPOINT}", "api_base": f"http://127.0.0.1:{beside.port}/v1", "api_key": "none"}
        said = {
            "model_list": [{"model_name": ENDPOINT, "litellm_params": engine}],
            "general_settings": {"master_key": LITELLM_KEY},
        }
        config.write_text(json.dumps(said))
        argv = ["env", "LITELLM_LOCAL_MODEL_COST_MAP=True", "NO_DOCS=True", found, "--config", str(config)]
        where = ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1", "--telemetry", "False"]
        yield Peer("litellm", [*argv, *where], port)


def _find(name: str, peer: Path | None) -> str | None:
    of_peer = f"{peer}/bin:{peer}/sbin:" if peer is not None else ""
    return shutil.which(name, path=f"{of_peer}/usr/sbin:/usr/bin:/usr/local/bin:/usr/local/sbin")
