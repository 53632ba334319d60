"""A site's part in one session as a value, and as text for the site's own disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from nognet.errors import WireError
from nognet.secagg.derivation import commitment_of
from nognet.secagg.keys import Advert, KeyPair
from nognet.secagg.session import Session

Stage = Literal["advertised", "shared", "masked", "agreed", "revealed"]
STAGES: tuple[Stage, ...] = ("advertised", "shared", "masked", "agreed", "revealed")
GONE = KeyPair(b"", b"")
"""A key pair that is forgotten."""
_BYTES = "hex:"


@dataclass(frozen=True)
class Revealed:
    """Shares that a site gives away: of seeds of sites in the sum, of keys of those that left."""

    seeds: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    keys: Mapping[str, bytes] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class SiteState:
    """A site's part in one session, complete: what it needs after a crash at any point.

    Attributes:
        session: The session.
        site: The site's name.
        stage: The last step done.
        adverts: Keys of the sites that began (U1), by name; its own alone before `share`.
        seal: Its key pair for sealed shares.
        pair: Its key pair for masks in common with others.
        seed: Of its own mask.
        noise: Key of the noise it adds, where the study has sites make it; never shared.
        outgoing: Its sealed shares by receiver.
        incoming: Sealed shares for it by sender (U2 without itself).
        own_shares: Its own shares of its seed and key, 64 bytes.
        subject: What the masked update was trained on (hexadecimal digest).
        input_digest: SHA-256 of the words before masking.
        survivors: Whom it agreed to be in the sum (U3).
        revealed: What it gave away.
    """

    session: Session
    site: str
    stage: Stage
    adverts: Mapping[str, Advert]
    seal: KeyPair = field(default=GONE, repr=False)
    pair: KeyPair = field(default=GONE, repr=False)
    seed: bytes = field(default=b"", repr=False)
    noise: bytes = field(default=b"", repr=False)
    outgoing: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    incoming: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    own_shares: bytes = field(default=b"", repr=False)
    subject: str = ""
    input_digest: str = ""
    survivors: tuple[str, ...] = ()
    revealed: Revealed = field(default_factory=Revealed, repr=False)

    @property
    def members(self) -> tuple[str, ...]:
        """Sites whose shares it holds, itself among them, sorted (U2)."""
        return tuple(sorted({self.site, *self.incoming}))

    @property
    def commitment(self) -> bytes:
        """What is public of the seed; a wrong share of it is found by this."""
        return commitment_of(self.seed)


def to_text(state: SiteState) -> str:
    """Write a state; it holds secrets."""
    return json.dumps(_plain(asdict(state)), sort_keys=True)


def from_text(text: str) -> SiteState:
    """Read what `to_text` wrote.

    Raises:
        WireError: the text is damaged.
    """
    try:
        values = _raw(json.loads(text))
        parts = {
            "stage": STAGES[STAGES.index(values["stage"])],
            "session": Session(**values["session"]),
            "adverts": {name: Advert(**item) for name, item in values["adverts"].items()},
            "seal": KeyPair(**values["seal"]),
            "pair": KeyPair(**values["pair"]),
            "survivors": tuple(values["survivors"]),
            "revealed": Revealed(**values["revealed"]),
        }
        return SiteState(**{**values, **parts})
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise WireError(
            "the site's kept part in a secure sum is damaged; the site sits this round out",
            code="secure-state",
        ) from err


def _plain(value: Any) -> Any:  # noqa: ANN401  nested values of a dataclass
    if isinstance(value, bytes):
        return _BYTES + value.hex()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _raw(value: Any) -> Any:  # noqa: ANN401  any JSON value
    if isinstance(value, str) and value.startswith(_BYTES):
        return bytes.fromhex(value.removeprefix(_BYTES))
    if isinstance(value, dict):
        return {key: _raw(item) for key, item in value.items()}
    return value
