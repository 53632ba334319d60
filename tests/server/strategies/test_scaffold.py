"""SCAFFOLD at the server, and the whole algorithm on a toy whose optimum is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nognet_server.strategies.scaffold import corrections
from torch import nn

from nognet.config import StudyConfig
from nognet.errors import FederationError
from nognet.fit.control import ControlVariate
from nognet.wire.records import TrainReply
from tests.builders.strategy_rounds import START, cohort, combined, study_with


def test_the_weights_are_fedavgs_bit_for_bit(tmp_path: Path) -> None:
    replies = cohort(5)
    for weighting in ("pairs", "patients", "equal"):
        ours, _ = combined(
            study_with(tmp_path, {"name": "scaffold", "weighting": weighting}), replies
        )
        plain, _ = combined(
            study_with(tmp_path, {"name": "fedavg", "weighting": weighting}), replies
        )
        assert np.array_equal(ours, plain)


def test_the_servers_learning_rate_scales_the_update(tmp_path: Path) -> None:
    replies = cohort(5)
    half, _ = combined(
        study_with(tmp_path, {"name": "scaffold", "server_learning_rate": 0.5}), replies
    )
    whole, _ = combined(study_with(tmp_path, "scaffold"), replies)
    assert np.allclose(half - START, (whole - START) / 2, rtol=0, atol=1e-6)


def test_nobody_is_corrected_before_the_first_round() -> None:
    assert corrections({}) == {}


def test_a_correction_is_the_mean_of_all_minus_ones_own(tmp_path: Path) -> None:
    replies = cohort(4)
    _, kept = combined(study_with(tmp_path, "scaffold"), replies)
    found = corrections(kept)
    counts = [r.n_pairs for r in replies]
    controls = np.stack([np.asarray(r.control, np.float64) for r in replies])
    mean = np.average(controls, axis=0, weights=counts)
    for r, own in zip(replies, controls, strict=True):
        assert np.allclose(found[r.site], mean - own, rtol=0, atol=1e-6)
    pulled = sum(c * found[r.site] for c, r in zip(counts, replies, strict=True))
    assert np.allclose(pulled, 0, atol=1e-4)  # together they change no average gradient


def test_a_site_that_is_away_keeps_its_part_of_the_mean(tmp_path: Path) -> None:
    study, replies = study_with(tmp_path, "scaffold"), cohort(4)
    _, kept = combined(study, replies)
    later = [replace(r, control=None if r.control is None else r.control + 1) for r in replies[:3]]
    _, after = combined(study, later, number=2, kept=kept)
    assert np.array_equal(after["control.site_03"], kept["control.site_03"])
    assert np.array_equal(after["control.site_00"], kept["control.site_00"] + 1)
    assert sorted(corrections(after)) == [r.site for r in replies]


def test_a_reply_that_counts_twice_leaves_the_same_state(tmp_path: Path) -> None:
    study, replies = study_with(tmp_path, "scaffold"), cohort(3)
    _, once = combined(study, replies)
    _, twice = combined(study, replies, number=2, kept=once)
    assert all(np.array_equal(once[name], twice[name]) for name in {*once, *twice})


def test_a_reply_without_a_control_variate_is_an_error(tmp_path: Path) -> None:
    replies = [replace(cohort(2)[0], control=None), cohort(2)[1]]
    with pytest.raises(FederationError, match="site_00") as caught:
        combined(study_with(tmp_path, "scaffold"), replies)
    assert caught.value.code == "no-control"


# Two sites with f_i(x) = a_i / 2 (x - b_i)^2: the optimum of the mean is sum a_i b_i / sum a_i;
# FedAvg of many local steps goes to the mean of the b_i instead.
CURVATURE, CENTRE = (1.0, 10.0), (1.0, -1.0)
OPTIMUM = (1.0 * 1.0 - 10.0 * 1.0) / 11.0


def local(site: int, start: np.ndarray[Any, Any], correction: np.ndarray[Any, Any] | None) -> Any:
    """Take 20 steps of plain SGD at a site; give its weights and its mean gradient."""
    x = nn.Parameter(torch.from_numpy(start.copy()))
    parts = None if correction is None else [torch.from_numpy(correction.copy())]
    variate = ControlVariate([x], parts)
    optimizer = torch.optim.SGD([x], lr=0.05)
    for _ in range(20):
        optimizer.zero_grad()
        loss = 0.5 * CURVATURE[site] * (x - CENTRE[site]).square().sum()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own is untyped
        variate.take()
        optimizer.step()
    return x.detach().numpy(), variate.mean()[0].numpy()


def trained(study: StudyConfig, rounds: int) -> float:
    """Run both sites for some rounds; give where the global weight ends."""
    weights, kept = np.zeros(1, np.float32), {}
    for number in range(1, rounds + 1):
        own = corrections(kept) if study.strategy.sends_control else {}
        replies = []
        for site in range(2):
            name = f"site_{site}"
            y, mean = local(site, weights, own.get(name))
            replies.append(TrainReply(name, number, y, 1, 1, 20, 0.1, 0.1, control=mean))
        weights, kept = combined(study, replies, number=number, weights=weights, kept=kept)
    return float(weights[0])


def test_fedavg_drifts_to_another_place_and_scaffold_finds_the_optimum(tmp_path: Path) -> None:
    drifted = trained(study_with(tmp_path, "fedavg"), 60)
    found = trained(study_with(tmp_path, "scaffold"), 60)
    assert abs(drifted - OPTIMUM) > 0.3
    assert found == pytest.approx(OPTIMUM, abs=1e-3)


def test_with_plain_sgd_the_mean_gradient_is_the_papers_option_two() -> None:
    start, c_i, c = np.float32([0.7]), np.float32([0.2]), np.float32([-0.4])
    y, mean = local(1, start, c - c_i)
    option_two = c_i - c + (start - y) / (20 * 0.05)
    assert mean == pytest.approx(option_two, abs=1e-5)
