"""What the page of an endpoint tells people to run runs as it is shown: shell, curl and the openai client."""

from __future__ import annotations

import asyncio
import html
import os
import re
import sys
from pathlib import Path

import pytest

from tests.api.kubectl import kubectl
from tests.api.world import PASSWORD
from tests.portal.test_guard import caller
from tests.portal.town import ANSWER, CHAT, LAB, Town

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real]

SRC = Path(__file__).parents[2] / "src"


async def shown(t: Town) -> dict[str, str]:
    """The texts of the page, by the id of their box."""
    async with caller(t, "ada") as ada:
        text = (await ada.get(f"/in/{LAB}/endpoints/{CHAT.name}")).text
    boxes = re.findall(r'<pre[^>]* id="([\w-]+)"[^>]*>(.*?)</pre>', text, re.DOTALL)
    return {name: html.unescape(code) for name, code in boxes}


async def told(t: Town, folder: Path, script: str) -> str:
    """What a shell prints that knows the command line and Python, and is told nothing but the script."""
    login = await t.w.call("POST", "/login", {"user": "ada", "password": PASSWORD, "purpose": "cli"})
    command = folder / "bessemer"
    config = kubectl(t.api, token=login.json["token"]).config
    command.write_text(f'#!/bin/sh\nPYTHONPATH={SRC} exec {sys.executable} -m bessemer --kubeconfig {config} "$@"\n')
    command.chmod(0o755)
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-euc",
        script,
        env={"PATH": f"{folder}:{Path(sys.executable).parent}:{os.defpath}", "HOME": str(folder)},
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


async def test_both_texts_run_after_the_lines_above_them(t: Town, tmp_path: Path) -> None:
    texts = await shown(t)
    (tmp_path / "call.py").write_text(texts["call-text-2"])
    script = f"{texts['call-shell']}\n{texts['call-text-1']}\necho ===\npython call.py\n"
    assert texts["call-shell"].startswith("export SSL_CERT_FILE=/")
    events, _, words = (await told(t, tmp_path, script)).partition("===\n")
    assert re.findall(r'"content":"([^"]*) "', events) == ANSWER.split(" ")
    assert words.strip() == ANSWER
    assert [asked["key"] for asked in t.gateway.asked[-2:]] == ["app", "app"]


async def test_the_drawer_has_the_lines_above_too(t: Town) -> None:
    texts = await shown(t)
    (drawn,) = [text for name, text in texts.items() if name.startswith("code-text-") and "curl" in text]
    assert drawn == f"{texts['call-shell']}\n\n{texts['call-text-1']}"
