"""Judge predictors: every metric of every test pair, kept, so that intervals can be redone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from nognet.fit.predictors import Predictor
from nognet.fit.tensors import stack_pairs
from nognet.metrics.deformation import folded_fraction
from nognet.metrics.pair import pair_metrics
from nognet.metrics.volume import volume_mm3
from nognet.types import RoiPair, Stratum

_BATCH_SIZE = 4


@dataclass(frozen=True)
class Judged:
    """One predictor on one pair.

    Attributes:
        predictor: Its name.
        seed: Of its training; None for one that isn't trained.
        pair_id: The pair's pseudonym.
        patient_id: The patient's pseudonym.
        stratum: The true growth stratum.
        metrics: By name; NaN where undefined. `growth_ratio` is the predicted V_hat / V0.
    """

    predictor: str
    seed: int | None
    pair_id: str
    patient_id: str
    stratum: Stratum
    metrics: dict[str, float]


@torch.no_grad()
def judge(
    name: str, seed: int | None, predict: Predictor, pairs: Sequence[RoiPair]
) -> Iterator[Judged]:
    """Yield a predictor's figures on each pair."""
    for start in range(0, len(pairs), _BATCH_SIZE):
        chunk = pairs[start : start + _BATCH_SIZE]
        batch = stack_pairs(chunk)
        found = predict(batch)
        columns = {
            **pair_metrics(found.image, batch.target_image, found.mask, batch.target_mask),
            "folded_fraction": folded_fraction(found.displacement_vox),
            "growth_ratio": volume_mm3(found.mask) / volume_mm3(batch.mask).clamp_min(1.0),
        }
        for i, pair in enumerate(chunk):
            metrics = {metric: float(values[i]) for metric, values in columns.items()}
            yield Judged(name, seed, pair.pair_id, pair.patient_id, pair.stratum, metrics)
