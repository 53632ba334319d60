"""Which key a site signs with in secure sums, and whose keys it believes."""

from __future__ import annotations

import logging
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from nognet.config import SiteConfig
from nognet.errors import PrivacyError, ProvisionError
from nognet.pki.site_keys import create_site_key, registered_sites
from nognet.secagg.keys import identity_of

_log = logging.getLogger("nognet.client.masking")
_SIMULATED = "simulated"


def signing_key(site: SiteConfig) -> ec.EllipticCurvePrivateKey:
    """Read the site's own key; in simulation, where a site has none, one is made for it.

    Raises:
        ProvisionError: the key is missing or no P-384 key without a passphrase.
    """
    if site.server is not None:
        return _read(site.server.key)
    folder = site.state / "secure" / _SIMULATED
    path = folder / f"{site.name}.key"
    if not path.exists():
        create_site_key(site.name, folder)
    return _read(path)


def peers_of(site: SiteConfig) -> dict[str, bytes] | None:
    """Give the identities of the sites that this one believes; None: those that are relayed.

    In simulation, where no site has a key that was handed over, they are relayed.

    Raises:
        PrivacyError: a deployed site's site.yaml says nothing of it.
        ProvisionError: a file in the folder is no public key.
    """
    chosen = site.secure_aggregation
    if chosen is not None and chosen.peers is not None:
        found = registered_sites(chosen.peers)
        return {
            peer.name: serialization.load_pem_public_key(peer.pem).public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            for peer in found
        } | {site.name: identity_of(signing_key(site))}
    if chosen is None and site.server is not None:
        raise PrivacyError(
            f"{site.name}: the study sums updates securely, and site.yaml doesn't say whose keys "
            "to believe; put the other sites' .pub files, confirmed by another way than the "
            "coordinator, into a folder and name it as secure_aggregation.peers",
            code="secure-no-peers",
        )
    if chosen is not None:
        _log.warning(
            "%s takes the other sites' keys from the coordinator (secure_aggregation."
            "trust_coordinator): should it be dishonest, it can make sites up and see this site's "
            "update",
            site.name,
        )
    return None


def _read(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_ssh_private_key(path.read_bytes(), password=None)
    except FileNotFoundError as err:
        raise ProvisionError(f"{path}: no such key; nognet provision site", code="missing") from err
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as err:
        raise ProvisionError(
            f"{path}: not an OpenSSH private key without passphrase ({type(err).__name__})",
            code="unreadable",
        ) from err
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ProvisionError(f"{path}: expected an ECDSA P-384 key", code="wrong-curve")
    return key
