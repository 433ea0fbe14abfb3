"""What runs behind the walls: llama.cpp's server from ``xllamacpp``, on a unix socket.

    python -I -S -B runner.py LIBRARIES < settings.json

It is bound into the confined process as a single file and imports nothing of ours. The settings come on standard input,
because the replica's secret is among them: arguments and environment can be read, standard input only once.
"""

from __future__ import annotations

import json
import signal
import sys


def main() -> int:
    """Serve until a signal ends it. Exit status 2: no settings came."""
    sys.path.insert(0, sys.argv[1])
    words = sys.stdin.buffer.read()
    if not words:
        return 2
    settings = json.loads(words)
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.model_alias = {settings["alias"]}
    # A hostname that ends in .sock makes the server listen on a unix socket.
    params.hostnames = [settings["door"]]
    params.port = 0
    params.api_keys = [settings["secret"]]
    params.n_parallel = settings["slots"]
    params.n_ctx = settings["context_tokens"]
    params.cpuparams.n_threads = settings["threads"]
    params.cpuparams_batch.n_threads = settings["threads"]
    params.n_threads_http = settings["slots"] + 4
    params.cont_batching = True
    params.endpoint_metrics = True
    params.endpoint_slots = False
    params.endpoint_props = False
    server = xllamacpp.Server(params)
    sys.stdout.write(f"listening at {server.listening_address}\n")
    sys.stdout.flush()
    signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
