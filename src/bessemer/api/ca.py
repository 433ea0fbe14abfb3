"""The local certificate authority: who may speak as whom on our listeners.

Names are Kubernetes': CN is the user, O the groups. Chains satisfy strict verifiers (critical basicConstraints and
keyUsage, matching key identifiers). Certificates are dated back a minute for clocks that are slow. It keeps no list of
what it issued: what a certificate is worth is decided at each request (`api.authn`).
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bessemer.core.errors import Invalid

SLOW_CLOCK_SECONDS = 60
CSR_BYTES_MAX = 8192
_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with its private key, PEM."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Peer:
    """A verified client certificate. ``fingerprint`` is that of its public key."""

    name: str
    groups: tuple[str, ...]
    fingerprint: str


class CertificateAuthority:
    """Signs certificates with one P-256 key."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    @property
    def certificate(self) -> bytes:
        """The authority's own certificate, PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def pair(self) -> Pair:
        """Certificate and key, to be kept."""
        return Pair(self.certificate, _key_pem(self._key))

    def issue(
        self, name: str, *, groups: Sequence[str] = (), sans: Sequence[str] = (), seconds: float = 365 * _DAY
    ) -> Pair:
        """A new key and a certificate for it. ``sans`` are DNS names and addresses; with any it is a server's too."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self.sign(key.public_key(), name, groups=groups, sans=sans, seconds=seconds)
        return Pair(certificate, _key_pem(key))

    def sign(
        self,
        key: ec.EllipticCurvePublicKey,
        name: str,
        *,
        groups: Sequence[str] = (),
        sans: Sequence[str] = (),
        seconds: float = 365 * _DAY,
    ) -> bytes:
        """A certificate (PEM) for somebody's public key, good for ``seconds`` from now."""
        now = datetime.now(UTC)
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if sans else [])]
        builder = (
            x509.CertificateBuilder()
            .subject_name(_subject(name, groups))
            .issuer_name(self._certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(seconds=SLOW_CLOCK_SECONDS))
            .not_valid_after(min(now + timedelta(seconds=seconds), self._certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(_authority_key(self._certificate), critical=False)
        )
        if sans:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general(s) for s in sans]), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def create_ca(name: str, *, seconds: float = 3650 * _DAY) -> CertificateAuthority:
    """A new authority with a key of its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    subject = _subject(name, ())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(seconds=SLOW_CLOCK_SECONDS))
        .not_valid_after(now + timedelta(seconds=seconds))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return CertificateAuthority(certificate, key)


def load_ca(pair: Pair) -> CertificateAuthority:
    """An authority that was kept. Raises Invalid for a pair that is none."""
    try:
        key = serialization.load_pem_private_key(pair.key, None)
        certificate = x509.load_pem_x509_certificate(pair.certificate)
    except ValueError as error:
        raise Invalid("the certificate authority's files cannot be read") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or certificate.public_key() != key.public_key():
        raise Invalid("the certificate authority's key is not of its certificate")
    return CertificateAuthority(certificate, key)


def requested_key(csr: str) -> ec.EllipticCurvePublicKey:
    """The public key of a PEM PKCS#10 request; all else in it is ignored. Raises Invalid unless it is P-256 and signed
    by that key."""
    if len(csr) > CSR_BYTES_MAX:
        raise Invalid("the certificate request is too long")
    try:
        request = x509.load_pem_x509_csr(csr.encode())
        key = request.public_key()
        good = request.is_signature_valid
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise Invalid("csr is no PEM certificate request") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1) or not good:
        raise Invalid("the certificate request must be for a P-256 key and signed by it")
    return key


def fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """SHA-256 of the public key (SubjectPublicKeyInfo, DER), hexadecimal: ``Host.status.keyFingerprint``."""
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def peer_of(certificate: bytes) -> Peer | None:
    """Who a verified client certificate (DER) names; None for one without a name or with a key not ours."""
    read = x509.load_der_x509_certificate(certificate)
    names = read.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    key = read.public_key()
    if not names or not isinstance(key, ec.EllipticCurvePublicKey):
        return None
    groups = read.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return Peer(str(names[0].value), tuple(str(g.value) for g in groups), fingerprint(key))


def signed_by(key: ec.EllipticCurvePublicKey, text: bytes, *, signature: bytes) -> bool:
    """Whether ``signature`` (ECDSA, SHA-256, DER) over ``text`` is the key's."""
    try:
        key.verify(signature, text, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _subject(name: str, groups: Sequence[str]) -> x509.Name:
    organisations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*organisations, x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_key(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _general(san: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(san))
    except ValueError:
        return x509.DNSName(san)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
