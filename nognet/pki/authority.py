"""The coordinator's CA and its server certificate (ECDSA P-384, X.509 v3).

The CA is made once: every site holds a copy of its certificate, so a new one would lock all of
them out. The server certificate may be renewed from the same CA at any time.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nognet.errors import ProvisionError
from nognet.files import atomic_path
from nognet.pki.checks import load_certificate, load_private_pem

CA_DAYS = 3650
SERVER_DAYS = 825
BACKDATED = dt.timedelta(hours=1)
"""Certificates start an hour ago, so that a site whose clock lags can use them at once."""


@dataclass(frozen=True)
class CoordinatorFiles:
    """Where the files of a coordinator lie in one folder."""

    folder: Path

    @property
    def ca(self) -> Path:
        """Certificate of the CA; goes to every site."""
        return self.folder / "ca.crt"

    @property
    def ca_key(self) -> Path:
        """Private key of the CA; best kept off the server."""
        return self.folder / "ca.key"

    @property
    def certificate(self) -> Path:
        """Certificate of the server."""
        return self.folder / "server.crt"

    @property
    def key(self) -> Path:
        """Private key of the server."""
        return self.folder / "server.key"

    @property
    def sites(self) -> Path:
        """Folder of the registered public keys."""
        return self.folder / "sites"


@dataclass(frozen=True)
class Authority:
    """A certificate authority: its certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def create_coordinator(
    folder: Path, hosts: Sequence[str], *, days: int = SERVER_DAYS
) -> CoordinatorFiles:
    """Make a CA, a server certificate for `hosts` and the folder of site keys.

    Raises:
        ProvisionError: the folder holds a CA already, or a host is no DNS name or address.
    """
    files = CoordinatorFiles(folder)
    for path in (files.ca, files.ca_key):
        if path.exists():
            raise ProvisionError(
                f"{path} exists; a new CA would lock out every site that holds the old one. "
                "To renew the server certificate from this CA, add --renew; for another "
                "federation choose another folder",
                code="ca-exists",
            )
    names = subject_alternative_names(hosts)
    authority = new_authority("nognet coordinator CA", days=CA_DAYS)
    write_private_key(files.ca_key, authority.key)
    _write_certificate(files.ca, authority.certificate)
    _issue_into(files, authority, names, days=days)
    files.sites.mkdir(parents=True, exist_ok=True)
    return files


def renew_server_certificate(
    folder: Path, hosts: Sequence[str] = (), *, days: int = SERVER_DAYS
) -> CoordinatorFiles:
    """Make a new server key and certificate from the CA in `folder`.

    Args:
        folder: The coordinator's folder, with `ca.crt` and `ca.key`.
        hosts: Names and addresses of the server; by default those of the old certificate.
        days: How long the certificate is valid.

    Raises:
        ProvisionError: there is no CA, its two files don't match, or it ends too early.
    """
    files = CoordinatorFiles(folder)
    authority = load_authority(files)
    if hosts:
        names = subject_alternative_names(hosts)
    else:
        old = load_certificate(files.certificate, "the server certificate to renew")
        names = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    _issue_into(files, authority, names, days=days)
    return files


def load_authority(files: CoordinatorFiles) -> Authority:
    """Read the CA's certificate and private key.

    Raises:
        ProvisionError: a file is missing, no PEM, or the two don't belong together.
    """
    certificate = load_certificate(files.ca, "the CA certificate")
    key = load_private_pem(files.ca_key, "the CA's private key")
    if key.public_key() != certificate.public_key():
        raise ProvisionError(
            f"{files.ca_key} is not the private key of {files.ca}; put back the pair that was "
            "made together",
            code="wrong-pair",
        )
    return Authority(certificate, key)


def new_authority(common_name: str, *, days: int) -> Authority:
    """Make a self-signed CA that may sign server certificates only, never other CAs."""
    key = ec.generate_private_key(ec.SECP384R1())
    now = dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = _builder(name, name, key.public_key(), now, days)
    certificate = (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA384())
    )
    return Authority(certificate, key)


def issue_server_certificate(
    authority: Authority,
    public_key: ec.EllipticCurvePublicKey,
    names: x509.SubjectAlternativeName,
    *,
    days: int,
) -> x509.Certificate:
    """Sign a server certificate.

    Raises:
        ProvisionError: it would outlive its CA.
    """
    now = dt.datetime.now(dt.UTC)
    ends = now + dt.timedelta(days=days)
    if ends > authority.certificate.not_valid_after_utc:
        raise ProvisionError(
            f"a certificate of {days} days would outlive its CA, which ends on "
            f"{authority.certificate.not_valid_after_utc:%Y-%m-%d}; ask for fewer --days, or "
            "plan a new CA with all sites",
            code="outlives-ca",
        )
    common_name = _texts(names)[0][:64]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = _builder(subject, authority.certificate.subject, public_key, now, days)
    ca_public_key = authority.key.public_key()
    return (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(names, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_public_key), critical=False
        )
        .sign(authority.key, hashes.SHA384())
    )


def write_loopback_certificate(folder: Path) -> CoordinatorFiles:
    """Make a throw-away CA and certificate for 127.0.0.1; the CA's key is forgotten.

    The control listener uses it, so that the public certificate, which may come from a hospital's
    own CA, needs no loopback address among its names.
    """
    files = CoordinatorFiles(folder)
    authority = new_authority("nognet loopback CA", days=CA_DAYS)
    names = subject_alternative_names(("127.0.0.1", "localhost"))
    _issue_into(files, authority, names, days=CA_DAYS - 1)
    _write_certificate(files.ca, authority.certificate)
    return files


def subject_alternative_names(hosts: Sequence[str]) -> x509.SubjectAlternativeName:
    """Sort names and addresses into DNS and IP entries.

    Raises:
        ProvisionError: there is none, or one is neither a DNS name nor an IP address.
    """
    if not hosts:
        raise ProvisionError(
            "the server certificate needs at least one --host: the name or address that the "
            "sites dial (server.address in their site.yaml)",
            code="no-host",
        )
    return x509.SubjectAlternativeName([_general_name(host) for host in dict.fromkeys(hosts)])


def write_private_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Write a private key as PEM that its owner alone may read."""
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with atomic_path(path, mode=0o600) as temporary:
        temporary.write_bytes(pem)


def _issue_into(
    files: CoordinatorFiles,
    authority: Authority,
    names: x509.SubjectAlternativeName,
    *,
    days: int,
) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    certificate = issue_server_certificate(authority, key.public_key(), names, days=days)
    write_private_key(files.key, key)
    _write_certificate(files.certificate, certificate)


def _write_certificate(path: Path, certificate: x509.Certificate) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    labels = host.rstrip(".").split(".")
    fine = all(
        label and len(label) <= 63 and label.replace("-", "").isalnum() and label.isascii()
        for label in labels
    )
    if not fine or len(host) > 253 or all(label.isdigit() for label in labels):
        raise ProvisionError(
            f"--host {host!r} is neither a DNS name nor an IP address; give it without scheme "
            "and port, for example nognet.example.org",
            code="bad-host",
        )
    return x509.DNSName(host)


def _texts(names: x509.SubjectAlternativeName) -> list[str]:
    return [str(name.value) for name in names]


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    now: dt.datetime,
    days: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + dt.timedelta(days=days))
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
