"""The loss of the weights that a round starts from, for strategies that weigh sites by it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from nognet.config import StudyConfig
from nognet.errors import TrainingError
from nognet.fit.checks import check_pairs
from nognet.fit.steps import TrainingSteps
from nognet.fit.tensors import stack_pairs
from nognet.types import RoiPair

_LEAST = 1e-9


@torch.no_grad()
def mean_start_loss(steps: TrainingSteps, study: StudyConfig, pairs: Sequence[RoiPair]) -> float:
    """Average the loss over all training pairs, as they are, without a step.

    Args:
        steps: Network, loss and device; nothing of it is changed.
        study: ROI, batch size.
        pairs: One or more.

    Raises:
        TrainingError: a pair can't be learnt from, or the loss is not a finite number above 0,
            which q-FedAvg takes powers of.
    """
    check_pairs(pairs, study.roi, mask_required=study.network.missing_mask == "refused")
    everything, size = stack_pairs(pairs), study.training.batch_size
    losses: list[float] = []
    for first in range(0, len(pairs), size):
        chosen = list(range(first, min(first + size, len(pairs))))
        losses += steps.losses(everything.select(chosen).to(steps.device)).tolist()
    mean = math.fsum(losses) / len(losses)
    if not _LEAST < mean < math.inf:
        raise TrainingError(
            f"the loss of the global weights is {mean:g}, expected a finite number above 0; with "
            "growth_spread a loss may fall below 0: set loss.growth_spread: 0",
            code="start-loss",
        )
    return mean
