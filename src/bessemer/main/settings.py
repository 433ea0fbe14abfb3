"""What an installation is told: where its state lies, which ports it listens on, how long leases hold.

One file, ``STATE/settings.json``, written at the first start and editable; environment variables ``BESSEMER_*`` win
over it, and flags of the CLI win over both. Nothing else in the house reads a setting.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydantic import Field, ValidationError

from bessemer.core.errors import Invalid
from bessemer.core.resource import ApiModel

DEFAULT_STATE = Path("~/.bessemer")
PREFIX = "BESSEMER_"
METRICS_SOCKET = "metrics.sock"
"""Where a process that has no api tells its metrics, in a folder of its own; `up`'s is the state directory."""

SEAL_KEYS = PREFIX + "SEAL_KEYS"
STAGED = "next:"
STORE_PASSWORD = "store.password"
"""Among the keys: the password of the database, where libpq is not to look for it elsewhere."""

_SCHEMES = ("postgresql", "postgres")
_SECRET_WORDS = frozenset({"password", "sslpassword"})

GATEWAYS_MAX = 16
TOKEN_FILE = "join-token"
"""Beside the agent: what it joins with, once."""


class Settings(ApiModel):
    """The whole of it. Ports of 0 are chosen free at the first start and kept."""

    listen: str = "127.0.0.1"
    api_port: int = Field(7443, ge=0, le=65535)
    portal_port: int = Field(7444, ge=0, le=65535)
    gateway_port: int = Field(7445, ge=0, le=65535)
    gateways: int = Field(
        1, ge=1, le=GATEWAYS_MAX, description="How many processes serve the gateway's port; each wants a core."
    )
    host_name: str = Field("", description="The local host's name; the machine's own when empty.")
    store: str = Field("", description="postgresql://USER@HOST/DATABASE, without a password; empty: a file.")
    api_url: str = Field("", description="Where the api is, for what does not run beside one: a load balancer, say.")
    names: str = Field("", description="Names and addresses that certificates hold besides, with commas between.")
    controller_lease_seconds: float = Field(
        6.0, ge=1, le=300, description="How long kinds wait for another controller when one of several has vanished."
    )
    site: str = "local"
    overcommit_milli: int = Field(4000, ge=1000, le=64_000, description="How often a core of the local host is sold.")
    fake_hosts: int = Field(0, ge=0, le=20_000)
    heartbeat_seconds: float = Field(20.0, gt=0)
    lease_seconds: float = Field(60.0, gt=0)
    certificate_days: float = Field(30.0, gt=0)
    workers: int = Field(32, ge=1, le=256)
    content_budget_bytes: int = Field(
        20 << 30,
        ge=1 << 20,
        description="How large a host's cache of content may be; only what its Claims name goes past that.",
    )
    content_reserve_bytes: int = Field(
        1 << 30, ge=1 << 20, description="What a host's cache of content leaves free on its disk, for its guests."
    )
    content_grace_seconds: float = Field(
        86_400.0, ge=60, description="How long the control plane keeps content that nobody names any more."
    )
    hub_endpoint: str = Field("https://huggingface.co", description="The hub that models come from, or its mirror.")
    sources_allowed: str = Field(
        "",
        description="Inner hosts and networks that models may come from, also without TLS; with commas between.",
    )
    project_sources_allowed: str = Field("", description="The same for the models of projects; with commas between.")
    externals_allowed: str = Field(
        "",
        description="Inner hosts and networks that endpoints' external services may stand at, also without TLS; with "
        "commas between.",
    )
    model_folders: str = Field(
        "", description="Folders of the control plane's machine that models may come from; with colons between."
    )
    vllm: str = Field("", description="The virtual environment with vLLM, for the agent beside it; none if empty.")
    first_byte_seconds: float = Field(
        60.0, gt=0, description="How long a replica may take until the first byte of a streamed answer."
    )
    whole_answer_seconds: float = Field(
        600.0, gt=0, description="How long a replica may take for an answer that is no stream."
    )
    answer_pause_seconds: float = Field(
        120.0, gt=0, description="How long an answer that has begun may stand still: then its replica counts as lost."
    )
    cut_off_seconds: float = Field(
        3600.0, gt=0, description="How long a gateway that hears nothing of keys goes on by those that it knows."
    )
    keep_revisions: int = Field(50_000, ge=1000)


