"""What is derived and signed in a session: keys of masks, commitments, the agreement's text."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from nognet.secagg.keys import Advert, agreed, derived
from nognet.secagg.session import Session, bound_text, names_text


def commitment_of(seed: bytes) -> bytes:
    """Commit to a seed of 256 random bits."""
    return hashlib.sha256(bound_text(b"seed", seed)).digest()


def own_mask_key(seed: bytes, session: Session, site: str, subject: bytes) -> bytes:
    """Derive the key of a site's own mask."""
    return derived(seed, b"own mask", session.binding(), site.encode(), subject)


def pair_mask_key(
    private: bytes, public: bytes, session: Session, pair: tuple[str, str], bound_to: bytes
) -> bytes:
    """Agree on the key of the mask that two sites have in common; the same at both."""
    return agreed(private, public, b"pair mask", session.binding(), names_text(pair), bound_to)


def roster_digest(adverts: Mapping[str, Advert], members: tuple[str, ...]) -> bytes:
    """Hash who takes part and with which keys."""
    parts = [
        part
        for name in sorted(members)
        for part in (name.encode(), adverts[name].seal_key, adverts[name].mask_key)
    ]
    return hashlib.sha256(bound_text(b"roster", *parts)).digest()


def agreement_text(
    session: Session,
    adverts: Mapping[str, Advert],
    members: tuple[str, ...],
    survivors: tuple[str, ...],
) -> bytes:
    """Give the text that sites sign to agree on who is in the sum."""
    roster = roster_digest(adverts, members)
    return bound_text(b"in the sum", session.binding(), roster, names_text(survivors))
