"""A training round under differential privacy: charged, trained, confirmed."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.optim import Optimizer

from nognet.errors import PrivacyError
from nognet.fit.budget import PrivatePlan
from nognet.network import MTNoGNet
from nognet.privacy.dp_sgd import Mechanism, PrivateSteps
from nognet.privacy.ledger import Ledger
from nognet.privacy.ledger_entries import Purpose
from nognet.privacy.patient_gradients import why_not_together
from nognet.privacy.sampling import group_by_patient
from nognet.privacy.secret import SecretStream

_log = logging.getLogger("nognet.privacy")


@dataclass(frozen=True)
class PrivateRound:
    """Epsilon of all that this run was charged up to and with this round, at delta."""

    epsilon: float
    delta: float


def pairs_at_once(
    batch_size: int,
    network: nn.Module,
    count: int,
    losses_of: Callable[[Sequence[int]], Tensor],
) -> int:
    """Decide how many pairs go through the network in one pass; nothing is spent by that.

    Half of a step without privacy: what a pass holds for each pair's own gradient, and what
    importing Opacus takes, then fits into that step's memory (decision 0016). One at a time, which
    is 2.3 times slower, where the first and the last pair show that the network can't do it
    together.

    Args:
        batch_size: Pairs in a step without privacy.
        network: Trained parameters are those that require a gradient.
        count: Training pairs.
        losses_of: Loss of each of the pairs with those indices, without augmentation.

    Raises:
        TrainingError: a loss is not finite.
    """
    if batch_size == 1 or count == 1:
        return 1
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    reason = why_not_together(trained, [0, count - 1], losses_of)
    if reason is None:
        return max(2, math.ceil(batch_size / 2))
    _log.warning("privacy: patients go through the network one by one, which is slower: %s", reason)
    return 1


def train_privately(  # noqa: PLR0913  one seam between training and privacy
    plan: PrivatePlan,
    ledger: Ledger,
    purpose: Purpose,
    patient_ids: Sequence[str],
    trained: tuple[MTNoGNet, Optimizer],
    *,
    losses_of: Callable[[int, Sequence[int]], Tensor],
    update: Callable[[int], None],
    at_once: int = 1,
) -> PrivateRound:
    """Take a round of DP-SGD steps whose record is the patient.

    The cost is known before and is committed to the ledger *before* the first step: a crash may
    over-count what was spent, never under-count it.

    Args:
        plan: Settings, patients, noise and steps.
        ledger: The site's.
        purpose: What the round is for.
        patient_ids: Patient of each training pair, in the order of the pairs.
        trained: The network and its plain optimiser.
        losses_of: Loss, at that step, of each of the pairs with these indices; none may depend on
            another patient, nor on how many are drawn.
        update: Applies the noised gradient of that step.
        at_once: Pairs in one pass (`pairs_at_once`).

    Raises:
        PrivacyError: the ledger can't be used, or the plan is of other patients.
        PrivacyBudgetError: the round would pass `max_epsilon`, or the run's `target_epsilon`.
    """
    groups = group_by_patient(range(len(patient_ids)), patient_ids)
    if plan.data.patients != set(patient_ids):
        raise PrivacyError("others would be charged than trained on", code="other-patients")
    planned = plan.round_steps
    charge = ledger.charge(plan.settings, plan.data, purpose, planned)
    mechanism = Mechanism(
        planned.noise_multiplier,
        plan.settings.clip_norm,
        planned.sample_rate * groups.n_patients,
    )
    steps = PrivateSteps(*trained, mechanism, at_once=at_once)
    sampling = SecretStream.fresh()
    taken = 0
    for step in range(planned.steps):
        drawn = groups.draw(planned.sample_rate, sampling, pairs=plan.settings.pairs_of_patient)
        steps.noised_gradient(drawn, functools.partial(losses_of, step))
        update(step)
        taken += 1
    ledger.confirm(charge, steps=taken)
    return PrivateRound(epsilon=charge.of_run, delta=charge.cost.delta)
