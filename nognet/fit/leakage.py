"""Membership inference against a model, with a site's training and validation patients.

Validation patients are drawn as training patients are, and no gradient ever saw them: they stand
for "not a member". Losses are the study's own, without augmentation, each pair as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nognet.config import LossConfig, NetworkConfig
from nognet.fit.tensors import stack_pairs
from nognet.fit.weights import Weights, network_with
from nognet.network import total_loss
from nognet.privacy.membership import AttackResult, attack, patient_scores
from nognet.randomness import numpy_generator
from nognet.types import RoiPair

_BATCH_SIZE = 4


def measure_leakage(  # noqa: PLR0913  the model, what it is compared with, and whom it has seen
    network: NetworkConfig,
    loss: LossConfig,
    weights: Weights,
    reference: Weights | None,
    pairs: tuple[Sequence[RoiPair], Sequence[RoiPair]],
    device: torch.device,
    *,
    seed: int,
) -> dict[str, AttackResult]:
    """Attack a model: `loss` by its losses, `calibrated` by what it gained on a reference.

    Args:
        network: Of the weights.
        loss: Its losses are what the attacker computes.
        weights: The model that would leave.
        reference: Weights before the training; None: no `calibrated` attack.
        pairs: Of the patients trained on, and of others.
        device: Where to compute.
        seed: Of the bootstrap.

    Raises:
        PrivacyError: fewer than five patients of a kind, or a loss is not finite.
        WireError: the weights don't fit the network.
    """
    both = [_losses(network, loss, weights, some, device) for some in pairs]
    scores = {"loss": [-values for values in both]}
    if reference is not None:
        before = [_losses(network, loss, reference, some, device) for some in pairs]
        scores["calibrated"] = [old - new for old, new in zip(before, both, strict=True)]
    ids = [[pair.patient_id for pair in some] for some in pairs]
    found = {}
    for name, (members, others) in scores.items():
        by_patient = [
            patient_scores(x.tolist(), i) for x, i in zip((members, others), ids, strict=True)
        ]
        found[name] = attack(by_patient[0], by_patient[1], numpy_generator(seed, "leakage", name))
    return found


@torch.no_grad()
def _losses(
    network: NetworkConfig,
    loss: LossConfig,
    weights: Weights,
    pairs: Sequence[RoiPair],
    device: torch.device,
) -> torch.Tensor:
    """Loss of each pair, ``(pairs,)`` float64."""
    model = network_with(network, weights, device).eval()
    found = []
    for start in range(0, len(pairs), _BATCH_SIZE):
        batch = stack_pairs(pairs[start : start + _BATCH_SIZE]).to(device)
        prediction = model(batch.image, batch.mask, batch.interval_days, batch.prior)
        found.append(total_loss(prediction, batch, loss).double().cpu())
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)