@dataclass(frozen=True, slots=True)
class Paths:
    """Where things lie under one state directory."""

    state: Path

    @property
    def settings(self) -> Path:
        return self.state / "settings.json"

    @property
    def ca(self) -> Path:
        return self.state / "ca"

    @property
    def ca_certificate(self) -> Path:
        return self.ca / "ca.crt"

    @property
    def ca_key(self) -> Path:
        return self.ca / "ca.key"

    @property
    def store(self) -> Path:
        return self.state / "store.db"

    @property
    def keys(self) -> Path:
        return self.state / "keys"

    @property
    def certs(self) -> Path:
        return self.state / "certs"

    @property
    def content(self) -> Path:
        return self.state / "content"

    @property
    def cache(self) -> Path:
        return self.state / "cache"

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def agent(self) -> Path:
        return self.state / "agent"

    @property
    def fake(self) -> Path:
        return self.state / "fake"

    @property
    def spool(self) -> Path:
        return gateway_of(self) / "spool"

    def certificate(self, name: str) -> tuple[Path, Path]:
        """Certificate and key of one of our own identities."""
        return self.certs / f"{name}.crt", self.certs / f"{name}.key"


def gateway_of(paths: Paths, number: int = 1) -> Path:
    """Of one of the processes that serve the gateway's port: its spool, its name, its metrics."""
    return paths.state / ("gateway" if number == 1 else f"gateway-{number}")


def heads_of(paths: Paths) -> Path:
    """Signed heads of the audit trail, outside the database."""
    return paths.state / "audit" / "heads.jsonl"


def audit_public_of(paths: Paths) -> Path:
    """The public key that they are signed by, hexadecimal."""
    return paths.state / "audit" / "audit.pub"


def state_directory(given: str | Path | None) -> Path:
    """The state directory: as given, else ``BESSEMER_STATE``, else ``~/.bessemer``; absolute, without links, since
    what runs is found by this name."""
    return Path(given or os.environ.get(PREFIX + "STATE") or DEFAULT_STATE).expanduser().resolve()


def given_keys() -> tuple[list[bytes], bytes]:
    """Keys that seal, from the environment: base64, with commas between; the first wraps. One with ``next:`` before it
    is staged, and answered apart (b"" for none). They are no setting, since settings are kept in a file. Raises
    Invalid, which does not repeat them."""
    from bessemer.core.sealing import KEY_BYTES_MIN  # for those alone who open a store

    words = [word.strip() for word in os.environ.get(SEAL_KEYS, "").split(",") if word.strip()]
    try:
        read = [(base64.b64decode(word.removeprefix(STAGED), validate=True), word.startswith(STAGED)) for word in words]
    except ValueError as error:
        raise Invalid(f"{SEAL_KEYS} is not base64, with commas between keys") from error
    if any(len(key) < KEY_BYTES_MIN for key, _ in read):
        raise Invalid(f"{SEAL_KEYS} holds a key of less than {KEY_BYTES_MIN} bytes")
    given, coming = [key for key, staged in read if not staged], [key for key, staged in read if staged]
    if len(coming) > 1 or (coming and not given):
        raise Invalid(f"{SEAL_KEYS}: one key is staged ({STAGED}KEY) at a time, and beside the one that seals")
    return given, b"".join(coming)


def variables() -> frozenset[str]:
    """The environment variables that win over the file."""
    return frozenset(PREFIX + name.upper() for name in Settings.model_fields)


def load(paths: Paths, **overrides: Any) -> Settings:
    """Read the settings of a state directory. Raises Invalid, naming the file or the variable that is wrong."""
    values = _kept(paths.settings) if paths.settings.exists() else {}
    for name, info in Settings.model_fields.items():
        text = os.environ.get(PREFIX + name.upper())
        if text is not None:
            values[info.alias or name] = text
    values.update({Settings.model_fields[k].alias or k: v for k, v in overrides.items() if v is not None})
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise Invalid(f"setting {field}: {first['msg']} (in {paths.settings} or {PREFIX}*)") from error
    if settings.store:
        require_address(settings.store)
    return settings


