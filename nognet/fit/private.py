"""A training round under differential privacy, and the site's record of what was spent."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from torch.optim import Optimizer

from nognet.config import PrivacyConfig, SiteConfig, TrainingConfig
from nognet.errors import PrivacyError
from nognet.files import write_text_atomic
from nognet.network import MTNoGNet
from nognet.privacy.accounting import NoisedSteps, PrivacyHistory
from nognet.privacy.dp_sgd import Mechanism, PrivateSteps
from nognet.privacy.policy import BudgetForecast, admit_round
from nognet.privacy.sampling import group_by_patient, sample_rate
from nognet.privacy.secret import SecretStream


@dataclass(frozen=True)
class PrivateRound:
    """Epsilon spent at the site after the round, all rounds and studies added up, at delta."""

    epsilon: float
    delta: float


def history_path(site: SiteConfig) -> Path:
    """Where a site keeps the record of all noised steps ever taken on its patients."""
    return site.state / "privacy" / "history.json"


def read_history(site: SiteConfig) -> PrivacyHistory:
    """Read the site's record; empty where nothing was spent yet.

    Raises:
        PrivacyError: the record is damaged.
    """
    path = history_path(site)
    if not path.exists():
        return PrivacyHistory()
    return PrivacyHistory.from_json(path.read_text(encoding="utf-8"))


def spend(
    privacy: PrivacyConfig, site: SiteConfig, planned: NoisedSteps, *, n_patients: int
) -> BudgetForecast:
    """Admit steps and add them to the site's record, as one act among processes.

    Raises:
        PrivacyError: delta is too large for so few patients, or the record is damaged or can't be
            written.
        PrivacyBudgetError: the steps would pass `max_epsilon`.
    """
    path = history_path(site)
    try:
        with _locked(path.parent):
            cost = admit_round(privacy, read_history(site), planned, n_patients=n_patients)
            write_text_atomic(path, cost.history.to_json(), mode=0o600)
    except OSError as err:
        raise PrivacyError(
            f"{path}: the record of noised steps can't be read or written ({err.strerror}); "
            "nothing was trained; 'state' in site.yaml has to name a folder that may be written",
            code="history-write",
        ) from err
    return cost


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time spend: of two that read the same record one would be forgotten."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def train_privately(  # noqa: PLR0913  one seam between training and privacy
    privacy: PrivacyConfig,
    site: SiteConfig,
    training: TrainingConfig,
    patient_ids: Sequence[str],
    trained: tuple[MTNoGNet, Optimizer],
    *,
    loss_of: Callable[[int], Tensor],
    update: Callable[[int], None],
) -> PrivateRound:
    """Take a round of DP-SGD steps whose record is the patient.

    The cost is known before and is written to the site's record *before* the first step: a crash
    may over-count what was spent, never under-count it.

    Args:
        privacy: The settings that hold: the stricter of study's and site's.
        site: Where the record is kept.
        training: Steps and (expected) batch size, in patients.
        patient_ids: Patient of each training pair, in the order of the pairs.
        trained: The network and its plain optimiser.
        loss_of: Loss of the pair with that index, alone.
        update: Applies the noised gradient of that step.

    Raises:
        PrivacyError: delta is too large for so few patients, or the record is damaged or can't be
            written.
        PrivacyBudgetError: the round would pass `max_epsilon`.
    """
    groups = group_by_patient(range(len(patient_ids)), patient_ids)
    rate = sample_rate(training.batch_size, groups.n_patients)
    planned = NoisedSteps(privacy.noise_multiplier, rate, training.steps_per_round)
    cost = spend(privacy, site, planned, n_patients=groups.n_patients)
    network, optimizer = trained
    mechanism = Mechanism(privacy.noise_multiplier, privacy.clip_norm, rate * groups.n_patients)
    steps = PrivateSteps(network, optimizer, mechanism)
    sampling = SecretStream.fresh()
    for step in range(training.steps_per_round):
        steps.noised_gradient(groups.draw(rate, sampling), loss_of)
        update(step)
    return PrivateRound(epsilon=cost.epsilon_after, delta=cost.delta)
