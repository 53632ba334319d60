"""The bundle signed with an Ed25519 key that the server need not hold (Flower's trusted entities).

A site that names trusted keys runs nothing whose bundle none of them signed: then neither the
server nor whoever broke into it can start a run of another release. The bundle is the same bytes
for a release, so it is signed once, where the key is kept, and the file with the signature is all
that the server gets.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_private_key,
)

import nognet
from nognet.errors import ProvisionError
from nognet.files import write_json_atomic
from nognet_server.processes import flower_internals as flower
from nognet_server.processes.bundle import thin_bundle

_HOW = "make one: ssh-keygen -t ed25519 -N '' -f signer"
_LICENSED = {"valid_license": "Valid"}
"""Flower's SuperNode looks at no signature without it."""


@dataclass(frozen=True)
class TrustedEntity:
    """A key whose signature counts, as a site's file of trusted entities lists it."""

    key_id: str
    public_key: str

    def to_yaml(self) -> str:
        """Write the line of the file."""
        return f"{self.key_id}: {self.public_key}"


def sign_bundle(key_file: Path, out: Path) -> TrustedEntity:
    """Sign this release's bundle; write the signature for the server, return who signed.

    Raises:
        ProvisionError: the key is missing or of another kind.
    """
    key = _load_key(key_file)
    content = thin_bundle().content
    signed_at = int(time.time())
    signature = key.sign(flower.create_message_to_sign(hashlib.sha256(content).digest(), signed_at))
    entity = _entity(key.public_key())
    encoded = base64.urlsafe_b64encode(signature).rstrip(b"=").decode("ascii")
    verification = json.dumps({"signed_at": signed_at, "signature": encoded})
    write_json_atomic(
        out,
        {
            "nognet_version": nognet.__version__,
            "bundle": hashlib.sha256(content).hexdigest(),
            "verifications": {entity.key_id: verification, **_LICENSED},
        },
    )
    return entity


def read_signature(path: Path) -> tuple[str, dict[str, str]]:
    """Read a signature of this release's bundle: its hash, and Flower's verifications.

    Raises:
        ProvisionError: it is missing, damaged, or of another release.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        version, bundle = str(value["nognet_version"]), str(value["bundle"])
        verifications = {str(k): str(v) for k, v in value["verifications"].items()}
    except FileNotFoundError as err:
        raise ProvisionError(
            f"{path}: the bundle's signature is missing; nognet-server sign makes it",
            code="missing",
        ) from err
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        raise ProvisionError(
            f"{path} is no signature of a bundle; nognet-server sign makes it", code="signature"
        ) from err
    if bundle != thin_bundle().hash_str:
        raise ProvisionError(
            f"{path} signs the bundle of nognet {version}, installed is {nognet.__version__}; sign "
            "again with this release (nognet-server sign)",
            code="signature",
        )
    return bundle, verifications


def _load_key(path: Path) -> ed25519.Ed25519PrivateKey:
    try:
        key = load_ssh_private_key(path.read_bytes(), None)
    except OSError as err:
        raise ProvisionError(
            f"{path}: the signing key can't be read ({err.strerror}); {_HOW}", code="missing"
        ) from err
    except (ValueError, TypeError, UnsupportedAlgorithm) as err:
        raise ProvisionError(
            f"{path} is no OpenSSH private key without a passphrase; {_HOW}", code="not-a-key"
        ) from err
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ProvisionError(f"{path} is no Ed25519 key; {_HOW}", code="wrong-curve")
    return key


def _entity(key: ed25519.Ed25519PublicKey) -> TrustedEntity:
    public = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")
    return TrustedEntity(f"fpk_{hashlib.sha256(public.encode()).hexdigest()[:16]}", public)
