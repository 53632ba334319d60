"""A study's site-level privacy, worked out alike by the coordinator and by each site."""

from __future__ import annotations

import math

from nognet.config import StudyConfig
from nognet.fit.parts import shared_spec
from nognet.privacy.central import CentralPlan, central_plan
from nognet.privacy.distributed import NoiseShare, noise_share


def plan_for(study: StudyConfig) -> CentralPlan | None:
    """Work out a study's site-level privacy; None where it has none.

    Raises:
        PrivacyError: no noise is enough for the target, or the sites can't make it in shares.
    """
    privacy, sites = study.central_privacy, study.federation.expected_sites
    if privacy is None or sites is None:  # the study was refused if only one is missing
        return None
    return central_plan(privacy, sites=sites, rounds=study.rounds, share=share_for(study))


def share_for(study: StudyConfig) -> NoiseShare | None:
    """Work out a site's share of the noise; None where the sites make none.

    Raises:
        PrivacyError: no grid of whole numbers holds it.
    """
    privacy = study.central_privacy
    if privacy is None or privacy.noise_multiplier is None or study.secure_aggregation is None:
        return None
    return noise_share(
        privacy.noise_multiplier,
        clip_norm=privacy.clip_norm,
        numbers=sum(math.prod(tensor.shape) for tensor in shared_spec(study)),
        honest=study.federation.minimum_sites - privacy.colluders,
    )
