"""Keys of the sites: made at the site, their public part registered at the coordinator.

ECDSA on P-384 in OpenSSH's format, as Flower's node authentication wants it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from nognet.config.base import NAME_PATTERN
from nognet.errors import ProvisionError
from nognet.files import atomic_path, write_text_atomic


@dataclass(frozen=True)
class RegisteredSite:
    """A site's name and public key, as registered at the coordinator.

    Attributes:
        name: The site's name, as in its `site.yaml`.
        public_key: The OpenSSH line without its comment.
    """

    name: str
    public_key: str

    @property
    def fingerprint(self) -> str:
        """SHA-256 fingerprint as ``ssh-keygen -l`` prints it."""
        blob = base64.b64decode(self.public_key.split()[1])
        return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")

    @property
    def pem(self) -> bytes:
        """The key as PEM SubjectPublicKeyInfo."""
        key = serialization.load_ssh_public_key(self.public_key.encode())
        return key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )


def create_site_key(name: str, folder: Path) -> tuple[Path, Path]:
    """Make a site's key pair; return the private and the public file.

    Raises:
        ProvisionError: the name is not one, or the site has a key there already.
    """
    _check_name(name, "--name")
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    if private.exists():
        raise ProvisionError(
            f"{private} exists; a new key would lock this site out until it is registered again. "
            "Move the old one away if that is what you want",
            code="key-exists",
        )
    key = ec.generate_private_key(ec.SECP384R1())
    with atomic_path(private, mode=0o600) as temporary:
        temporary.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.OpenSSH,
                serialization.NoEncryption(),
            )
        )
    line = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    write_text_atomic(public, f"{line.decode()} {name}\n")
    return private, public


def register_site(
    sites: Path, public_file: Path, *, name: str | None = None, replace: bool = False
) -> RegisteredSite:
    """Put a site's public key into the folder `sites`; the name is the key's comment by default.

    Raises:
        ProvisionError: no OpenSSH ECDSA P-384 public key, no or a bad name, the name is taken
            by another key, or the key by another name.
    """
    site = read_public_key(public_file, name=name)
    for other in registered_sites(sites):
        if other.public_key == site.public_key and other.name != site.name:
            raise ProvisionError(
                f"the key in {public_file} is registered as '{other.name}' already; every site "
                "makes a key of its own",
                code="duplicate-key",
            )
        if other.name == site.name and other.public_key != site.public_key and not replace:
            raise ProvisionError(
                f"'{site.name}' is registered with another key ({other.fingerprint}); if the site "
                "made a new one and confirmed its fingerprint by another way, add --replace",
                code="duplicate-name",
            )
    write_text_atomic(sites / f"{site.name}.pub", f"{site.public_key} {site.name}\n")
    return site


def registered_sites(sites: Path) -> tuple[RegisteredSite, ...]:
    """Read the registered keys, sorted by name; the name is the file's.

    Raises:
        ProvisionError: the folder is missing, a file in it is no site's public key, or two
            names share one key.
    """
    if not sites.is_dir():
        raise ProvisionError(
            f"{sites}: no such folder of registered public keys; make it: "
            "nognet provision coordinator",
            code="missing",
        )
    found = tuple(read_public_key(path, name=path.stem) for path in sorted(sites.glob("*.pub")))
    by_key: dict[str, str] = {}
    for site in found:
        if site.public_key in by_key:
            raise ProvisionError(
                f"{sites}: '{by_key[site.public_key]}' and '{site.name}' have one and the same "
                "key; every site makes a key of its own",
                code="duplicate-key",
            )
        by_key[site.public_key] = site.name
    return found


def read_public_key(path: Path, *, name: str | None = None) -> RegisteredSite:
    """Read an OpenSSH ECDSA P-384 public key; `name` or else its comment names the site.

    Raises:
        ProvisionError: the file is missing, or is no such key, or gives no good name.
    """
    try:
        text = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError as err:
        raise ProvisionError(f"{path}: no such file", code="missing") from err
    except (OSError, UnicodeDecodeError) as err:
        raise ProvisionError(f"{path}: can't be read as text", code="unreadable") from err
    if "PRIVATE KEY" in text:
        raise ProvisionError(
            f"{path} is a private key, which must never leave its site; ask the site for the .pub "
            "file and, if this one came by mail, for a new key",
            code="private-key",
        )
    try:
        key = serialization.load_ssh_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm) as err:
        raise ProvisionError(
            f"{path} is no OpenSSH public key (expected 'ecdsa-sha2-nistp384 AAAA... name')",
            code="not-a-public-key",
        ) from err
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ProvisionError(
            f"{path} holds a key of kind {text.split()[0]}, expected ecdsa-sha2-nistp384; the "
            "site makes one with nognet provision site",
            code="wrong-curve",
        )
    parts = text.split()
    chosen = name if name is not None else (parts[2] if len(parts) > 2 else "")
    _check_name(chosen, f"{path}: the key's comment" if name is None else f"{path}: the name")
    return RegisteredSite(chosen, " ".join(parts[:2]))


def _check_name(name: str, where: str) -> None:
    if not re.fullmatch(NAME_PATTERN, name):
        raise ProvisionError(
            f"{where}: found {name!r}, expected lower-case letters, digits, '-' and '_', at most "
            "64 characters; the same name as in site.yaml",
            code="bad-name",
        )
