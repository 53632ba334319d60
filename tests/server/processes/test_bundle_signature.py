"""The bundle's signature, as Flower's SuperNode looks at it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from flwr.supernode.start_client_internal import _verify_fab
from nognet_server.processes import flower_internals as flower
from nognet_server.processes.bundle import thin_bundle
from nognet_server.processes.bundle_signature import read_signature, sign_bundle

from nognet.errors import ProvisionError


def write_key(path: Path, key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> Path:
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
    )
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return write_key(tmp_path / "signer", ed25519.Ed25519PrivateKey.generate())


def test_flower_verifies_what_was_signed(key: Path, tmp_path: Path) -> None:
    entity = sign_bundle(key, tmp_path / "signature.json")
    bundle, verifications = read_signature(tmp_path / "signature.json")
    ours = thin_bundle()
    signed = flower.Fab(ours.hash_str, ours.content, verifications)
    assert bundle == ours.hash_str
    assert _verify_fab(signed, {entity.key_id: entity.public_key})
    other = flower.Fab(ours.hash_str, ours.content + b"x", verifications)
    assert not _verify_fab(other, {entity.key_id: entity.public_key})
    stranger = sign_bundle(
        write_key(tmp_path / "other", ed25519.Ed25519PrivateKey.generate()), tmp_path / "other.json"
    )
    assert not _verify_fab(signed, {stranger.key_id: stranger.public_key})


def test_the_bundle_of_a_release_is_always_the_same_bytes() -> None:
    assert thin_bundle().content == thin_bundle().content


def test_a_signature_of_another_release_is_refused(key: Path, tmp_path: Path) -> None:
    path = tmp_path / "signature.json"
    sign_bundle(key, path)
    value = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(
        json.dumps(value | {"bundle": "0" * 64, "nognet_version": "9.9"}), encoding="utf-8"
    )
    with pytest.raises(ProvisionError, match=r"signs the bundle of nognet 9\.9, installed is"):
        read_signature(path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"nognet_version": 1, "bundle": 2}'])
def test_what_is_no_signature_is_said_so(tmp_path: Path, content: str) -> None:
    path = tmp_path / "signature.json"
    with pytest.raises(ProvisionError, match="is missing; nognet-server sign makes it"):
        read_signature(path)
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ProvisionError, match="is no signature of a bundle"):
        read_signature(path)


def test_a_key_that_cant_sign_is_said_so(tmp_path: Path) -> None:
    out = tmp_path / "signature.json"
    with pytest.raises(ProvisionError, match=r"can't be read .*ssh-keygen -t ed25519"):
        sign_bundle(tmp_path / "none", out)
    (tmp_path / "text").write_text("no key", encoding="utf-8")
    with pytest.raises(ProvisionError, match="no OpenSSH private key"):
        sign_bundle(tmp_path / "text", out)
    other = write_key(tmp_path / "ec", ec.generate_private_key(ec.SECP384R1()))
    with pytest.raises(ProvisionError, match="no Ed25519 key"):
        sign_bundle(other, out)
    assert not out.exists()
