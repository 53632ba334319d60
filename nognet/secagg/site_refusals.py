"""What a site refuses at any step of a secure sum: too few sites, other words, the wrong order."""

from __future__ import annotations

from nognet.errors import PrivacyError
from nognet.secagg.session import MAX_SITES, Rules
from nognet.secagg.site_state import SiteState


def checked_count(step: str, sites: int, began: int, rules: Rules) -> int:
    """Refuse a step that too few or too many sites take; give how many are needed."""
    needed = rules.needed(began)
    if not needed <= sites <= MAX_SITES:
        raise PrivacyError(
            f"{sites} sites {step}, {needed} to {MAX_SITES} are needed where {began} began, so "
            "that the sum hides each of them",
            code="secure-too-few" if sites < needed else "secure-too-many",
        )
    return needed


def check_same_words(step: str, same: bool) -> None:
    """Refuse a step that comes again with something else."""
    if not same:
        raise PrivacyError(
            f"the coordinator asks for the step '{step}' a second time with something else; what "
            "would go out twice could uncover this site's update",
            code="secure-asked-twice",
        )


def check_not_over(state: SiteState) -> None:
    """Refuse a step of a round whose sum is made."""
    if state.stage == "revealed":
        raise PrivacyError(
            "the round's sum is made and its secrets are gone; nothing more goes out for it",
            code="secure-over",
        )


def too_early(step: str) -> PrivacyError:
    """Make the error for a step that comes before its turn."""
    return PrivacyError(
        f"the step '{step}' is asked for before those that come first", code="secure-order"
    )
