"""What to open once an installation is up, and how a browser and an OpenAI client come to trust it."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from bessemer.main import identities
from bessemer.main.settings import Paths, Settings


def addresses(paths: Paths, settings: Settings) -> str:
    """Lines for a person."""
    urls, ca = identities.urls(settings), paths.ca_certificate
    lines = (
        "",
        f"  Portal      {urls['portal']}",
        f"  OpenAI API  {urls['gateway']}",
        f"  kubectl     export KUBECONFIG={shlex.quote(str(paths.kubeconfig))}",
        f"  CLI         {_export(paths)}",
        f"  Sign in     {_program()} user add NAME --admin; {_program()} user link NAME   (with the line above)",
        "",
        "  Their certificates are of this installation's own authority. To trust it, once:",
        f"  Firefox     Settings > Privacy & Security > View Certificates > Authorities > Import {ca}",
        f"  Chromium    certutil -A -d sql:$HOME/.pki/nssdb -t C,, -n bessemer -i {shlex.quote(str(ca))}",
        f"  openai      export SSL_CERT_FILE={shlex.quote(str(ca))}",
        "",
    )
    return "\n".join(lines)


def examples(paths: Paths, commands: Sequence[str]) -> str:
    """Lines for a person: commands of ours to go on with, in a terminal that knows the installation."""
    lines = ["", "In a second terminal:", "", f"  {_export(paths)}", *(f"  {_program()} {words}" for words in commands)]
    return "\n".join(lines)


def _export(paths: Paths) -> str:
    return f"export BESSEMER_STATE={shlex.quote(str(paths.state))}"


def _program() -> str:
    """What to type to run us: the word, or the file where the shell would not find that."""
    ours = Path(sys.executable).with_name("bessemer")
    return "bessemer" if shutil.which("bessemer") or not ours.exists() else shlex.quote(str(ours))
