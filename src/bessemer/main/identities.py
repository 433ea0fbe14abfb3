"""Keys and certificates of one installation: the authority, our processes' identities, the kubeconfig.

Made once, kept in the state directory with mode 0600, found again at each start; a certificate with little time left
is made anew.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from bessemer.api.ca import CertificateAuthority, Pair, create_ca, load_ca
from bessemer.core.errors import Invalid
from bessemer.core.trail import Signer
from bessemer.main.settings import Paths, Settings, audit_public_of, given_keys, heads_of, in_url

ADMIN, SERVER, GATEWAY, PORTAL, REPLICA = "admin", "server", "gateway", "portal", "replica"
SEAL_KEY, GATEWAY_KEY, AUDIT_KEY, LOCK = "seal.key", "gateway.key", "audit.key", "lock"
_EVERYWHERE = ("0.0.0.0", "::")
_BACK = "bring it back from a copy, or move the whole state directory away to begin anew"
_YEAR_SECONDS = 365 * 86_400.0
_RENEW_BEFORE = timedelta(days=30)


def prepare(paths: Paths, settings: Settings) -> CertificateAuthority:
    """Make what is missing. Raises Invalid, with what to do, for what cannot be made anew: it must be brought back."""
    for directory in (paths.state, paths.ca, paths.certs, paths.keys, paths.logs):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _alone(paths.keys / LOCK):
        return _prepared(paths, settings)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One process at a time: the parts of an installation start together, and whoever comes first makes the keys."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _prepared(paths: Paths, settings: Settings) -> CertificateAuthority:
    if paths.store.exists() and not ((paths.keys / SEAL_KEY).exists() or given_keys()[0]):
        raise Invalid(f"{paths.keys / SEAL_KEY} is missing, and secrets in {paths.store} open with it alone: {_BACK}")
    told = [file for file in (audit_public_of(paths), heads_of(paths)) if file.exists()]
    if told and not (paths.keys / AUDIT_KEY).exists():
        raise Invalid(f"{paths.keys / AUDIT_KEY} is missing, and the trail is signed by it ({told[0]}): {_BACK}")
    for name in (SEAL_KEY, GATEWAY_KEY, AUDIT_KEY):
        if not (paths.keys / name).exists():
            write_private(paths.keys / name, secrets.token_bytes(32))
    public = audit_public_of(paths)
    public.parent.mkdir(exist_ok=True, mode=0o700)
    public.write_text(Signer(key_of(paths, AUDIT_KEY)).public + "\n")
    authority = _authority(paths)
    names = server_names(settings)
    _identity(paths, authority, file=ADMIN, name="admin", groups=("system:masters",))
    _identity(paths, authority, file=SERVER, name="bessemer", sans=names)
    # An api's to others of its kind, which ask each other for streams.
    _identity(paths, authority, file=REPLICA, name="system:replica", groups=("system:masters",))
    # The portal's says for whom it signs people in; it opens nothing by itself.
    _identity(paths, authority, file=PORTAL, name="system:portal")
    # The gateway's certificate serves its clients and opens replicas' doors.
    _identity(paths, authority, file=GATEWAY, name="system:gateway", sans=names)
    return authority


def server_names(settings: Settings) -> tuple[str, ...]:
    """The names and addresses that our listeners answer to."""
    found = ["localhost", "127.0.0.1", "::1", socket.gethostname()]
    found += _addresses() if settings.listen in _EVERYWHERE else [settings.listen]
    found += [name.strip() for name in settings.names.split(",") if name.strip()]
    return tuple(dict.fromkeys(found))


def _addresses() -> list[str]:
    """This machine's addresses in order, without those of loopback and of one link alone."""
    import psutil  # for those alone who listen everywhere

    families = (socket.AF_INET, socket.AF_INET6)
    told = {a.address.partition("%")[0] for on in psutil.net_if_addrs().values() for a in on if a.family in families}
    found = sorted(map(ipaddress.ip_address, told), key=lambda address: (address.version, address))
    return [str(address) for address in found if not (address.is_loopback or address.is_link_local)]


