"""Whether a pre-training was worth it: its figures on phantoms that it has not seen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch

from nognet.fit.contest.judge import Judged, judge
from nognet.fit.predictors import copy_baseline, network_predictor
from nognet.fit.pretraining.train import Pretraining
from nognet.fit.weights import Weights, network_with
from nognet.phantom.roi import make_roi_pairs
from nognet.randomness import derived_seed
from nognet.types import RoiPair

METRICS = ("psnr", "psnr_nodule", "ssim", "ssim_nodule", "dsc")
_HOSPITALS = 3


def figures_on_unseen(
    what: Pretraining, weights: Weights, *, patients: int
) -> dict[str, dict[str, float | None]]:
    """Compare weights with copying the baseline on phantom patients of their own.

    Args:
        what: The network, the ROI, and the seed that the patients are kept apart from.
        weights: To be tested.
        patients: Of three hospitals together.

    Returns:
        ``pretrained`` and ``copy`` -> metric -> mean over the pairs; None where undefined.
    """
    pairs = unseen_pairs(what, patients)
    cpu = torch.device("cpu")
    network = network_with(what.network, weights, cpu)
    return {
        "pretrained": _means(judge("pretrained", None, network_predictor(network, cpu), pairs)),
        "copy": _means(judge("copy", None, copy_baseline, pairs)),
    }


def unseen_pairs(what: Pretraining, patients: int) -> Sequence[RoiPair]:
    """Draw phantom pairs of patients that no pre-training has seen."""
    seed = derived_seed(what.settings.seed, "pretraining", "test")
    each = -(-patients // _HOSPITALS)
    return [
        pair
        for site in range(_HOSPITALS)
        for pair in make_roi_pairs(each, seed=seed, site=site, roi=what.roi)
    ]


def _means(rows: Iterable[Judged]) -> dict[str, float | None]:
    kept = list(rows)
    return {metric: _mean([row.metrics[metric] for row in kept]) for metric in METRICS}


def _mean(values: Sequence[float]) -> float | None:
    defined = [value for value in values if math.isfinite(value)]
    return math.fsum(defined) / len(defined) if defined else None
