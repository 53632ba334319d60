"""The file of trusted entities, checked before Flower reads it."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from nognet_client.processes.trust import check_trusted_entities

from nognet.errors import ProvisionError


def openssh(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> str:
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return public.decode("ascii")


def test_ed25519_keys_are_named(tmp_path: Path) -> None:
    path = tmp_path / "trusted.yaml"
    keys = [openssh(ed25519.Ed25519PrivateKey.generate()) for _ in range(2)]
    path.write_text(f"fpk_a: {keys[0]}\nfpk_b: {keys[1]} a comment\n", encoding="utf-8")
    assert check_trusted_entities(path) == ("fpk_a", "fpk_b")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "lists no key"),
        ("{}", "lists no key"),
        ("- a", "lists no key"),
        ("a: [", "is no YAML"),
        ("fpk_a: nonsense", "fpk_a: no Ed25519 public key"),
        ("fpk_a: [1]", "fpk_a: no Ed25519 public key"),
        ("1: x", "1: no Ed25519"),
        (f"fpk_a: {openssh(ec.generate_private_key(ec.SECP384R1()))}", "no Ed25519 public key"),
    ],
)
def test_a_file_that_would_trust_nobody_or_everybody_is_refused(
    tmp_path: Path, content: str, words: str
) -> None:
    path = tmp_path / "trusted.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ProvisionError, match=words):
        check_trusted_entities(path)


def test_a_missing_file_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ProvisionError, match=r"can't be read .*nognet-server sign"):
        check_trusted_entities(tmp_path / "none.yaml")