def require_address(address: str) -> None:
    """Raise Invalid, without showing it, for what is no address of a database, or bears a password."""
    try:
        parts = urlsplit(address)
        words = parse_qs(parts.query, keep_blank_values=True).keys()
    except ValueError:
        raise Invalid("setting store: this is no address; one is postgresql://USER@HOST/DATABASE") from None
    if parts.scheme not in _SCHEMES:
        raise Invalid("setting store: an address is postgresql://USER@HOST/DATABASE; empty is the file of the state")
    if parts.password is not None or _SECRET_WORDS & words:
        raise Invalid(
            "setting store: leave the password out of the address, where others see it: put it into "
            f"keys/{STORE_PASSWORD} of the state directory, into ~/.pgpass, or into PGPASSWORD"
        )


def _kept(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise Invalid(f"{file} cannot be read: {error}; correct it, or remove it to use the defaults") from error
    if not isinstance(values, dict):
        raise Invalid(f"{file} holds no JSON object; correct it, or remove it to use the defaults")
    return values


def save(paths: Paths, settings: Settings) -> None:
    """Keep the settings for the next start; written whole or not at all."""
    paths.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = paths.settings.with_suffix(".new")
    temporary.write_text(json.dumps(settings.dump(), indent=2, sort_keys=True) + "\n")
    temporary.replace(paths.settings)


_PORTS = ("api_port", "portal_port", "gateway_port")


def with_kept_ports(paths: Paths, settings: Settings) -> Settings:
    """Those of an earlier start for what is 0: others know them."""
    kept = _kept(paths.settings) if paths.settings.exists() else {}
    ports = {name: kept.get(Settings.model_fields[name].alias or name) for name in _PORTS}
    return settings.model_copy(update={n: p for n, p in ports.items() if p and not getattr(settings, n)})


def with_ports(settings: Settings, *, find_free: bool) -> Settings:
    """Choose what is 0; with ``find_free`` also what somebody else listens on. Raises Invalid for a taken port."""
    chosen: dict[str, int] = {}
    for name in _PORTS:
        port: int = getattr(settings, name)
        if port and free(settings.listen, port):
            continue
        if port and not find_free:
            flag = name.replace("_", "-")
            place = f"{in_url(settings.listen)}:{port}"
            raise Invalid(f"{place} is in use by {_holder(port)}; choose another with --{flag}, or 0")
        chosen[name] = _free_port(settings.listen, set(chosen.values()))
    return settings.model_copy(update=chosen)


def _holder(port: int) -> str:
    """Who listens there, as far as this machine tells us."""
    import psutil  # for those alone who found it taken

    with contextlib.suppress(psutil.Error, OSError):
        on = [c.pid for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.laddr[1:] == (port,)]
        for words in (psutil.Process(pid).cmdline() for pid in on if pid):
            if "bessemer.main.part" in words and "--state" in words[:-1]:
                return f"the Bessemer of {words[words.index('--state') + 1]}"
    return "another program"


def free(listen: str, port: int) -> bool:
    """Whether nobody listens there now."""
    with _probe(listen) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listen, port))
        except OSError:
            return False
    return True


def _probe(listen: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in listen else socket.AF_INET)


def _free_port(listen: str, taken: set[int]) -> int:
    while True:
        with _probe(listen) as probe:
            probe.bind((listen, 0))
            port = int(probe.getsockname()[1])
        if port not in taken:
            return port


def in_url(address: str) -> str:
    """A name or an address as it stands before a port: ``[::1]``."""
    return f"[{address}]" if ":" in address else address


def fake_host_name(ordinal: int) -> str:
    """``fake-007``."""
    return f"fake-{ordinal:03d}"


def host_name() -> str:
    """This machine's name as a Host's."""
    word = socket.gethostname().lower().split(".")[0]
    kept = "".join(c if c.isalnum() or c == "-" else "-" for c in word).strip("-")
    return kept[:63] or "local"


def joined(paths: Paths) -> bool:
    """Whether the local agent has a certificate."""
    return (paths.agent / "identity" / "agent.crt").exists()
