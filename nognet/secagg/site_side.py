"""What a site does in a secure sum: a state machine of pure functions, state in, state out.

    begin   its keys of the session, signed                              -> advertised
    share   shares of its two secrets, sealed for each other site         -> shared
    mask    its update under its own mask and one a pair of sites         -> masked
    agree   its signature under who is in the sum                         -> agreed
    reveal  of each site one share: of the own mask's seed where it is in
            the sum, of the pair masks' key where it is not; never both   -> revealed

(Bonawitz et al. 2017, figure 4.) A step that is asked for again in the same words is answered
alike; in other words it is refused. After the last step the secrets are gone from the state.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric import ec

from nognet.errors import PrivacyError
from nognet.secagg.derivation import agreement_text, own_mask_key, pair_mask_key, roster_digest
from nognet.secagg.held_shares import seal_context, shares_of
from nognet.secagg.keys import (
    KEY_BYTES,
    Advert,
    KeyPair,
    advert,
    agreed,
    check_adverts,
    check_signature,
    sealed,
    sign,
)
from nognet.secagg.masks import Words, with_masks
from nognet.secagg.session import Rules, Session
from nognet.secagg.shares import split
from nognet.secagg.site_refusals import check_not_over, check_same_words, checked_count, too_early
from nognet.secagg.site_state import GONE, Revealed, SiteState, Stage


def begin(session: Session, site: str, signer: ec.EllipticCurvePrivateKey) -> SiteState:
    """Make fresh secrets for a session and sign the public keys (round 0, AdvertiseKeys)."""
    seal, pair = KeyPair.fresh(), KeyPair.fresh()
    own = advert(session, site, seal, pair, signer)
    return SiteState(
        session,
        site,
        "advertised",
        {site: own},
        seal=seal,
        pair=pair,
        seed=secrets.token_bytes(KEY_BYTES),
        noise=secrets.token_bytes(KEY_BYTES),
    )


def share(
    state: SiteState, adverts: Iterable[Advert], rules: Rules, peers: Mapping[str, bytes] | None
) -> SiteState:
    """Check the others' keys and seal shares of the own secrets for them (round 1, ShareKeys).

    Args:
        state: As `begin` left it.
        adverts: Of all sites that began, the own among them.
        rules: Of the study.
        peers: Identities that were handed over; None: see `keys.check_adverts`.

    Returns:
        The state with `outgoing`, which goes out beside `commitment`.

    Raises:
        PrivacyError: a key is not of whom it says, there are too few sites or too many, the own key
            is not among them, or the step was done with other keys.
    """
    checked = check_adverts(state.session, adverts, peers)
    if state.stage != "advertised":
        check_same_words("share", dict(state.adverts) == checked)
        check_not_over(state)
        return state
    if checked.get(state.site) != state.adverts[state.site]:
        raise PrivacyError("the site's own keys are not among those received", code="secure-keys")
    needed = checked_count("begin", len(checked), len(checked), rules)
    pieces = zip(
        split(state.seed, needed=needed, holders=len(checked)),
        split(state.pair.private, needed=needed, holders=len(checked)),
        strict=True,
    )
    own, outgoing = b"", {}
    for (name, item), (seed_share, key_share) in zip(checked.items(), pieces, strict=True):
        text = seed_share + key_share
        if name == state.site:
            own = text
            continue
        context = seal_context(state.session, state.site, name)
        key = agreed(state.seal.private, item.seal_key, *context)
        outgoing[name] = sealed(key, text, *context)
    return replace(state, stage="shared", adverts=checked, outgoing=outgoing, own_shares=own)


def mask(
    state: SiteState, incoming: Mapping[str, bytes], words: Words, subject: bytes, rules: Rules
) -> tuple[SiteState, Words]:
    """Hide the update (round 2, MaskedInputCollection).

    Args:
        state: As `share` left it.
        incoming: Sealed shares for this site by sender; with it, the senders are U2.
        words: The update, as `quantise.encode` wrote it; left as it is.
        subject: Digest of what all sites were asked to train on. Masks of a pair cancel only where
            both were asked the same, so that weights made for one site alone uncover nothing
            (Pasquini et al. 2022, "Eluding secure aggregation in federated learning").
        rules: Of the study.

    Raises:
        PrivacyError: too few sites are left, a sender did not begin, a share can't be opened, or
            the step was done with another update.
    """
    digest = hashlib.sha256(words.data).hexdigest()
    check_incoming(state, incoming, rules)
    if state.stage == "shared":
        state = replace(
            state,
            stage="masked",
            incoming=dict(sorted(incoming.items())),
            subject=subject.hex(),
            input_digest=digest,
        )
    else:
        same = (dict(state.incoming), state.subject, state.input_digest)
        check_same_words("mask", same == (dict(incoming), subject.hex(), digest))
    check_not_over(state)
    plus = [own_mask_key(state.seed, state.session, state.site, subject)]
    minus: list[bytes] = []
    for name in state.incoming:
        key = pair_mask_key(
            state.pair.private,
            state.adverts[name].mask_key,
            state.session,
            (state.site, name),
            roster_digest(state.adverts, state.members) + subject,
        )
        (plus if state.site < name else minus).append(key)
    return state, with_masks(words, plus, minus)


def agree(
    state: SiteState, survivors: Iterable[str], signer: ec.EllipticCurvePrivateKey, rules: Rules
) -> tuple[SiteState, bytes]:
    """Sign who is in the sum, once (round 3, ConsistencyCheck).

    Raises:
        PrivacyError: too few, one that took no part, without this site, or others than it signed.
    """
    chosen = tuple(sorted(set(survivors)))
    if state.stage in ("advertised", "shared"):
        raise too_early("agree")
    if state.stage != "masked":
        check_same_words("agree", chosen == state.survivors)
    if state.site not in chosen or not set(chosen) <= set(state.members):
        raise PrivacyError(
            "the sites said to be in the sum are not those that took part", code="secure-survivors"
        )
    checked_count("end", len(chosen), len(state.adverts), rules)
    signature = sign(signer, agreement_text(state.session, state.adverts, state.members, chosen))
    stage: Stage = "agreed" if state.stage == "masked" else state.stage
    return replace(state, stage=stage, survivors=chosen), signature


def reveal(state: SiteState, signatures: Mapping[str, bytes], rules: Rules) -> SiteState:
    """Give one share of each site, and forget all secrets (round 4, Unmasking).

    Args:
        state: As `agree` left it.
        signatures: Of sites in the sum under who is in it.
        rules: Of the study.

    Returns:
        The state with `revealed`, and without any secret.

    Raises:
        PrivacyError: fewer than the threshold signed the same list, or a signature is forged.
    """
    if state.stage == "revealed":
        return state
    if state.stage != "agreed":
        raise too_early("reveal")
    if not set(signatures) <= set(state.survivors):
        raise PrivacyError("a site signed that is not in the sum", code="secure-survivors")
    checked_count("sign", len(signatures), len(state.adverts), rules)
    text = agreement_text(state.session, state.adverts, state.members, state.survivors)
    for name, signature in signatures.items():
        check_signature(name, state.adverts[name].identity, signature, text)
    seeds, keys = {}, {}
    for name in state.members:
        seed_share, key_share = shares_of(state, name)
        if name in state.survivors:
            seeds[name] = seed_share
        else:
            keys[name] = key_share
    return replace(
        state,
        stage="revealed",
        seal=GONE,
        pair=GONE,
        seed=b"",
        noise=b"",
        outgoing={},
        own_shares=b"",
        incoming=dict.fromkeys(state.incoming, b""),
        revealed=Revealed(seeds, keys),
    )


def check_incoming(state: SiteState, incoming: Mapping[str, bytes], rules: Rules) -> None:
    """Refuse unknown senders and shares that can't be opened, before a round is trained for them.

    Raises:
        PrivacyError: there are such, or too few senders, or it is too early or too late.
    """
    if state.stage == "advertised":
        raise too_early("mask")
    if state.stage != "shared":
        check_same_words("mask", dict(state.incoming) == dict(incoming))
        return
    if state.site in incoming or not set(incoming) <= set(state.adverts):
        raise PrivacyError("shares of a site that did not begin", code="secure-shares")
    checked_count("go on", len(incoming) + 1, len(state.adverts), rules)
    holding = replace(state, incoming=incoming)
    for name in incoming:
        shares_of(holding, name)
