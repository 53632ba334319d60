"""What `central_privacy` beside `secure_aggregation` asks for: noise of the sites, in shares.

The coordinator sees no single update, so it can't clip one, and the sum only once noise is in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from nognet.config.central_privacy import CentralPrivacyConfig
from nognet.config.federation import FederationConfig
from nognet.config.secure_aggregation import SecureAggregationConfig

_OF_PLAIN_SUMS = ("bits", "clip_value", "clip_norm", "max_weight", "rounding")
_MOST_SITES = 64


def unfit_for_shared_noise(
    summing: SecureAggregationConfig,
    federation: FederationConfig,
    privacy: CentralPrivacyConfig | None,
) -> str:
    """Say what noise of the sites can't go with; empty when all fits, or no noise is asked for."""
    if privacy is None:
        return ""
    faults = (
        *_noise_faults(privacy),
        *_grid_faults(summing),
        *_site_faults(summing, federation, privacy),
    )
    return "; ".join(faults)


def _noise_faults(privacy: CentralPrivacyConfig) -> Iterator[str]:
    if privacy.clipping.name != "fixed":
        yield (
            "central_privacy.clipping is adaptive, and with secure_aggregation nobody may see how "
            "many updates were clipped; set fixed"
        )
    if privacy.weights.name != "uniform":
        yield (
            "central_privacy.weights is bounded, and with secure_aggregation each site's noise is "
            "made for an update that counts once; set uniform, with strategy.weighting: equal"
        )
    if privacy.noise_multiplier is None:
        yield (
            "central_privacy.target_epsilon would have each site look for the noise by itself, and "
            "all must make the same; set noise_multiplier (nognet privacy plan-central "
            "--noise-from sites --target-epsilon finds it)"
        )
    if privacy.max_epsilon is None:
        yield (
            "central_privacy.max_epsilon is missing: with secure_aggregation each site counts the "
            "noised updates it gives, and must know where to stop; a round that is interrupted is "
            "given twice"
        )


def _grid_faults(summing: SecureAggregationConfig) -> Iterator[str]:
    fields = type(summing).model_fields
    for name in _OF_PLAIN_SUMS:
        if getattr(summing, name) != fields[name].default:
            yield (
                f"secure_aggregation.{name} says how sums without noise are written; with "
                "central_privacy its noise_multiplier and clip_norm do: leave it out"
            )


def _site_faults(
    summing: SecureAggregationConfig, federation: FederationConfig, privacy: CentralPrivacyConfig
) -> Iterator[str]:
    minimum, bad = federation.minimum_sites, privacy.colluders
    if bad >= minimum:
        yield (
            f"central_privacy.colluding_sites is {bad} of federation.minimum_sites {minimum}: no "
            "noise would count; the noise is made in shares for minimum_sites less colluding_sites"
        )
        return
    for sites in range(minimum, min(federation.sites_awaited, _MOST_SITES) + 1):
        needed = max(minimum, math.floor(summing.threshold * sites + 1e-9) + 1)
        if bad >= 2 * needed - sites:
            yield (
                f"where {sites} sites begin, {needed} stay and {bad} work with the coordinator "
                "(central_privacy.colluding_sites), it could have two sums made and subtract; "
                "raise secure_aggregation.threshold or federation.minimum_sites"
            )
            return
