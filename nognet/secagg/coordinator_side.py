"""What the coordinator computes in a secure sum: who is still in it, and the sum without masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nognet.errors import PrivacyError
from nognet.secagg.derivation import commitment_of, own_mask_key, pair_mask_key, roster_digest
from nognet.secagg.keys import Advert, KeyPair
from nognet.secagg.masks import Words, with_masks
from nognet.secagg.session import Rules, Session
from nognet.secagg.shares import join
from nognet.secagg.site_state import Revealed


@dataclass(frozen=True)
class Gathered:
    """What the coordinator knows of a session before it asks for shares.

    Attributes:
        session: The session.
        adverts: Of all sites that began (U1), by name; the places of shares follow their order.
        commitments: Of the sites that sent shares (U2), to their seeds.
        survivors: Sites whose masked updates are in the sum (U3), sorted.
        subject: Digest of what they were asked to train on.
    """

    session: Session
    adverts: Mapping[str, Advert]
    commitments: Mapping[str, bytes]
    survivors: tuple[str, ...]
    subject: bytes = field(repr=False)

    @property
    def members(self) -> tuple[str, ...]:
        """Sites that hold masks in common, sorted."""
        return tuple(sorted(self.commitments))

    @property
    def dropped(self) -> tuple[str, ...]:
        """Sites that masked or might have, and are not in the sum."""
        return tuple(name for name in self.members if name not in self.survivors)


def sum_of(masked: Mapping[str, Words]) -> Words:
    """Add the masked updates, modulo the words' size.

    Raises:
        PrivacyError: there is none, or they differ in length or word.
    """
    vectors = [masked[name] for name in sorted(masked)]
    if not vectors or any(
        (v.shape, v.dtype) != (vectors[0].shape, vectors[0].dtype) for v in vectors
    ):
        raise PrivacyError("masked updates of different forms", code="secure-form")
    total = vectors[0].copy()
    for vector in vectors[1:]:
        total += vector
    return total


def unmask(
    gathered: Gathered, total: Words, revealed: Mapping[str, Revealed], rules: Rules
) -> Words:
    """Take all masks off the sum.

    Args:
        gathered: What is known of the session.
        total: Sum of the masked updates of the survivors.
        revealed: What sites of the sum gave, by site.
        rules: Of the study.

    Returns:
        The sum of the updates as words.

    Raises:
        PrivacyError: too few sites gave shares, or a share is wrong.
    """
    places = {name: place for place, name in enumerate(sorted(gathered.adverts), start=1)}
    needed = rules.needed(len(places))
    session, subject = gathered.session, gathered.subject
    minus: list[bytes] = []
    plus: list[bytes] = []
    for name in gathered.survivors:
        shares = {places[by]: r.seeds[name] for by, r in revealed.items() if name in r.seeds}
        seed = join(shares, needed=needed)
        if commitment_of(seed) != gathered.commitments[name]:
            raise _wrong_share(name)
        minus.append(own_mask_key(seed, session, name, subject))
    bound_to = roster_digest(gathered.adverts, gathered.members) + subject
    for name in gathered.dropped:
        shares = {places[by]: r.keys[name] for by, r in revealed.items() if name in r.keys}
        pair = KeyPair.of(join(shares, needed=needed))
        if pair.public != gathered.adverts[name].mask_key:
            raise _wrong_share(name)
        for other in gathered.survivors:
            public = gathered.adverts[other].mask_key
            key = pair_mask_key(pair.private, public, session, (name, other), bound_to)
            (minus if other < name else plus).append(key)
    return with_masks(total, plus, minus)


def _wrong_share(name: str) -> PrivacyError:
    return PrivacyError(
        f"a share of {name}'s secrets is wrong: {name} dealt wrong ones, or one of the sites gave "
        "another; the round can't be used",
        code="secure-wrong-share",
    )
