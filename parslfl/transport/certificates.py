"""Certificates for one site of one run: an authority signs two of them, and its key is forgotten.

They stay in memory: the driver's until the run ends, the worker's in the tasks that it is sent.

Does not know: who shows them, or over what.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from parslfl.transport.frames import DRIVER_NAME

#: Clocks of driver and nodes may differ by this much.
_SKEW = timedelta(days=1)
#: Longer than any run; a run that is resumed gets new ones.
_LIFE = timedelta(days=366)


@dataclass(frozen=True)
class Pair:
    """A certificate and its secret key, PEM."""

    certificate: str
    key: str = field(repr=False)


@dataclass(frozen=True)
class Certificates:
    """The `authority` (PEM) that signed both, and no others ever."""

    authority: str
    driver: Pair
    worker: Pair


def issue() -> Certificates:
    """Fresh certificates on the curve P-256, made in milliseconds."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("parslfl run")
    authority = _signed(name, name, key.public_key(), key, None)
    driver = _pair(DRIVER_NAME, ExtendedKeyUsageOID.SERVER_AUTH, name, key)
    worker = _pair("worker.parslfl", ExtendedKeyUsageOID.CLIENT_AUTH, name, key)
    return Certificates(_pem(authority), driver, worker)


def _pair(name: str, usage: ObjectIdentifier, issuer: x509.Name, signer: ec.EllipticCurvePrivateKey) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return Pair(_pem(_signed(_name(name), issuer, key.public_key(), signer, (name, usage))), secret)


def _signed(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePrivateKey,
    leaf: tuple[str, ObjectIdentifier] | None,
) -> x509.Certificate:
    """`leaf`: its DNS name and only use; without it, an authority's certificate."""
    now = datetime.now(UTC)
    draft = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _LIFE)
        .add_extension(x509.BasicConstraints(ca=leaf is None, path_length=None), critical=True)
    )
    if leaf is not None:
        draft = draft.add_extension(x509.SubjectAlternativeName([x509.DNSName(leaf[0])]), critical=False)
        draft = draft.add_extension(x509.ExtendedKeyUsage([leaf[1]]), critical=False)
    return draft.sign(signer, hashes.SHA256())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()
