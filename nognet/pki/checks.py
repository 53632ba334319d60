"""Look at key and certificate files before a process starts with them."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

from nognet.errors import ConfigError, ProvisionError
from nognet.pki.tunnel import is_loopback

WARN_DAYS = 30


@dataclass(frozen=True)
class ServerCertificate:
    """What a checked server certificate says.

    Attributes:
        hosts: DNS names and IP addresses it is valid for.
        ends: When it expires, UTC.
        warnings: What works but should be looked at soon.
    """

    hosts: tuple[str, ...]
    ends: dt.datetime
    warnings: tuple[str, ...]


def check_server_files(
    ca: Path, certificate: Path, key: Path, *, now: dt.datetime | None = None
) -> ServerCertificate:
    """Check that CA, server certificate and private key exist, are in date and belong together.

    Raises:
        ProvisionError: the first thing that would keep sites from connecting.
    """
    moment = now or dt.datetime.now(dt.UTC)
    ca_certificate = _load_ca(ca, moment)
    server = load_certificate(certificate, "the server certificate")
    _check_dates(certificate, server, moment, "renew it: nognet provision coordinator --renew")
    private_key = load_private_pem(key, "the server's private key")
    if private_key.public_key() != server.public_key():
        raise ProvisionError(
            f"{key} is not the private key of {certificate}; give the pair that was made together",
            code="wrong-pair",
        )
    try:
        server.verify_directly_issued_by(ca_certificate)
    except (InvalidSignature, ValueError, TypeError) as err:
        raise ProvisionError(
            f"{certificate} (issuer: {server.issuer.rfc4514_string()}) is not signed by the CA in "
            f"{ca}; sites that hold this CA would refuse it. Issue the certificate from this CA",
            code="wrong-ca",
        ) from err
    return ServerCertificate(
        hosts=_hosts(certificate, server),
        ends=server.not_valid_after_utc,
        warnings=(*_open_to_others(key), *_ends_soon(certificate, server, moment)),
    )


def check_site_files(ca: Path, key: Path, *, now: dt.datetime | None = None) -> tuple[str, ...]:
    """Check the CA certificate and the private key of a site; return warnings.

    Raises:
        ProvisionError: one is missing, of the wrong kind, or the CA has expired.
    """
    moment = now or dt.datetime.now(dt.UTC)
    ca_certificate = _load_ca(ca, moment)
    load_site_key(key)
    return (*_open_to_others(key), *_ends_soon(ca, ca_certificate, moment))


def refuse_beyond_loopback(address: str, key: str) -> None:
    """Check that an address without TLS is this machine's own.

    Args:
        address: ``host:port``.
        key: Where it is written, for the message.

    Raises:
        ConfigError: it is another's, or open to others.
    """
    if not is_loopback(address.rpartition(":")[0]):
        raise ConfigError(
            f"--insecure: {key} is {address}; without TLS only 127.0.0.1 may be used. Leave "
            "--insecure out (certificates: nognet provision coordinator)"
        )


def load_site_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read a site's private key (OpenSSH, ECDSA P-384, without a passphrase).

    Raises:
        ProvisionError: it is missing or another kind of key.
    """
    data = _read(path, "the site's private key", "make it: nognet provision site --name NAME")
    advice = "make one: nognet provision site --name NAME"
    try:
        key = load_ssh_private_key(data, None)
    except TypeError as err:
        raise ProvisionError(
            f"{path} is protected by a passphrase, which a service can't type; {advice}",
            code="passphrase",
        ) from err
    except (ValueError, UnsupportedAlgorithm) as err:
        hint = "it is the public part (.pub)" if data.startswith(b"ecdsa-") else "it is damaged"
        raise ProvisionError(
            f"{path} is not an OpenSSH private key ({hint}, or of another kind); {advice}",
            code="not-a-site-key",
        ) from err
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ProvisionError(
            f"{path} is a {_kind(key)} key, expected ECDSA P-384; {advice}", code="wrong-curve"
        )
    return key


