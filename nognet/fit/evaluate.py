"""Evaluate predictors on a site's pairs; only mergeable sums come out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from nognet.config import SiteConfig, StudyConfig
from nognet.data.store import PreparedSite
from nognet.errors import PrivacyError
from nognet.fit.conformal import calibrate
from nognet.fit.device import cpu_threads, resolve_device
from nognet.fit.predictors import (
    Predictor,
    copy_baseline,
    isotropic_growth,
    median_growth,
    network_predictor,
)
from nognet.fit.tensors import stack_pairs
from nognet.fit.weights import Weights, network_with
from nognet.metrics.pair import pair_metrics
from nognet.metrics.statistics import PairRow, SiteStatistics
from nognet.privacy.policy import stricter
from nognet.types import RoiPair, Split

FEDERATED, PERSONALISED, VISITING = "federated", "personalised", "visiting"
"""Predictors: the global model, a site's own beside it, and another site's."""
COPY, ISOTROPIC = "copy", "isotropic"
"""Baselines."""
_BATCH_SIZE = 4


def evaluate_split(
    study: StudyConfig,
    site: SiteConfig,
    prepared: PreparedSite,
    weights: Weights,
    *,
    split: Split,
    personal: Weights | None = None,
) -> SiteStatistics:
    """Evaluate the global weights and both baselines on one split of a site.

    The isotropic baseline grows at the median rate of the site's own training pairs; the rate stays
    at the site.

    Args:
        study: Network, precision, coverage.
        site: Its device and threads.
        prepared: Its pairs.
        weights: Of the predictor `federated`.
        split: Of the site's patients.
        personal: Of a further predictor, `personalised`; None for none.

    Raises:
        PrivacyError: of the patients that privacy protects figures were asked for.
        WireError: the weights don't fit the study's network.
    """
    if split == "train" and stricter(study.privacy, site.privacy) is not None:
        raise PrivacyError(
            f"site {site.name}: under differential privacy no figures of training patients are "
            "given, for they carry no noise; ask for 'validation' or 'test'",
            code="train-split-private",
        )
    device = resolve_device(site.device)
    with cpu_threads(site.threads):
        models = {FEDERATED: weights} | ({} if personal is None else {PERSONALISED: personal})
        networks = {name: network_with(study.network, w, device) for name, w in models.items()}
        precision = study.training.precision
        trained = {n: network_predictor(net, device, precision) for n, net in networks.items()}
        predictors = {
            **trained,
            COPY: copy_baseline,
            ISOTROPIC: isotropic_growth(median_growth(prepared.pairs("train"))),
        }
        factors = {}
        if split == "test":  # on the patients that calibrate it, coverage would mean nothing
            validation = prepared.pairs("validation")
            for name, predict in trained.items():
                factors[name] = calibrate(predict, validation, study.uncertainty.coverage)
        return evaluate_pairs(predictors, prepared.pairs(split), factors)


def evaluate_pairs(
    predictors: Mapping[str, Predictor],
    pairs: Sequence[RoiPair],
    factors: Mapping[str, float] | None = None,
) -> SiteStatistics:
    """Sum every predictor's metrics over pairs.

    Args:
        predictors: By name.
        pairs: The pairs of a split.
        factors: By which a predictor's spread makes its interval (`nognet.fit.conformal`); one
            without a factor has no interval.
    """
    return SiteStatistics.from_pairs(_rows(predictors, pairs, factors or {}))


@torch.no_grad()
def _rows(
    predictors: Mapping[str, Predictor], pairs: Sequence[RoiPair], factors: Mapping[str, float]
) -> Iterator[PairRow]:
    for start in range(0, len(pairs), _BATCH_SIZE):
        chunk = pairs[start : start + _BATCH_SIZE]
        batch = stack_pairs(chunk)
        for name, predict in predictors.items():
            found = predict(batch)
            spread, factor = found.log_volume_spread, factors.get(name)
            radius = None if spread is None or factor is None else factor * spread
            metrics = pair_metrics(
                found.image,
                batch.target_image,
                found.mask,
                batch.target_mask,
                displacement_vox=found.displacement_vox,
                log_volume_radius=radius,
            )
            growth = found.mask.flatten(1).sum(1) / batch.mask.flatten(1).sum(1).clamp_min(1.0)
            for i, pair in enumerate(chunk):
                yield PairRow(
                    predictor=name,
                    patient_id=pair.patient_id,
                    stratum=pair.stratum,
                    metrics={metric: float(values[i]) for metric, values in metrics.items()},
                    growth_ratio=float(growth[i]),
                )
