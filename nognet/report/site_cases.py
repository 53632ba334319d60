"""Choose and predict a few of a site's test nodules, to be drawn in a report that stays local.

No cherry-picking: within each stratum the pair whose DSC is the median one is shown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nognet.config import SiteConfig
from nognet.data.store import PreparedSite
from nognet.errors import ContractError
from nognet.fit.device import cpu_threads, resolve_device
from nognet.fit.model_file import SavedModel, load_model
from nognet.fit.personal import MODEL_NAME, personal_folder
from nognet.fit.predictors import FollowUp, network_predictor
from nognet.fit.tensors import stack_pairs
from nognet.fit.weights import network_with
from nognet.metrics.overlap import dsc
from nognet.metrics.pair import pair_metrics
from nognet.report.cases import Case
from nognet.types import RoiPair, Stratum

SHOWN_STRATA: tuple[Stratum, ...] = ("growing", "stable")
_BATCH_SIZE = 4


def cases_of_site(
    model_path: Path,
    site: SiteConfig,
    prepared: PreparedSite,
    *,
    strata: Sequence[Stratum] = SHOWN_STRATA,
) -> list[Case]:
    """Predict the site's test pairs and give the median case of each stratum.

    Args:
        model_path: A `model.nognet`; where the site has its own model of that run, that is shown.
        site: For its name and device.
        prepared: The site's pairs.
        strata: Which to show, in this order; one without test pairs is passed over.

    Raises:
        WireError: the model can't be read.
        ContractError: the model was trained on ROIs of another size or HU window.
    """
    model = _own_model(load_model(model_path), site)
    if model.roi != prepared.roi:
        raise ContractError(
            f"{model_path}: trained on ROIs of {model.roi.size_vox} voxels and HU window "
            f"{model.roi.hu_window}; site {site.name} is prepared with {prepared.roi.size_vox} and "
            f"{prepared.roi.hu_window}; set roi: in site.yaml alike and prepare again"
        )
    pairs = prepared.pairs("test")
    with cpu_threads(site.threads):
        predicted = _predict(model, site, pairs)
    cases = []
    for stratum in strata:
        scored = [(score, i) for i, score in enumerate(predicted[1]) if pairs[i].stratum == stratum]
        if scored:
            middle = sorted(scored)[len(scored) // 2][1]
            cases.append(_case(site, pairs[middle], predicted[0][middle]))
    return cases


def _own_model(model: SavedModel, site: SiteConfig) -> SavedModel:
    """Take the site's own model of the same run, if there is one."""
    token = str(model.provenance.get("run", ""))
    if not re.fullmatch(r"[0-9a-f]{8,64}", token):  # it names a folder, and came from elsewhere
        return model
    path = personal_folder(site.state, token) / MODEL_NAME
    return load_model(path) if path.is_file() else model


def _predict(
    model: SavedModel, site: SiteConfig, pairs: Sequence[RoiPair]
) -> tuple[list[FollowUp], list[float]]:
    """Predict all pairs; give each one's follow-up and DSC."""
    device = resolve_device(site.device)
    predict = network_predictor(network_with(model.network, model.weights, device), device)
    found: list[FollowUp] = []
    scores: list[float] = []
    for start in range(0, len(pairs), _BATCH_SIZE):
        batch = stack_pairs(pairs[start : start + _BATCH_SIZE])
        both = predict(batch)
        scores.extend(dsc(both.mask, batch.target_mask).tolist())
        each = zip(both.image, both.mask, both.displacement_vox, strict=True)
        found.extend(FollowUp(image[None], mask[None], u[None]) for image, mask, u in each)
    return found, scores


@torch.no_grad()
def _case(site: SiteConfig, pair: RoiPair, found: FollowUp) -> Case:
    batch = stack_pairs([pair])
    ours = pair_metrics(found.image, batch.target_image, found.mask, batch.target_mask)
    copied = pair_metrics(batch.image, batch.target_image, batch.mask, batch.target_mask)
    truth = pair.follow_up_volume_mm3 / pair.baseline_volume_mm3 - 1.0
    expected = float(found.mask.sum() / batch.mask.sum().clamp_min(1.0)) - 1.0
    return Case(
        title=f"{site.name}, {pair.stratum}, {pair.interval_days:.0f} days",
        baseline=pair.baseline,
        follow_up=pair.follow_up,
        predicted=_plain(found.image),
        baseline_mask=pair.baseline_mask,
        follow_up_mask=pair.follow_up_mask,
        predicted_mask=_plain(found.mask),
        displacement_vox=found.displacement_vox[0].numpy(),
        interval_days=pair.interval_days,
        figures={
            "DSC": f"{float(ours['dsc']):.3f} (copy {float(copied['dsc']):.3f})",
            "PSNR": f"{float(ours['psnr']):.2f} dB (copy {float(copied['psnr']):.2f})",
            "change of volume": f"{expected:+.0%} predicted, {truth:+.0%} true",
        },
    )


def _plain(volume: Tensor) -> NDArray[np.float32]:
    """``(1, 1, D, H, W)`` to ``(D, H, W)``."""
    return np.asarray(volume[0, 0].numpy(), dtype=np.float32)
