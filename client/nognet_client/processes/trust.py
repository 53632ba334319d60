"""A site's file of trusted entities: whose signature a run's bundle must carry."""

from __future__ import annotations

from pathlib import Path

import yaml
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from nognet.errors import ProvisionError

_FORM = "expected lines such as 'fpk_0123: ssh-ed25519 AAAA...' (nognet-server sign prints it)"


def check_trusted_entities(path: Path) -> tuple[str, ...]:
    """Check the file as Flower's SuperNode will read it; return the names of the keys.

    Raises:
        ProvisionError: it is missing, empty, or holds something else than Ed25519 public keys.
    """
    try:
        entities = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise ProvisionError(
            f"{path}: the trusted entities can't be read ({err.strerror}); {_FORM}", code="missing"
        ) from err
    except (yaml.YAMLError, ValueError) as err:
        raise ProvisionError(f"{path} is no YAML; {_FORM}", code="trusted-entities") from err
    if not isinstance(entities, dict) or not entities:
        # an empty one would make Flower look at no signature at all
        raise ProvisionError(f"{path} lists no key; {_FORM}", code="trusted-entities")
    for name, public_key in entities.items():
        if not isinstance(name, str) or not _is_ed25519(public_key):
            raise ProvisionError(
                f"{path}: {name}: no Ed25519 public key in OpenSSH's format; {_FORM}",
                code="trusted-entities",
            )
    return tuple(entities)


def _is_ed25519(public_key: object) -> bool:
    try:
        key = load_ssh_public_key(str(public_key).encode())
    except (ValueError, UnsupportedAlgorithm):
        return False
    return isinstance(key, ed25519.Ed25519PublicKey)
