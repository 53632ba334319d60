"""Shares of the others' secrets that a site holds: sealed on the way, opened and checked here."""

from __future__ import annotations

from nognet.errors import PrivacyError
from nognet.secagg.keys import (
    agreed,
    opened,
)
from nognet.secagg.session import Session
from nognet.secagg.shares import SECRET_BYTES
from nognet.secagg.site_state import SiteState


def shares_of(state: SiteState, name: str) -> tuple[bytes, bytes]:
    """Open what this site holds of another's seed and key."""
    if name == state.site:
        text = state.own_shares
    else:
        context = seal_context(state.session, name, state.site)
        key = agreed(state.seal.private, state.adverts[name].seal_key, *context)
        text = opened(key, state.incoming[name], *context)
    if len(text) != 2 * SECRET_BYTES:
        raise PrivacyError(f"{name} sealed something that is no share", code="secure-shares")
    return text[:SECRET_BYTES], text[SECRET_BYTES:]


def seal_context(session: Session, sender: str, receiver: str) -> tuple[bytes, ...]:
    """Name what a sealed share is bound to: the session, who sealed it, and for whom."""
    return (b"share", session.binding(), sender.encode(), receiver.encode())
