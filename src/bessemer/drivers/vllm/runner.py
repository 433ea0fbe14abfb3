"""What runs behind the walls: vLLM's server, on a unix socket.

    python -I -S -B runner.py LIBRARIES < settings.json

It is bound into the confined process as a single file and imports nothing of ours. The settings come on standard input,
because the replica's secret is among them. vLLM prints the arguments that it is given, and asks for its key below some
paths alone: so it is given none, and `Gate` asks for it at every path but ``/health``.
"""

from __future__ import annotations

import hmac
import importlib
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

_App = Callable[..., Awaitable[None]]
_REFUSAL = {"error": {"message": "Invalid API Key", "type": "authentication_error", "code": 401}}


class Gate:
    """An ASGI application before another, which lets through what shows the secret. vLLM makes it, by its name."""

    secret = b""

    def __init__(self, app: _App) -> None:
        self._app = app

    async def __call__(self, scope: Any, *channels: Any) -> None:
        shown = dict(scope.get("headers", ())).get(b"authorization", b"")
        known = bool(self.secret) and hmac.compare_digest(shown, b"Bearer " + self.secret)
        if scope["type"] == "lifespan" or known or (scope["type"] == "http" and scope["path"] == "/health"):
            await self._app(scope, *channels)
            return
        send = channels[1]
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        body = json.dumps(_REFUSAL).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def main() -> int:
    """Serve until a signal ends it. Exit status 2: no settings came."""
    words = sys.stdin.buffer.read()
    if not words:
        return 2
    settings = json.loads(words)
    Gate.secret = settings["secret"].encode()
    sys.argv[1:] = [*settings["argv"], "--middleware", "__main__.Gate"]
    importlib.import_module("vllm.entrypoints.launchers.api_server.entry").main()
    return 0


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    sys.exit(main())
