"""FedMedian (Flower's own) and FedTrimmedAvg: number by number (Yin et al. 2018)."""

from __future__ import annotations

import numpy as np
from flwr.serverapp.strategy import FedMedian

from nognet.config import FedMedianConfig, FedTrimmedAvgConfig
from nognet_server.strategies.rule import Combined, RoundInput
from nognet_server.strategies.through_flower import EVERY_SITE, aggregated


def fedmedian(_: FedMedianConfig, given: RoundInput) -> Combined:
    """Take the median of the sites (definition 1)."""
    return Combined(aggregated(FedMedian(**EVERY_SITE), given))


def fedtrimmedavg(config: FedTrimmedAvgConfig, given: RoundInput) -> Combined:
    """Average what is left without the k largest and k smallest (definition 2)."""
    cut = config.cut(len(given.replies))
    middle = np.sort(given.stacked(), axis=0)[cut : len(given.replies) - cut]
    return Combined(middle.mean(axis=0, dtype=np.float64))
