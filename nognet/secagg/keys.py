"""Keys of one session: made fresh, signed with the site's own key, agreed in pairs.

X25519 and HKDF-SHA256 (RFC 7748, 5869) for agreement, ECDSA P-384 for signatures, AES-256-GCM for
what one site sends another through the coordinator; all from `cryptography`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature, InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from nognet.errors import PrivacyError
from nognet.secagg.session import Session, bound_text

KEY_BYTES = 32
_NONCE_BYTES = 12


@dataclass(frozen=True)
class KeyPair:
    """An X25519 key pair, raw bytes."""

    private: bytes = field(repr=False)
    public: bytes

    @classmethod
    def fresh(cls) -> KeyPair:
        """Make one from the operating system's randomness."""
        return cls.of(X25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def of(cls, private: bytes) -> KeyPair:
        """Derive the public half."""
        key = X25519PrivateKey.from_private_bytes(private)
        return cls(private, key.public_key().public_bytes_raw())


@dataclass(frozen=True)
class Advert:
    """What a site shows of itself at the start of a session.

    Attributes:
        site: Its name.
        identity: Its long-lived public key (DER, P-384), which signed the rest.
        seal_key: X25519 public key for shares that are sent to it.
        mask_key: X25519 public key for masks in common with it.
        signature: Over session, name and both keys.
    """

    site: str
    identity: bytes
    seal_key: bytes
    mask_key: bytes
    signature: bytes

    def row(self) -> dict[str, bytes]:
        """Give what is shown beside the name, by the columns that travel."""
        return {
            "identity": self.identity,
            "seal": self.seal_key,
            "mask": self.mask_key,
            "signature": self.signature,
        }


def advert(
    session: Session, site: str, seal: KeyPair, mask: KeyPair, signer: ec.EllipticCurvePrivateKey
) -> Advert:
    """Sign a site's keys of a session."""
    text = _advert_text(session, site, seal.public, mask.public)
    return Advert(site, identity_of(signer), seal.public, mask.public, sign(signer, text))


def check_adverts(
    session: Session, adverts: Iterable[Advert], peers: Mapping[str, bytes] | None
) -> dict[str, Advert]:
    """Check whose keys they are; give them by name, sorted.

    Args:
        session: That they must be signed for.
        adverts: As they were received.
        peers: Site -> identity that was handed over out of band; None takes the identities as they
            were received, which defends against no coordinator that makes sites up.

    Raises:
        PrivacyError: a site is unknown or has another key than registered, a signature is wrong, or
            a name or key is there twice.
    """
    found: dict[str, Advert] = {}
    for item in sorted(adverts, key=lambda each: each.site):
        if item.site in found:
            raise PrivacyError(f"{item.site} shows its keys twice", code="secure-keys")
        if peers is not None and peers.get(item.site) != item.identity:
            what = "another key than the registered one" if item.site in peers else "no known key"
            raise PrivacyError(
                f"{item.site} signs with {what}; put its current .pub file, confirmed by another "
                "way than the coordinator, into the folder secure_aggregation.peers",
                code="secure-unknown-key",
            )
        text = _advert_text(session, item.site, item.seal_key, item.mask_key)
        check_signature(item.site, item.identity, item.signature, text)
        found[item.site] = item
    keys = [key for item in found.values() for key in (item.seal_key, item.mask_key)]
    identities = {item.identity for item in found.values()}
    if len(set(keys)) != len(keys) or len(identities) != len(found):
        raise PrivacyError("two sites show one and the same key", code="secure-keys")
    return found


def identity_of(signer: ec.EllipticCurvePrivateKey) -> bytes:
    """Give the public key as DER SubjectPublicKeyInfo."""
    return signer.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def sign(signer: ec.EllipticCurvePrivateKey, text: bytes) -> bytes:
    """Sign (ECDSA, SHA-384)."""
    return signer.sign(text, ec.ECDSA(hashes.SHA384()))


def check_signature(site: str, identity: bytes, signature: bytes, text: bytes) -> None:
    """Refuse what a site has not signed.

    Raises:
        PrivacyError: the identity is no P-384 key, or the signature is not of it and the text.
    """
    try:
        _public_key(identity).verify(signature, text, ec.ECDSA(hashes.SHA384()))
    except (InvalidSignature, UnsupportedAlgorithm, ValueError) as err:
        raise PrivacyError(
            f"what is said to come from {site} is not signed with its key; the coordinator, or "
            "someone on the way, changed it",
            code="secure-forged",
        ) from err


def agreed(private: bytes, public: bytes, *info: bytes) -> bytes:
    """Agree on a 256-bit key with the owner of a public key, for one use that `info` names.

    Raises:
        PrivacyError: the public key is of small order, so that anyone would know the result.
    """
    try:
        shared = X25519PrivateKey.from_private_bytes(private).exchange(
            X25519PublicKey.from_public_bytes(public)
        )
    except ValueError as err:
        raise PrivacyError("a key received is no usable X25519 key", code="secure-keys") from err
    return derived(shared, *info)


def derived(secret: bytes, *info: bytes) -> bytes:
    """Derive a 256-bit key of a secret for one use (HKDF-SHA256, without salt)."""
    return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=bound_text(*info)).derive(secret)


def sealed(key: bytes, text: bytes, *context: bytes) -> bytes:
    """Encrypt for the one other owner of a key; the context is authenticated with it."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, text, bound_text(*context))


def opened(key: bytes, box: bytes, *context: bytes) -> bytes:
    """Decrypt what `sealed` made.

    Raises:
        PrivacyError: it was made with another key or context, or was changed.
    """
    try:
        return AESGCM(key).decrypt(box[:_NONCE_BYTES], box[_NONCE_BYTES:], bound_text(*context))
    except (InvalidTag, ValueError) as err:
        raise PrivacyError(
            "shares received can't be opened: they were changed on their way, or are of another "
            "session",
            code="secure-shares",
        ) from err


def _public_key(identity: bytes) -> ec.EllipticCurvePublicKey:
    key = serialization.load_der_public_key(identity)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ValueError("no P-384 key")  # noqa: TRY004  as of a key that can't be read
    return key


def _advert_text(session: Session, site: str, seal_key: bytes, mask_key: bytes) -> bytes:
    return bound_text(b"keys", session.binding(), site.encode(), seal_key, mask_key)
