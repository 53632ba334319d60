"""Peers of MT-NoGNet, in our own implementation, to compare it with on equal terms.

Each is called as MT-NoGNet is and gives a `Prediction`. Copy and isotropic growth, which have
nothing to train, are in `nognet.fit.predictors`.
"""

from nognet.network.baselines.registry import BASELINES, Baseline

__all__ = ["BASELINES", "Baseline"]
