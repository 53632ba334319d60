"""Noise that this site adds to its update before it is masked, and what it has given of it.

Each session of a secure sum has noise of its own, from a key that is on the site's disk until the
session's last step and is never shared. The same message so gets the same bytes; another session
of the round is another release, counted as one whatever became of the first.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nognet.config import SiteConfig, StudyConfig
from nognet.errors import PrivacyBudgetError, PrivacyError
from nognet.fit.site_privacy import plan_for
from nognet.privacy.accounting import PrivacyHistory
from nognet.privacy.central import CentralPlan
from nognet.privacy.discrete_gaussian import discrete_gaussian, noise_table
from nognet.privacy.distributed import NoiseShare
from nognet.privacy.secret import SecretStream
from nognet.privacy.whole_updates import whole_update
from nognet.secagg.masks import Words
from nognet.secagg.noised import NoisedCode, encode_noised
from nognet.secagg.session import Rules
from nognet.secagg.site_refusals import check_not_over
from nognet.secagg.site_state import SiteState
from nognet_client.masking.state import MaskingState
from nognet_client.masking.words import code_of
from nognet_client.spent import check_told_is_noted

_log = logging.getLogger("nognet.client.masking")


def rules_of(study: StudyConfig, threshold: float) -> Rules:
    """Say how many sites a sum needs: as many as the noise is made in shares for, if it is."""
    if study.central_privacy is None:
        return Rules(threshold)
    return Rules(threshold, study.federation.minimum_sites)


def noise_plan(study: StudyConfig) -> CentralPlan | None:
    """Work out the noise that sites make in a study; None where they make none.

    Raises:
        PrivacyError: they can't, or epsilon is not finite.
        PrivacyBudgetError: the rounds planned would pass the study's own limit.
    """
    plan = plan_for(study) if study.secure_aggregation is not None else None
    if plan is not None:
        plan.check_affordable()
    return plan


def check_has_noise(study: StudyConfig, plan: CentralPlan | None, site: SiteConfig) -> None:
    """Refuse updates without noise of the sites where this site limits what its updates may cost.

    Raises:
        PrivacyError: it has a `max_site_epsilon`, and in the study nothing would bound epsilon.
    """
    limit = site.secure_aggregation.max_site_epsilon if site.secure_aggregation else None
    if limit is None or (plan is not None and plan.share is not None):
        return
    raise PrivacyError(
        f"in study '{study.name}' the sites make no noise, so that no epsilon bounds what an "
        f"update of {site.name} tells; expected one within {limit:g} for all its updates "
        "together (secure_aggregation.max_site_epsilon in site.yaml): ask for a study with "
        "central_privacy beside secure_aggregation",
        code="secure-no-noise",
    )


def check_may_noise(
    study: StudyConfig,
    plan: CentralPlan,
    state: SiteState,
    kept: MaskingState,
    site: SiteConfig,
    rules: Rules,
) -> None:
    """Refuse a noised update that would be one too many, or whose noise would not be enough.

    All updates that this site ever gave count, of whatever run and study: they are of the same
    patients, and it is the coordinator who says what a new run is.

    Raises:
        PrivacyBudgetError: one more would pass the site's limit, or the study's.
        PrivacyError: so few of the sites that began must stay that dishonest ones could have two
            sums made; or fewer are noted than the audit log says left.
    """
    check_not_over(state)
    privacy, began = study.central_privacy, len(state.adverts)
    if privacy is not None and not rules.bears(privacy.colluders, began):
        raise PrivacyError(
            f"{began} sites began, {rules.needed(began)} are needed: {privacy.colluders} that work "
            "with the coordinator could have two sums made and subtract; a higher "
            "secure_aggregation.threshold would forbid it",
            code="secure-colluding",
        )
    check_told_is_noted(site)
    given = kept.noised_elsewhere(state.session)
    limit, whose = _limit(plan, site)
    counted = at_own_delta(plan, site)
    after = counted.accounts(plan.after_round(given)).epsilon
    if after > limit:
        raise PrivacyBudgetError(
            f"this site gave {given.steps} noised updates, of all studies and runs; one more would "
            f"cost it epsilon {after:.3f} at delta {counted.delta:g}, expected at most {limit:g} "
            f"({whose}); secure_aggregation.max_site_epsilon in site.yaml says what all of them "
            "together may cost",
            code="budget-site",
        )


def at_own_delta(plan: CentralPlan, site: SiteConfig) -> CentralPlan:
    """Give a plan as a site that limits its epsilon counts it: at its own delta, if smaller."""
    own = site.secure_aggregation
    if own is None or own.max_site_epsilon is None:
        return plan
    return replace(plan, delta=min(plan.delta, own.max_site_delta))


def _limit(plan: CentralPlan, site: SiteConfig) -> tuple[float, str]:
    own = site.secure_aggregation.max_site_epsilon if site.secure_aggregation else None
    if own is not None:
        return own, "secure_aggregation.max_site_epsilon"
    return math.inf if plan.max_epsilon is None else plan.max_epsilon, "central_privacy.max_epsilon"


def noised_words(
    update: NDArray[np.float64], plan: CentralPlan, share: NoiseShare, state: SiteState
) -> Words:
    """Clip an update, write it in steps, add this site's share of the noise.

    Args:
        update: ``(d,)``.
        plan: Of the study.
        share: The plan's.
        state: Of the session; its key makes the noise, alike each time it is asked for.

    Returns:
        Words ``(d + TAIL,)``, to be masked.

    Raises:
        PrivacyError: a number is not finite.
    """
    stream = SecretStream(state.noise)
    noised = whole_update(update, clip_norm=share.clip_norm, levels=share.levels, stream=stream)
    noised += discrete_gaussian(noise_table(share.variance), update.size, stream)
    _log.info(
        "%s: noise of standard deviation %.3g a number is added to the update before it is masked, "
        "a share for %d sites",
        state.site,
        share.std,
        share.honest,
    )
    return encode_noised(noised, _code(plan, share, len(state.adverts)))


def word_of(study: StudyConfig, sites: int) -> np.dtype[Any]:
    """Say as which words a study's updates are summed where so many sites began.

    Raises:
        PrivacyError: it has no secure sums, or noise that sites can't make.
    """
    plan = plan_for(study)
    if plan is None or plan.share is None:
        return code_of(study, sites).word
    return _code(plan, plan.share, sites).word


def _code(plan: CentralPlan, share: NoiseShare, sites: int) -> NoisedCode:
    return NoisedCode(share.step, share.largest, sites, plan.sites)


def facts_of(
    plan: CentralPlan, share: NoiseShare, releases: int, elsewhere: PrivacyHistory
) -> Mapping[str, Any]:
    """Say in a receipt which noise an update left with, and what this site's cost so far.

    Args:
        plan: Of the study, at the delta that the site counts by.
        share: The plan's.
        releases: Of the run, this one with them.
        elsewhere: What the site gave in other sessions, of all runs.
    """
    return {
        "noise_multiplier": plan.noise_multiplier,
        "clip_norm": share.clip_norm,
        "std": share.std,
        "honest_sites": share.honest,
        "releases": releases,
        "site_epsilon": plan.accounts(plan.after_round(elsewhere)).epsilon,
        "site_delta": plan.delta,
    }
