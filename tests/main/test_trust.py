"""How strangers come to trust an installation: as `up` says it, and so it works for the official client, unchanged."""

from __future__ import annotations

import asyncio
import io
import sys
from pathlib import Path

from rich.console import Console

from bessemer.api import server_tls
from bessemer.main import identities
from bessemer.main.addresses import addresses
from bessemer.main.settings import Paths, Settings
from bessemer.main.steps import Steps

ASK = """
import os, sys
import openai

def ask():
    with openai.OpenAI(base_url=sys.argv[1], api_key="k", max_retries=0) as ai:
        return [model.id for model in ai.models.list()]

print(ask())
del os.environ["SSL_CERT_FILE"]
try:
    ask()
except openai.APIConnectionError as error:
    print("a stranger:", "certificate verify failed" in str(error.__cause__))
"""


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A gateway's list of models."""
    await reader.readuntil(b"\r\n\r\n")
    body = b'{"object": "list", "data": [{"id": "smol", "object": "model", "created": 0, "owned_by": "acme"}]}'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    writer.write(head % len(body) + body)
    await writer.drain()
    writer.close()


async def test_the_official_client_needs_one_variable_and_nothing_else(tmp_path: Path) -> None:
    paths, settings = Paths(tmp_path), Settings()
    identities.prepare(paths, settings)
    tls = server_tls(identities.pair_of(paths, identities.GATEWAY))
    server = await asyncio.start_server(answer, settings.listen, 0, ssl=tls)
    async with server:
        url = identities.urls(settings.model_copy(update={"gateway_port": server.sockets[0].getsockname()[1]}))[
            "gateway"
        ]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-c", ASK, url),
            env={"SSL_CERT_FILE": str(paths.ca_certificate)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await asyncio.wait_for(process.communicate(), 120)
    assert said.decode().splitlines() == ["['smol']", "a stranger: True"]


def test_up_says_how_a_browser_and_a_client_come_to_trust_it(tmp_path: Path) -> None:
    said, paths = io.StringIO(), Paths(tmp_path / "a state")
    Steps(Console(file=said, width=40)).say(addresses(paths, Settings()))
    lines = said.getvalue().splitlines()
    assert f"  openai      export SSL_CERT_FILE='{paths.ca_certificate}'" in lines
    assert any("Firefox" in line and str(paths.ca_certificate) in line for line in lines)
    assert f"  CLI         export BESSEMER_STATE='{paths.state}'" in lines
    assert any("user add NAME --admin" in line and "user link NAME" in line for line in lines)
    assert any("certutil -A" in line and f"-i '{paths.ca_certificate}'" in line for line in lines)
