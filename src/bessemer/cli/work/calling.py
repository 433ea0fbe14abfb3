"""How an endpoint is called, and how far it is with what was asked of it: the end of what `describe` says of one."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from bessemer.cli.work.rollouts import how_far, progressing
from bessemer.client import Ask, Client
from bessemer.kinds.inference.endpoint.prompts import logged_to

_KEY = "$BESSEMER_KEY"


async def gateway_of(client: Client) -> str:
    """The gateway's address, as far as its path /v1; "" where the server names none."""
    answer = orjson.loads(await client.transport.request(Ask(method="GET", path="/version")))
    return str(answer.get("gateway") or "").rstrip("/")


def described(body: Mapping[str, Any], gateway: str) -> str:
    """Who answers, which revision, why so many; then a command that calls it, where it is known of whom. Pure."""
    lines = [f"{title + ':':<11}{words}" for title, words in _told(body)]
    if gateway:
        lines += ["Call it:", *(f"  {line}" for line in call(body, gateway))]
    return "\n".join(lines)


def call(body: Mapping[str, Any], gateway: str) -> list[str]:
    """The lines of a command for a shell."""
    spec, place = body["spec"], body["metadata"]
    asked: dict[str, Any] = {"model": place["name"]}
    if spec.get("task") == "embed":
        path, asked["input"] = "embeddings", "Hello"
    else:
        path, asked["messages"] = "chat/completions", [{"role": "user", "content": "Hello"}]
    return [
        f"export BESSEMER_KEY=...  # of `bessemer key create NAME -n {place.get('namespace', '')}`",
        f'curl {shlex.quote(f"{gateway}/{path}")} -H "Authorization: Bearer {_KEY}" \\',
        f"  -H 'Content-Type: application/json' -d {shlex.quote(orjson.dumps(asked).decode())}",
    ]


def _told(body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    spec, status = body["spec"], body.get("status", {})
    backends = spec.get("backends") or []
    if backends:
        whole = sum(one.get("weight", 1) for one in backends)
        parts = (f"{one['endpoint']} {100 * one.get('weight', 1) / whole:.3g} %" for one in backends if whole)
        yield "Answered", f"by {', '.join(parts)}"
    elif external := spec.get("external"):
        yield "Answered", f"by {external['model']} at {external['url']}"
    else:
        yield from _replicas(body)
    if fallbacks := spec.get("fallbacks"):
        yield "Else", f"by {', '.join(fallbacks)}, where nobody answers"
    if scaling := status.get("scaling"):
        wanted = f"{scaling['wanted']} wanted since {scaling['since']}"
        yield "Scaling", "; ".join(one for one in (wanted, scaling["why"], scaling.get("reported", "")) if one)
    if adapters := spec.get("adapters"):
        own = body["metadata"]["name"]
        yield "Adapters", "as " + ", ".join(f"{own}:{name}" for name in adapters)
    if logged := spec.get("logging"):
        yield "Logged", f"to {logged_to(logged, status)}"


def _replicas(body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    status = body.get("status", {})
    revision = status.get("revision")
    known = next((one for one in status.get("revisions", ()) if one["revision"] == revision), None)
    if known is not None:
        yield "Revision", f"{revision}, number {known['number']}, since {known['since']}"
    _, words = how_far(body)
    said = progressing(body)
    trouble = f"; {said['reason']}: {said['message']}" if said.get("status") == "False" else ""
    yield "Rollout", words.partition(": ")[2] + trouble
