from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nognet.config import NetworkConfig, StudyConfig
from nognet.errors import ConfigError, WireError
from nognet.fit.model_file import save_model
from nognet.fit.pretraining.beginning import beginning, first_weights, weights_digest
from nognet.fit.weights import initial_weights
from tests.builders.federation import make_study


def model(path: Path, study: StudyConfig, *, seed: int = 9) -> Path:
    weights = initial_weights(study.network, seed)
    provenance = {"run": "ab", "round": 7, "secret": "of the file's maker"}
    save_model(path, weights, network=study.network, roi=study.roi, provenance=provenance)
    return path


def test_random_ones_are_the_studys_own(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    begun = beginning(study, tmp_path / "cache")
    drawn = initial_weights(study.network, study.seed)
    assert all(torch.equal(begun.weights[name], drawn[name]) for name in drawn)
    assert begun.lineage == {"init": "random", "seed": 5, "weights_sha256": weights_digest(drawn)}
    assert begun.lineage == first_weights(study).lineage
    assert not (tmp_path / "cache").exists()


def test_a_model_file_gives_its_weights_and_where_they_come_from(tmp_path: Path) -> None:
    path = model(tmp_path / "m.nognet", make_study(tmp_path))
    study = make_study(tmp_path, init={"name": "checkpoint", "path": str(path)})
    begun = beginning(study, tmp_path / "cache")
    expected = initial_weights(study.network, 9)
    assert all(torch.equal(begun.weights[name], expected[name]) for name in expected)
    assert begun.lineage["init"] == "checkpoint"
    assert begun.lineage["model"] == {"run": "ab", "round": 7}


def test_a_model_of_another_study_is_refused_with_every_difference(tmp_path: Path) -> None:
    other = make_study(tmp_path, network={"width": 8}, roi={"size_vox": 48})
    path = model(tmp_path / "m.nognet", other)
    study = make_study(
        tmp_path, network={"width": 4}, init={"name": "checkpoint", "path": str(path)}
    )
    with pytest.raises(ConfigError) as raised:
        beginning(study, tmp_path / "cache")
    message = str(raised.value)
    assert "network.width: 8 in the file, 4 in the study" in message
    assert "roi.size_vox: 48 in the file, 32 in the study" in message
    assert "attention" not in message  # what is alike isn't named


def test_a_difference_that_changes_no_shape_is_refused_too(tmp_path: Path) -> None:
    path = model(tmp_path / "m.nognet", make_study(tmp_path))
    network = make_study(tmp_path).network.model_copy(update={"integration_steps": 3})
    study = make_study(
        tmp_path,
        network=network.model_dump(),
        init={"name": "checkpoint", "path": str(path)},
    )
    assert NetworkConfig().integration_steps == 5
    with pytest.raises(ConfigError, match=r"integration_steps: 5 in the file, 3 in the study"):
        beginning(study, tmp_path / "cache")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    study = make_study(tmp_path, init={"name": "checkpoint", "path": str(tmp_path / "no.nognet")})
    with pytest.raises(WireError, match="no such model file"):
        beginning(study, tmp_path / "cache")


def test_the_digest_of_weights_tells_bits_apart(tmp_path: Path) -> None:
    weights = initial_weights(make_study(tmp_path).network, 1)
    name = next(iter(weights))
    changed = {**weights, name: weights[name] + 1e-6}
    assert weights_digest(weights) == weights_digest(dict(weights))
    assert weights_digest(weights) != weights_digest(changed)
