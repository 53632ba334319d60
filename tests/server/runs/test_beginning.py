"""What a run begins with, through a whole simulated run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nognet_server.runs.beginning import lay_beginning, pretraining_folder
from nognet_server.runs.checkpoints import load_identity, load_weights
from nognet_server.runs.folder import new_run_folder, write_study
from nognet_server.runs.withdrawal import plan_withdrawal

from nognet.config import StudyConfig
from nognet.errors import ConfigError, FederationError
from nognet.fit.model_file import load_model, save_model
from nognet.fit.pretraining.check import figures_on_unseen
from nognet.fit.pretraining.train import Pretraining, pretrain
from nognet.fit.weights import initial_weights, weight_spec
from nognet.wire.flat import flat_length, pack
from tests.builders.federation import make_site, make_study, run, stub_work
from tests.builders.pretraining import tiny_pretraining


def checkpoint_study(
    folder: Path,
    *,
    seed: int = 9,
    provenance: Mapping[str, Any] = {"round": 4},
    **changes: object,
) -> StudyConfig:
    plain, path = make_study(folder), folder / f"model-{seed}.nognet"
    weights = initial_weights(plain.network, seed)
    save_model(path, weights, network=plain.network, roi=plain.roi, provenance=provenance)
    init = {"name": "checkpoint", "path": str(path)}
    return make_study(folder, init=init, **changes)


def flat_of(study: StudyConfig, seed: int) -> np.ndarray:
    return pack(initial_weights(study.network, seed), weight_spec(study.network))


def test_a_simulation_begins_with_the_file_and_says_so(tmp_path: Path) -> None:
    study = checkpoint_study(tmp_path, rounds=1)
    folder = new_run_folder(study)
    write_study(folder, study)
    lay_beginning(study, folder)
    run(study, [make_site(tmp_path, "site_a")], work=stub_work(), folder=folder)
    length = flat_length(weight_spec(study.network))
    first = load_weights(folder, 0, length=length)
    np.testing.assert_array_equal(first, flat_of(study, 9))
    moved = load_weights(folder, 1, length=length)
    np.testing.assert_allclose(moved, first + 0.125, rtol=1e-6)
    began_with = load_identity(folder, 1).began_with
    assert began_with["model"] == {"round": 4}
    assert json.loads(folder.metrics.read_text())["began_with"] == began_with
    assert load_model(folder.model).provenance["began_with"] == began_with
    assert str(tmp_path) not in folder.metrics.read_text()


def test_the_sites_of_a_model_file_are_in_the_lineage_of_what_begins_with_it(
    tmp_path: Path,
) -> None:
    provenance = {"round": 4, "sites": ["site_z", "site_a"]}
    study = checkpoint_study(tmp_path, rounds=1, provenance=provenance)
    folder = new_run_folder(study)
    write_study(folder, study)
    lay_beginning(study, folder)
    run(study, [make_site(tmp_path, "site_b")], work=stub_work(), folder=folder)
    assert load_model(folder.model).provenance["sites"] == ["site_a", "site_b", "site_z"]
    with pytest.raises(FederationError, match="site_z shaped the weights that this run began"):
        plan_withdrawal(folder, "site_z")


def test_a_real_run_does_not_begin_with_the_model_of_a_rehearsal(tmp_path: Path) -> None:
    study = checkpoint_study(tmp_path, provenance={"rehearsal": True})
    with pytest.raises(ConfigError, match="comes from a rehearsal") as caught:
        lay_beginning(study, new_run_folder(study))
    assert caught.value.code == "init-rehearsal"


def test_a_run_that_is_gone_on_with_keeps_its_own_weights(tmp_path: Path) -> None:
    site = make_site(tmp_path, "site_a")
    study = checkpoint_study(tmp_path, rounds=2)
    folder = new_run_folder(study)
    write_study(folder, study)
    lay_beginning(study, folder)
    run(study, [site], work=stub_work(), folder=folder)
    folder.checkpoint(2).unlink()
    (tmp_path / "model-9.nognet").unlink()  # nobody needs it any more
    lay_beginning(study, folder)
    run(study, [site], work=stub_work(), folder=folder)
    weights = load_weights(folder, 2, length=flat_length(weight_spec(study.network)))
    np.testing.assert_allclose(weights, flat_of(study, 9) + 0.25, rtol=1e-6)


def test_first_weights_that_nobody_laid_ready_are_missed(tmp_path: Path) -> None:
    study = checkpoint_study(tmp_path)
    with pytest.raises(ConfigError, match=r"beginning\.nognet: missing"):
        run(study, [make_site(tmp_path, "site_a")], work=stub_work())


def test_phantoms_are_trained_on_once_for_all_runs(tmp_path: Path) -> None:
    init = {"name": "phantom", "steps": 1, "batch_size": 2}
    told: list[int] = []
    begun = []
    for seed in (1, 2):  # the study's seed plays no part
        study = make_study(tmp_path, init=init, seed=seed)
        folder = new_run_folder(study)
        lay_beginning(study, folder, lambda step, _of, _loss: told.append(step))
        begun.append(folder.beginning.read_bytes())
    assert told == [1]
    assert begun[0] == begun[1]
    assert list(pretraining_folder(study).glob("*.nognet"))
    expected = pretrain(tiny_pretraining(steps=1))
    found = load_model(folder.beginning).weights
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


@pytest.mark.slow
def test_a_pre_trained_round_0_is_better_than_copying_on_phantoms(tmp_path: Path) -> None:
    init = {"name": "phantom", "steps": 80, "batch_size": 4}
    study = make_study(tmp_path, init=init, network={"width": 4})
    folder = new_run_folder(study)
    lay_beginning(study, folder)
    weights = load_model(folder.beginning).weights
    what = Pretraining(study.network, study.roi, study.loss, study.init)
    figures = figures_on_unseen(what, weights, patients=12)
    for metric in ("psnr_nodule", "dsc", "ssim"):
        assert figures["pretrained"][metric] > figures["copy"][metric]
