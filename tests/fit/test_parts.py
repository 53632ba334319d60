"""Which parameters stay at a site: by what they do in the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nognet.fit.parts import local_names, local_spec, part_of, shared_spec, whole
from nognet.fit.weights import initial_weights, weight_spec
from nognet.wire.contract import contract
from tests.builders.federation import make_study

FULL = {"adaptive_norm": "spatial", "attention": True, "missing_mask": "predicted", "width": 8}
LOCAL = ("none", "norms", "head", "norms+head")


@pytest.mark.parametrize("local", LOCAL)
@pytest.mark.parametrize("network", [{"width": 4}, FULL])
def test_shared_and_local_parameters_are_all_and_none_is_both(
    tmp_path: Path, local: str, network: dict[str, Any]
) -> None:
    study = make_study(tmp_path, network=network, personalisation={"local": local})
    shared, kept = ({s.name for s in spec(study)} for spec in (shared_spec, local_spec))
    assert shared | kept == {s.name for s in weight_spec(study.network)}
    assert not shared & kept
    assert bool(kept) == (local != "none")


def test_norms_are_all_that_scales_and_shifts_features(tmp_path: Path) -> None:
    study = make_study(tmp_path, network=FULL, personalisation={"local": "norms"})
    names = local_names(study)
    for part in (
        "encoder.stem.norm.modulation.weight",
        "encoder.stem.second_norm.bias",
        "at_half.texture.modulation.modulation.weight",
        "bottleneck.exchange.texture.key_norm.weight",
        "segmentation.at_half.1.weight",
    ):
        assert part in names
    assert not any("first" in n or "second." in n or n.startswith("growth") for n in names)


def test_the_head_is_the_growth_heads_last_layers(tmp_path: Path) -> None:
    study = make_study(tmp_path, personalisation={"local": "head"})
    layers = ("growth.outer", "growth.spread")
    assert local_names(study) == {f"{la}.{p}" for la in layers for p in ("weight", "bias")}


@pytest.mark.parametrize("local", LOCAL)
def test_a_network_is_put_together_again(tmp_path: Path, local: str) -> None:
    study = make_study(tmp_path, personalisation={"local": local})
    weights = {n: t + 1 for n, t in initial_weights(study.network, study.seed).items()}
    shared, kept = (part_of(weights, spec(study)) for spec in (shared_spec, local_spec))
    again = whole(study, shared, kept)
    assert list(again) == list(weights)
    assert all(torch.equal(again[name], weights[name]) for name in weights)
    fresh, first = whole(study, shared), initial_weights(study.network, study.seed)
    assert all(torch.equal(fresh[n], first[n] if n in kept else weights[n]) for n in weights)


def test_the_contract_lists_shared_parameters_alone(tmp_path: Path) -> None:
    study = make_study(tmp_path, personalisation={"local": "norms+head"})
    listed = {i.removeprefix("parameter ") for i in contract(study) if i.startswith("parameter ")}
    assert listed == {spec.name for spec in shared_spec(study)}
