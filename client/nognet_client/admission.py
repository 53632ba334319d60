"""Whether the privacy budget bears a run: looked at when it is joined, and where it wasn't."""

from __future__ import annotations

import logging

from nognet.config import StudyConfig
from nognet.fit.budget import admit_study, has_begun
from nognet.privacy.policy import stricter, unlimited_words
from nognet_client.site import Site
from nognet_client.spent import check_told_is_charged

_log = logging.getLogger("nognet.client")


def admit(study: StudyConfig, site: Site, run_token: str) -> None:
    """Refuse a run that the site's privacy budget doesn't bear, before it starts.

    Raises:
        PrivacyError: delta is too large for so few patients, the target can't be met, or the ledger
            can't be used.
        PrivacyBudgetError: the run would pass `max_epsilon` (``budget-run``).
    """
    name = site.config.name
    unlimited = unlimited_words(stricter(study.privacy, site.config.privacy))
    if unlimited is not None:
        _log.warning("%s: privacy of study '%s': %s", name, study.name, unlimited)
    if not site.prepared.records("train"):  # without any, the coordinator refuses it
        return
    check_told_is_charged(study, site.config)
    cost = admit_study(study, site.config, site.prepared, run_token)
    if cost is not None:
        _log.info(
            "%s: privacy of study '%s': epsilon %.3f now, %.3f after its rounds (delta %g)",
            name,
            study.name,
            cost.epsilon_before,
            cost.epsilon_after,
            cost.delta,
        )


def admit_unbegun(study: StudyConfig, site: Site, run_token: str) -> None:
    """Do so before the first round, too: joining may have been refused, or left out.

    Raises:
        PrivacyError, PrivacyBudgetError: as `admit`.
    """
    if not has_begun(study, site.config, run_token):
        admit(study, site, run_token)
