"""What a patient's part of a private round depends on: on nothing of another patient."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nognet.config import PrivacyConfig, SiteConfig, StudyConfig
from nognet.data.store import PreparedSite
from nognet.fit.steps import TrainingSteps
from nognet.fit.train import train_round
from nognet.fit.weights import initial_weights
from nognet.network import Batch
from tests.builders.federation import make_site, make_study, opened

STEPS = 2


@pytest.fixture
def study(tmp_path: Path) -> StudyConfig:
    """A study in whose private steps every patient takes part."""
    training = {"steps_per_round": STEPS, "batch_size": 8, "warmup_steps": 0}
    privacy = PrivacyConfig(noise_multiplier=1.0, delta=1e-2)
    return make_study(tmp_path, training=training).model_copy(update={"privacy": privacy})


def _shown(
    study: StudyConfig,
    site: SiteConfig,
    prepared: PreparedSite,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, list[Tensor]]:
    """Give the augmented images of each training pair, in the order of a private round's steps."""
    pairs = {pair.interval_days: pair for pair in prepared.pairs("train")}
    shown: dict[str, list[Tensor]] = {pair.pair_id: [] for pair in pairs.values()}
    losses = TrainingSteps.losses

    def watched(self: TrainingSteps, batch: Batch) -> Tensor:
        for image, days in zip(batch.image, batch.interval_days, strict=True):
            pair = pairs[float(days)]
            if not torch.equal(
                image[0], torch.from_numpy(pair.baseline)
            ):  # a trial has it as it is
                shown[pair.pair_id].append(image)
        return losses(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingSteps, "losses", watched)
        weights = initial_weights(study.network, study.seed)
        train_round(study, site, prepared, weights, round_number=1)
    return shown


def test_another_patient_changes_nothing_of_what_a_patient_shows_in_a_private_step(
    study: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, prepared = opened(make_site(tmp_path, "alpha"))
    index, first = prepared.index, prepared.records("train")[0]
    left = tuple(record for record in index.records if record.patient_id != first.patient_id)
    without = dataclasses.replace(prepared, index=dataclasses.replace(index, records=left))
    whole = _shown(study, site, prepared, monkeypatch)
    fewer = _shown(study, site, without, monkeypatch)
    assert set(whole) - set(fewer) == {first.pair_id}
    for pair_id, images in fewer.items():
        assert len(images) == len(whole[pair_id]) == STEPS
        assert all(map(torch.equal, images, whole[pair_id]))


def test_a_patient_is_turned_another_way_in_each_private_step_and_unlike_others(
    study: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, prepared = opened(make_site(tmp_path, "alpha"))
    shown = _shown(study, site, prepared, monkeypatch)
    plain = {pair.pair_id: torch.from_numpy(pair.baseline) for pair in prepared.pairs("train")}
    shifts = {
        round(float(image.median() - plain[pair_id].median()), 5)
        for pair_id, images in shown.items()
        for image in images
    }
    assert len(shifts) == STEPS * len(shown)  # each its own intensity shift
