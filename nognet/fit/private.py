"""A training round under differential privacy: charged, trained, confirmed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.optim import Optimizer

from nognet.fit.budget import PrivatePlan
from nognet.network import MTNoGNet
from nognet.privacy.dp_sgd import Mechanism, PrivateSteps
from nognet.privacy.ledger import Ledger
from nognet.privacy.ledger_entries import Purpose
from nognet.privacy.sampling import group_by_patient
from nognet.privacy.secret import SecretStream


@dataclass(frozen=True)
class PrivateRound:
    """Epsilon of the patient charged most, all rounds, runs and studies added up, at delta."""

    epsilon: float
    delta: float


def train_privately(  # noqa: PLR0913  one seam between training and privacy
    plan: PrivatePlan,
    ledger: Ledger,
    purpose: Purpose,
    patient_ids: Sequence[str],
    trained: tuple[MTNoGNet, Optimizer],
    *,
    loss_of: Callable[[Sequence[int]], Tensor],
    update: Callable[[int], None],
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
        loss_of: Mean loss of one patient's pairs with these indices, alone.
        update: Applies the noised gradient of that step.

    Raises:
        PrivacyError: the ledger can't be used.
        PrivacyBudgetError: the round would pass `max_epsilon`.
    """
    groups = group_by_patient(range(len(patient_ids)), patient_ids)
    planned = plan.round_steps
    charge = ledger.charge(plan.settings, plan.data, purpose, planned)
    mechanism = Mechanism(
        planned.noise_multiplier,
        plan.settings.clip_norm,
        planned.sample_rate * groups.n_patients,
    )
    steps = PrivateSteps(*trained, mechanism)
    sampling = SecretStream.fresh()
    taken = 0
    for step in range(planned.steps):
        drawn = groups.draw(planned.sample_rate, sampling, pairs=plan.settings.pairs_of_patient)
        steps.noised_gradient(drawn, loss_of)
        update(step)
        taken += 1
    ledger.confirm(charge, steps=taken)
    return PrivateRound(epsilon=charge.cost.epsilon_after, delta=charge.cost.delta)