def load_certificate(path: Path, what: str) -> x509.Certificate:
    """Read one PEM certificate.

    Raises:
        ProvisionError: the file is missing or no PEM certificate.
    """
    data = _read(path, what, "make it: nognet provision coordinator")
    try:
        return x509.load_pem_x509_certificate(data)
    except ValueError as err:
        raise ProvisionError(
            f"{path}: {what} is no PEM certificate (expected '-----BEGIN CERTIFICATE-----')",
            code="not-a-certificate",
        ) from err


def load_private_pem(path: Path, what: str) -> ec.EllipticCurvePrivateKey:
    """Read one PEM private key on an elliptic curve.

    Raises:
        ProvisionError: the file is missing, no PEM key, encrypted, or no elliptic-curve key.
    """
    data = _read(path, what, "make it: nognet provision coordinator")
    try:
        key = load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as err:
        raise ProvisionError(
            f"{path}: {what} is no PEM private key without a passphrase "
            "(expected '-----BEGIN PRIVATE KEY-----')",
            code="not-a-key",
        ) from err
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ProvisionError(
            f"{path}: {what} is a {_kind(key)} key, expected one on an elliptic curve",
            code="wrong-curve",
        )
    return key


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """List the DNS names and IP addresses that a certificate is valid for."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(name.value) for name in extension.value)


def _load_ca(path: Path, moment: dt.datetime) -> x509.Certificate:
    certificate = load_certificate(path, "the CA certificate")
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        is_ca = constraints.ca
    except x509.ExtensionNotFound:
        is_ca = False
    if not is_ca:
        raise ProvisionError(
            f"{path} is a certificate of {certificate.subject.rfc4514_string()}, not of a CA; "
            "give the coordinator's ca.crt",
            code="not-a-ca",
        )
    _check_dates(path, certificate, moment, "the coordinator has to make a new CA for all sites")
    return certificate


def _check_dates(
    path: Path, certificate: x509.Certificate, moment: dt.datetime, advice: str
) -> None:
    starts, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if moment > ends:
        raise ProvisionError(
            f"{path} expired on {ends:%Y-%m-%d %H:%M} UTC; {advice}", code="expired"
        )
    if moment < starts:
        raise ProvisionError(
            f"{path} is valid from {starts:%Y-%m-%d %H:%M} UTC on, and this machine's clock says "
            f"{moment:%Y-%m-%d %H:%M} UTC; set the clock",
            code="not-yet-valid",
        )


def _hosts(path: Path, certificate: x509.Certificate) -> tuple[str, ...]:
    hosts = names_of(certificate)
    if not hosts:
        raise ProvisionError(
            f"{path} has no subject alternative name, and clients look at nothing else; issue it "
            "again with --host NAME",
            code="no-san",
        )
    return hosts


def _open_to_others(key: Path) -> tuple[str, ...]:
    mode = key.stat().st_mode & 0o777
    if mode & 0o077:
        return (f"{key} may be read by others (mode {mode:04o}); chmod 600 {key}",)
    return ()


def _ends_soon(path: Path, certificate: x509.Certificate, moment: dt.datetime) -> tuple[str, ...]:
    days = (certificate.not_valid_after_utc - moment).days
    return (f"{path} expires in {days} days",) if days < WARN_DAYS else ()


def _read(path: Path, what: str, advice: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as err:
        raise ProvisionError(f"{path}: {what} is missing; {advice}", code="missing") from err
    except OSError as err:
        raise ProvisionError(
            f"{path}: {what} can't be read ({err.strerror})", code="unreadable"
        ) from err


def _kind(key: object) -> str:
    if isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey):
        return f"ECDSA {key.curve.name}"
    return type(key).__name__.removesuffix("PrivateKey").removesuffix("PublicKey").lstrip("_")
