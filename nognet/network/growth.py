"""The growth head: how fast this nodule grows, and how sure that is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nognet.config import NetworkConfig
from nognet.network.batch import Prior
from nognet.network.encoder import Features
from nognet.network.layers import DAYS_PER_YEAR, dilate, time_factor
from nognet.network.nodule import DESCRIPTOR_COUNT, nodule_descriptors

_HIDDEN = 128
_TYPICAL_SPREAD = 0.3
_SHORTEST_PRIOR_DAYS = 30.0


class GrowthHead(nn.Module):
    """Growth rate (log volume ratio a year) from the nodule's shape and from learned features.

    The shape leads: with few pairs it is learned at once, while features of the encoder, which
    start with a small share, take longer. Two numbers come out: how fast the nodule would change,
    and whether it changes at all; their product is the rate (docs/decisions/0009). Where the
    network takes a scan before the baseline, the growth between the two is one more descriptor.
    Always float32: descriptors hold differences of large numbers.
    """

    feature_share = 0.25
    gain = 3.0

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.bound = config.max_log_growth_per_year
        descriptors = DESCRIPTOR_COUNT + (2 if config.prior_scan else 0)
        self.features = nn.Linear((2 + 4) * config.width, 16)
        self.inner = nn.Linear(16 + descriptors, _HIDDEN)
        self.middle = nn.Linear(_HIDDEN, _HIDDEN)
        self.outer = nn.Linear(_HIDDEN, 2)
        self.spread = nn.Linear(_HIDDEN, 1)

    def forward(
        self,
        features: Features,
        image: Tensor,
        mask: Tensor,
        prior: Prior | None,
        interval_days: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Predict log volume ratio and its spread (mean absolute error), each ``(B,)``.

        Both are exactly 0 at 0 days; the ratio keeps the configured bound on the rate. The spread
        reads the head's state and does not shape it.
        """
        with torch.autocast(image.device.type, enabled=False):
            described = [nodule_descriptors(image.float(), mask.float())]
            if prior is not None:
                described.append(past_growth(mask, prior, self.bound))
            learned = self.feature_share * F.silu(self.features(self._pooled(features, mask)))
            hidden = F.silu(self.inner(torch.cat([*described, learned], dim=1)))
            hidden = F.silu(self.middle(hidden))
            speed, moves = (self.gain * self.outer(hidden)).unbind(1)
            rate = self.bound * torch.tanh(speed / self.bound) * torch.sigmoid(moves)
            spread = self.spread(hidden.detach())[:, 0].clamp(-3.0, 3.0).exp()
            years = interval_days / DAYS_PER_YEAR
            return rate * years, _TYPICAL_SPREAD * spread * time_factor(interval_days)

    @staticmethod
    def _pooled(features: Features, mask: Tensor) -> Tensor:
        """Mean features of the nodule's region at 1/4 and of the whole ROI at 1/8 scale."""
        region = F.avg_pool3d(dilate(mask, 1), 4)
        weight = region / region.flatten(1).sum(1).clamp_min(1e-3)[:, None, None, None, None]
        local = (features.quarter.float() * weight).flatten(2).sum(2)
        return torch.cat([local, features.eighth.float().flatten(2).mean(2)], dim=1)


def past_growth(mask: Tensor, prior: Prior, bound: float) -> Tensor:
    """Growth from the prior scan to the baseline: rate a year within +-`bound`, and 1 if known.

    Returns:
        ``(B, 2)``; zeros where the prior scan is the baseline again, or either mask is empty.
    """
    now, before = (m.flatten(1).sum(1) for m in (mask, prior.mask))
    known = (prior.days_before > 0) & (now > 0) & (before > 0)
    years = prior.days_before.clamp_min(_SHORTEST_PRIOR_DAYS) / DAYS_PER_YEAR
    rate = ((now.clamp_min(1.0) / before.clamp_min(1.0)).log() / years).clamp(-bound, bound)
    return torch.stack([rate, torch.ones_like(rate)], dim=1) * known[:, None]
