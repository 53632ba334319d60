"""A site's consent and what was done under it, in words; without Flower and torch."""

from __future__ import annotations

from typing import Any

from nognet.config import SiteConfig
from nognet_client.consent.served import ServedRecord


def consent_words(site: SiteConfig) -> str:
    """Say in a line what a site accepts."""
    if site.consent is None:
        return (
            "none: site.yaml has no `consent:`, so this site takes part in whatever study its "
            "coordinator runs"
        )
    limits = site.consent.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    if site.consent.max_epsilon is not None:
        limits["max_delta"] = site.consent.max_delta
    if site.consent.studies is not None:
        limits["studies"] = [study.name for study in site.consent.studies]
    shown = (f"{k} {', '.join(v) if isinstance(v, list) else v}" for k, v in limits.items())
    return "; ".join(shown) or "no limits are set below `consent:`"


def consent_status(site: SiteConfig) -> dict[str, Any]:
    """Give what a site accepts, and what it has done for each study, as JSON values.

    Raises:
        ConsentError: the record of what was done can't be read.
    """
    done = ServedRecord(site.state).read().studies
    limits = site.consent
    return {
        "limits": None if limits is None else limits.model_dump(mode="json", exclude_none=True),
        "text": consent_words(site),
        "done": {
            study: {"rounds": served.rounds, "evaluations": served.evaluations}
            for study, served in sorted(done.items())
        },
    }
