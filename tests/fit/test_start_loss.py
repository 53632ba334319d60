from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from nognet.config import LossConfig, StudyConfig
from nognet.data.store import PreparedSite
from nognet.errors import TrainingError
from nognet.fit.start_loss import mean_start_loss
from nognet.fit.steps import TrainingSteps
from nognet.fit.tensors import stack_pairs
from nognet.fit.weights import initial_weights, network_with
from tests.builders.federation import make_site, make_study, opened

CPU = torch.device("cpu")


@pytest.fixture
def prepared(tmp_path: Path) -> PreparedSite:
    return opened(make_site(tmp_path / "alpha", "alpha"))[1]


def steps_of(study: StudyConfig, loss: LossConfig | None = None) -> TrainingSteps:
    network = network_with(study.network, initial_weights(study.network, study.seed), CPU)
    return TrainingSteps(network, study.training, loss or study.loss, CPU)


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_each_pair_counts_alike_however_they_are_batched(
    tmp_path: Path, prepared: PreparedSite, batch_size: int
) -> None:
    study = make_study(tmp_path, training={"batch_size": batch_size})
    pairs, steps = prepared.pairs("train"), steps_of(study)
    before = [p.detach().clone() for p in steps.parameters]
    found = mean_start_loss(steps, study, pairs)
    with torch.no_grad():
        losses = [float(steps.losses(stack_pairs([pair]))[0]) for pair in pairs]
    assert found == pytest.approx(math.fsum(losses) / len(losses), rel=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(before, steps.parameters, strict=True))
    assert all(p.grad is None for p in steps.parameters)


def test_a_loss_that_powers_cannot_be_taken_of_says_so(
    tmp_path: Path, prepared: PreparedSite
) -> None:
    zero = LossConfig(**dict.fromkeys(LossConfig.model_fields, 0.0))
    study = make_study(tmp_path)
    with pytest.raises(TrainingError, match="expected a finite number above 0") as caught:
        mean_start_loss(steps_of(study, zero), study, prepared.pairs("train"))
    assert caught.value.public_code == "TrainingError:start-loss"
