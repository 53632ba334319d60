"""Which updates this site gives in the clear, and which as part of a secure sum alone."""

from __future__ import annotations

import logging

from nognet.config import (
    SiteConfig,
    parse_study_json,
)
from nognet.errors import PrivacyError
from nognet.privacy.central import promise_in_words
from nognet_client.masking.keys import peers_of, signing_key
from nognet_client.masking.noise import at_own_delta, check_has_noise, noise_plan

_log = logging.getLogger("nognet.client.masking")


def check_can_sum(study_json: str, site: SiteConfig) -> None:
    """Refuse a study before it starts whose updates this site will not give.

    Raises:
        PrivacyError: the study sums securely and the site has no keys to believe, or noise that
            sites make and can't, or none where the site wants it; or it doesn't sum securely, and
            the site takes part in nothing else.
        PrivacyBudgetError: the noise promises less than the study's own limit.
        ProvisionError: a key is missing or wrong.
        ConfigError: the study can't be read by this release.
    """
    study = parse_study_json(study_json)
    if study.secure_aggregation is None:
        check_may_leave_unmasked(study_json, site)
        return
    signing_key(site)
    peers_of(site)
    plan = noise_plan(study)
    check_has_noise(study, plan, site)
    if plan is not None:
        _log.info("%s: %s", site.name, promise_in_words(at_own_delta(plan, site)))


def check_may_leave_unmasked(study_json: str, site: SiteConfig) -> None:
    """Refuse to give an update, or a model, in the clear where it is to be masked.

    Raises:
        PrivacyError: the study sums securely, or the site takes part in nothing else, or in nothing
            without noise of the sites.
        ConfigError: the study can't be read by this release.
    """
    study = parse_study_json(study_json)
    if study.secure_aggregation is not None:
        raise PrivacyError(
            f"study '{study.name}' sums updates securely, and the coordinator asks for one in the "
            "clear",
            code="secure-in-clear",
        )
    if site.secure_aggregation is not None and site.secure_aggregation.required:
        raise PrivacyError(
            f"{site.name} takes part in studies with secure_aggregation alone, and '"
            f"{study.name}' has none; secure_aggregation.required: false in site.yaml would "
            "let it",
            code="secure-required",
        )
    check_has_noise(study, None, site)
