"""The serving certificate of the admission webhook and the authority that API servers are told to trust.

The authority signs one certificate and its key is forgotten: what is never stored cannot be stolen. A renewal brings a
new authority; the one before stays trusted beside it, for replicas that still serve with the old certificate.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

LIFETIME: Final = timedelta(days=90)
RENEW_BEFORE: Final = timedelta(days=30)
"""An operator that is away for a month still comes back in time."""
CLOCK_SLACK: Final = timedelta(hours=1)
"""Valid from so long before it is issued: clocks of API servers differ."""
FIELDS: Final = ("ca.crt", "tls.crt", "tls.key", "expires")
DIGEST: Final = "digest"
"""Of the other fields: whoever edits the Secret by hand gets a new certificate, not an outage."""
BEGIN: Final = "-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True)
class Credentials:
    """PEM texts. `authorities` holds the newest first, then the one before it."""

    authorities: str
    certificate: str
    key: str
    expires: datetime

    def due(self, now: datetime) -> bool:
        return now >= self.expires - RENEW_BEFORE

    def data(self) -> dict[str, str]:
        """`data` of the Secret."""
        values = (self.authorities, self.certificate, self.key, self.expires.astimezone(UTC).isoformat())
        fields = dict(zip(FIELDS, values, strict=True))
        return {name: _encode(text) for name, text in {**fields, DIGEST: _digest(fields)}.items()}

    def ca_bundle(self) -> str:
        """As a webhook configuration wants it."""
        return _encode(self.authorities)

    def load_into(self, context: ssl.SSLContext) -> None:
        """New connections are served with it from now on. Raises ssl.SSLError."""
        with tempfile.TemporaryDirectory() as folder:  # OpenSSL reads from files alone; mode 0700
            file = Path(folder) / "tls.pem"
            file.write_text(self.certificate + self.key)
            context.load_cert_chain(file)


def read_credentials(data: Mapping[str, Any] | None) -> Credentials | None:
    """What the Secret holds; None when it is empty, incomplete or was edited."""
    try:
        fields = {name: base64.b64decode((data or {})[name], validate=True).decode() for name in (*FIELDS, DIGEST)}
        if fields.pop(DIGEST) != _digest(fields):
            return None
        authorities, certificate, key, expires = (fields[name] for name in FIELDS)
        return Credentials(authorities, certificate, key, datetime.fromisoformat(expires))
    except (KeyError, TypeError, ValueError, binascii.Error):
        return None


def issue(names: list[str], now: datetime, before: Credentials | None = None) -> Credentials:
    """A new authority and one certificate for the DNS `names`, the most telling first. `before` stays trusted."""
    from cryptography import x509  # 12 MB that only the one replica pays which issues, every two months
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])

    def builder(subject: x509.Name, key: ec.EllipticCurvePrivateKey, signs: bool) -> x509.CertificateBuilder:
        usage = x509.KeyUsage(
            digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, content_commitment=False,
            key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
            decipher_only=False,
        )  # fmt: skip
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(authority)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCK_SLACK)
            .not_valid_after(now + LIFETIME)
            .add_extension(x509.BasicConstraints(ca=signs, path_length=0 if signs else None), critical=True)
            .add_extension(usage, critical=True)
        )

    def pem(certificate: x509.Certificate) -> str:
        return certificate.public_bytes(Encoding.PEM).decode()

    # The time makes two authorities differ: with one name for both, a verifier could try the wrong one first.
    authority = named(f"tandem admission {now.astimezone(UTC):%Y-%m-%dT%H:%M:%S}")
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    identifier = x509.SubjectKeyIdentifier.from_public_key(root_key.public_key())
    root = builder(authority, root_key, signs=True).add_extension(identifier, critical=False)
    leaf = (
        builder(named(names[0]), key, signs=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
    )
    return Credentials(
        authorities=pem(root.sign(root_key, hashes.SHA256())) + (newest(before.authorities) if before else ""),
        certificate=pem(leaf.sign(root_key, hashes.SHA256())),
        key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        expires=(now + LIFETIME).replace(microsecond=0),
    )


def newest(authorities: str) -> str:
    """The first certificate of a bundle."""
    first = authorities.split(BEGIN)[1:2]
    return BEGIN + first[0] if first else ""


def server_context(credentials: Credentials) -> ssl.SSLContext:
    """Raises ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    credentials.load_into(context)
    return context


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _digest(fields: Mapping[str, str]) -> str:
    return hashlib.sha256("\0".join(fields[name] for name in FIELDS).encode()).hexdigest()
