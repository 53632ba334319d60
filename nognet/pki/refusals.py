"""Why a coordinator's certificate was refused, in words that say what to do."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from nognet.errors import ProvisionError
from nognet.pki.checks import names_of
from nognet.pki.clock import clock_words, is_off

# OpenSSL's X509_V_ERR_*
_NOT_YET_VALID = 9
_EXPIRED = 10
_WRONG_NAME = (62, 64)


@dataclass(frozen=True)
class Shown:
    """What an address shows to whoever doesn't verify it; for messages only.

    Attributes:
        certificate: Its certificate.
        clock_ahead_s: Seconds that this machine's clock is ahead of its Date header.
    """

    certificate: x509.Certificate | None = None
    clock_ahead_s: float | None = None


def refused_certificate(
    err: ssl.SSLCertVerificationError, address: str, ca: Path | None, shown: Shown
) -> ProvisionError:
    """Turn OpenSSL's refusal into an error with the likely cause."""
    if err.verify_code == _EXPIRED:
        return _expired(address, shown)
    if err.verify_code == _NOT_YET_VALID:
        return _not_yet_valid(address, shown)
    host = address.rpartition(":")[0]
    certificate = shown.certificate
    if err.verify_code in _WRONG_NAME:
        names = ", ".join(names_of(certificate)) if certificate else "unknown"
        return ProvisionError(
            f"the certificate of {address} is valid for {names or 'no name at all'}, not for "
            f"{host}; use one of these names in server.address, or the coordinator issues it "
            f"again with --host {host}",
            code="wrong-name",
        )
    issuer = f" (its issuer: {certificate.issuer.rfc4514_string()})" if certificate else ""
    return ProvisionError(
        f"the certificate of {address} is not signed by the CA in site.yaml ({ca}){issuer}; ask "
        "the coordinator for the right ca.crt. If the issuer is your own hospital, its firewall "
        "inspects TLS: have this address exempted",
        code="wrong-ca",
    )


def _expired(address: str, shown: Shown) -> ProvisionError:
    certificate = shown.certificate
    when = f" on {certificate.not_valid_after_utc:%Y-%m-%d}" if certificate else ""
    return ProvisionError(
        f"the certificate of {address} (or its CA) expired{when}; "
        + _clock_or(
            shown,
            "the coordinator has to renew it (nognet provision coordinator --renew). Is this "
            "machine's clock right?",
        ),
        code="expired",
    )


def _not_yet_valid(address: str, shown: Shown) -> ProvisionError:
    certificate = shown.certificate
    since = f" before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC" if certificate else ""
    return ProvisionError(
        f"the certificate of {address} is not valid{since}, which is still to come by this "
        "machine's clock; " + _clock_or(shown, "set the clock"),
        code="not-yet-valid",
    )


def _clock_or(shown: Shown, otherwise: str) -> str:
    if shown.clock_ahead_s is not None and is_off(shown.clock_ahead_s):
        return f"{clock_words(shown.clock_ahead_s)}: synchronise this one (NTP)"
    return otherwise
