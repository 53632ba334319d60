"""A secure sum of sites in memory, message by message, with sites that leave at any step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec

from nognet.secagg import coordinator_side, site_side
from nognet.secagg.coordinator_side import Gathered, sum_of
from nognet.secagg.keys import identity_of
from nognet.secagg.masks import Words
from nognet.secagg.quantise import Code, Counts, Summed, decode, encode
from nognet.secagg.session import Rules, Session
from nognet.secagg.site_state import SiteState

SESSION = Session("ab" * 16, 3, "cd" * 16, "ef" * 32)
SUBJECT = bytes(32)
RULES = Rules(0.5)
CODE = Code(bits=20, clip_value=0.5, max_weight=100, sites=8)


@cache
def signer(site: str) -> ec.EllipticCurvePrivateKey:
    """Give a site's own key, the same in all tests."""
    number = int.from_bytes(site.encode(), "big") % 2**200 + 1
    return ec.derive_private_key(number, ec.SECP384R1())


def peers(sites: Sequence[str]) -> dict[str, bytes]:
    """Give what each site was handed over of the others."""
    return {site: identity_of(signer(site)) for site in sites}


def names(count: int) -> list[str]:
    """Name sites."""
    return [f"site_{number:02d}" for number in range(count)]


@dataclass
class Sum:
    """A secure sum under way; `leave` names who answers no more from a step on."""

    sites: Sequence[str]
    rules: Rules = RULES
    code: Code = CODE
    session: Session = SESSION
    subject: bytes = SUBJECT
    subjects: Mapping[str, bytes] = field(default_factory=dict)
    states: dict[str, SiteState] = field(default_factory=dict)
    masked: dict[str, Words] = field(default_factory=dict)
    signatures: dict[str, bytes] = field(default_factory=dict)
    commitments: dict[str, bytes] = field(default_factory=dict)

    def begin(self) -> Sum:
        """Round 0."""
        self.states = {
            site: site_side.begin(self.session, site, signer(site)) for site in self.sites
        }
        return self

    def share(self, leave: Sequence[str] = ()) -> Sum:
        """Round 1."""
        self.leave(leave)
        adverts = [state.adverts[site] for site, state in self.states.items()]
        for site, state in self.states.items():
            self.states[site] = site_side.share(state, adverts, self.rules, peers(self.sites))
            self.commitments[site] = state.commitment
        return self

    def mask(self, updates: Mapping[str, tuple[np.ndarray, int]], leave: Sequence[str] = ()) -> Sum:
        """Round 2; updates and weights by site. Who leaves here has sent its shares."""
        senders = dict(self.states)
        self.leave(leave)
        for site, state in self.states.items():
            incoming = {s: senders[s].outgoing[site] for s in senders if s != site}
            update, weight = updates[site]
            words, _ = encode(update, Counts(weight, weight, 1), self.code)
            subject = self.subjects.get(site, self.subject)
            self.states[site], self.masked[site] = site_side.mask(
                state, incoming, words, subject, self.rules
            )
        return self

    def agree(self, leave: Sequence[str] = ()) -> Sum:
        """Round 3; who leaves here has sent its masked update."""
        self.leave(leave)
        for site, state in self.states.items():
            self.states[site], self.signatures[site] = site_side.agree(
                state, list(self.masked), signer(site), self.rules
            )
        return self

    def reveal(self, leave: Sequence[str] = ()) -> Sum:
        """Round 4; who leaves here has signed."""
        self.leave(leave)
        for site, state in self.states.items():
            self.states[site] = site_side.reveal(state, self.signatures, self.rules)
        return self

    def leave(self, sites: Sequence[str]) -> None:
        """Hear no more of these sites."""
        self.states = {s: state for s, state in self.states.items() if s not in sites}

    @property
    def gathered(self) -> Gathered:
        """What the coordinator knows."""
        adverts = next(iter(self.states.values())).adverts
        survivors = tuple(sorted(self.masked))
        return Gathered(self.session, adverts, self.commitments, survivors, self.subject)

    def unmasked(self, leave: Sequence[str] = ()) -> Words:
        """Take the masks off, without these sites' shares."""
        revealed = {s: st.revealed for s, st in self.states.items() if s not in leave}
        return coordinator_side.unmask(self.gathered, sum_of(self.masked), revealed, self.rules)

    def result(self) -> Summed:
        """Read the sum."""
        return decode(self.unmasked(), self.code, sites=len(self.masked))


def updates_of(
    sites: Sequence[str], *, size: int = 40, seed: int = 0, scale: float = 0.1
) -> dict[str, tuple[np.ndarray, int]]:
    """Draw an update and a weight a site."""
    rng = np.random.default_rng(seed)
    return {site: (rng.normal(scale=scale, size=size), int(rng.integers(1, 90))) for site in sites}


def plain_mean(updates: Mapping[str, tuple[np.ndarray, int]], sites: Sequence[str]) -> np.ndarray:
    """Average in the clear, weighted."""
    total = sum(updates[site][1] * updates[site][0] for site in sites)
    return np.asarray(total / sum(updates[site][1] for site in sites))
