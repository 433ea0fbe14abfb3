"""Who an agent is: a P-256 key made on this host, and the certificate that the api's CA gave for it.

The private key is made here, is readable by its user alone, and never leaves. A certificate is renewed at two thirds of
its life by a request that the same key signs, which works after the certificate has run out, too. Times are compared
with the machine's own clock, because TLS does that as well.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bessemer.core.errors import DriverError

RENEW_AT = 2 / 3
PRIVATE = 0o600


class Identity:
    """Key, certificate and CA of one host's agent in ``directory`` (0700), by the name ``host``."""

    def __init__(self, directory: Path, host: str) -> None:
        self.host = host
        self.key_path = directory / "agent.key"
        self.certificate_path = directory / "agent.crt"
        self.ca_path = directory / "ca.crt"
        self._directory = directory
        self._key: ec.EllipticCurvePrivateKey | None = None
        self._life: tuple[float, float] | None = None

    @property
    def user(self) -> str:
        """The name that the certificate carries."""
        return f"system:agent:{self.host}"

    def key(self) -> ec.EllipticCurvePrivateKey:
        """The private key; made at the first call. Raises DriverError ``KeyInvalid`` for a file that is none."""
        if self._key is None:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self.key_path.exists():
                _keep(self.key_path, _pem(ec.generate_private_key(ec.SECP256R1())), mode=PRIVATE)
            try:
                key = serialization.load_pem_private_key(self.key_path.read_bytes(), None)
            except ValueError as error:
                raise DriverError(
                    "KeyInvalid", "the agent's key cannot be read", internal=str(self.key_path)
                ) from error
            if not isinstance(key, ec.EllipticCurvePrivateKey):
                raise DriverError("KeyInvalid", "the agent's key is not of the kind it makes")
            self._key = key
        return self._key

    def request(self) -> str:
        """A PKCS#10 request for a certificate in this host's name, PEM."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.user)])
        signed = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(self.key(), hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM).decode()

    def sign(self, text: str) -> str:
        """The key's signature (ECDSA, SHA-256, DER) over the text, base64."""
        return base64.b64encode(self.key().sign(text.encode(), ec.ECDSA(hashes.SHA256()))).decode()

    def accept(self, certificate: str, ca: str) -> None:
        """Keep what the api gave. Raises DriverError ``CertificateInvalid`` where it is not for our key."""
        try:
            given = x509.load_pem_x509_certificate(certificate.encode())
        except ValueError as error:
            raise DriverError("CertificateInvalid", "the api's answer holds no certificate") from error
        if given.public_key() != self.key().public_key():
            raise DriverError("CertificateInvalid", "the certificate is for another key")
        _keep(self.ca_path, ca.encode(), mode=0o644)
        _keep(self.certificate_path, certificate.encode(), mode=0o644)
        self._life = None

    def life(self) -> tuple[float, float] | None:
        """From when to when the certificate is good, seconds since the epoch; None where there is none."""
        if self._life is None and self.certificate_path.exists():
            try:
                held = x509.load_pem_x509_certificate(self.certificate_path.read_bytes())
            except ValueError:
                return None
            if held.public_key() == self.key().public_key():
                # A CA dates certificates back, for clocks that are slow; their life with us begins when we get them.
                start = max(held.not_valid_before_utc.timestamp(), self.certificate_path.stat().st_mtime)
                end = held.not_valid_after_utc.timestamp()
                self._life = min(start, end), end
        return self._life

    def renew_in(self, now: float) -> float:
        """Seconds from ``now`` until the certificate should be renewed; 0 where that is due or there is none."""
        life = self.life()
        if life is None:
            return 0.0
        start, end = life
        return max(0.0, start + (end - start) * RENEW_AT - now)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _keep(path: Path, data: bytes, *, mode: int) -> None:
    """Write it whole or not at all, never readable by more than ``mode`` says, not even for a moment."""
    half = path.with_suffix(path.suffix + ".new")
    half.unlink(missing_ok=True)
    handle = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        if mode == PRIVATE:
            # A lost certificate is asked for again with the key; nothing replaces a lost key but an administrator.
            os.fsync(file.fileno())
    half.replace(path)