def authority_of(paths: Paths) -> CertificateAuthority:
    """The authority that is there. Raises Invalid with what to do, FileNotFoundError."""
    try:
        return load_ca(Pair(paths.ca_certificate.read_bytes(), paths.ca_key.read_bytes()))
    except Invalid as error:
        raise Invalid(f"{paths.ca}: {error.message}: {_BACK}") from error


def key_of(paths: Paths, name: str) -> bytes:
    """One of the installation's symmetric keys."""
    return (paths.keys / name).read_bytes()


def pair_of(paths: Paths, name: str) -> Pair:
    """Certificate and key of one of our own identities."""
    certificate, key = paths.certificate(name)
    return Pair(certificate.read_bytes(), key.read_bytes())


def write_kubeconfig(paths: Paths, settings: Settings) -> None:
    """The administrator's kubeconfig, with paths relative to it, so that a state directory may move."""
    certificate, key = paths.certificate(ADMIN)
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "bessemer",
                "cluster": {
                    "server": urls(settings)["api"],
                    "certificate-authority": os.path.relpath(paths.ca_certificate, paths.state),
                },
            }
        ],
        "users": [
            {
                "name": ADMIN,
                "user": {
                    "client-certificate": os.path.relpath(certificate, paths.state),
                    "client-key": os.path.relpath(key, paths.state),
                },
            }
        ],
        "contexts": [{"name": "bessemer", "context": {"cluster": "bessemer", "user": ADMIN}}],
        "current-context": "bessemer",
    }
    write_private(paths.kubeconfig, yaml.safe_dump(config, sort_keys=False).encode())


def _reachable(settings: Settings) -> str:
    """The host of our URLs, as seen from this machine."""
    return "127.0.0.1" if settings.listen in _EVERYWHERE else in_url(settings.listen)


def urls(settings: Settings) -> dict[str, str]:
    """api, portal and gateway, as a person opens them."""
    host = _reachable(settings)
    return {
        "api": settings.api_url.rstrip("/") or f"https://{host}:{settings.api_port}",
        "portal": f"https://{host}:{settings.portal_port}",
        "gateway": f"https://{host}:{settings.gateway_port}/v1",
    }


def own_url(settings: Settings) -> str:
    """Where the other replicas find this one's api: whatever stands before all of them."""
    listens = settings.listen
    if listens in _EVERYWHERE:
        listens = next(iter(_addresses()), socket.gethostname())
    return f"https://{in_url(listens)}:{settings.api_port}"


def write_private(path: Path, data: bytes) -> None:
    """Write a file of mode 0600, whole or not at all."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(data)
    temporary.replace(path)


def _authority(paths: Paths) -> CertificateAuthority:
    there = [file for file in (paths.ca_certificate, paths.ca_key) if file.exists()]
    if len(there) == 1:
        raise Invalid(f"{paths.ca} holds {there[0].name} alone, half an authority: {_BACK}")
    if there:
        return authority_of(paths)
    made = create_ca("bessemer local authority")
    write_private(paths.ca_key, made.pair.key)
    paths.ca_certificate.write_bytes(made.certificate)
    return made


def _identity(
    paths: Paths,
    authority: CertificateAuthority,
    *,
    file: str,
    name: str,
    groups: Sequence[str] = (),
    sans: Sequence[str] = (),
) -> None:
    certificate, key = paths.certificate(file)
    if _good(certificate, key, authority=authority, sans=sans):
        return
    pair = authority.issue(name, groups=groups, sans=sans, seconds=_YEAR_SECONDS)
    write_private(key, pair.key)
    write_private(certificate, pair.certificate)


def _good(path: Path, key: Path, *, authority: CertificateAuthority, sans: Sequence[str]) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        private = serialization.load_pem_private_key(key.read_bytes(), None)
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate))
    except (OSError, ValueError, TypeError, InvalidSignature):
        return False
    if certificate.public_key() != private.public_key():
        return False
    if certificate.not_valid_after_utc - _RENEW_BEFORE < datetime.now(UTC):
        return False
    if not sans:
        return True
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    names = {*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress))}
    return names >= set(sans)
