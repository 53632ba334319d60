"""Secure sums in whole runs, in one process: FedAvg's weights, and sites that leave."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nognet_client.masking.state import MaskingState
from nognet_client.tasks import Work
from nognet_server.runs.checkpoints import load_identity
from nognet_server.runs.folder import RunFolder
from nognet_server.runs.withdrawal import plan_withdrawal

from nognet.config import StudyConfig
from nognet.errors import FederationError
from nognet.fit.model_file import load_model
from nognet.report.metrics_file import read_metrics
from tests.builders.federation import (
    at_site,
    make_site,
    make_study,
    run,
    stub_evaluate,
    stub_work,
    weights_after,
)
from tests.builders.leaving import Leaving

NAMES = ("site_a", "site_b", "site_c", "site_d")
SECURE: dict[str, Any] = {"bits": 24, "max_weight": 50}


def securely(folder: Path, **changes: Any) -> StudyConfig:
    return make_study(
        folder,
        secure_aggregation=SECURE,
        **{"federation": {"minimum_sites": 3, "quorum": 0.5}, **changes},
    )


def plainly(folder: Path, **changes: Any) -> StudyConfig:
    return make_study(folder, **{"federation": {"minimum_sites": 3}, **changes})


def moves(site_steps: dict[str, float]) -> Work:
    """Make work by which each site moves the weights by a step of its own."""
    train: Callable[..., Any] = stub_work().train
    for site, step in site_steps.items():
        train = at_site(site, train, instead=stub_work(step=step).train)
    return Work(train=train, evaluate=stub_evaluate)


STEPS = {"site_a": 0.125, "site_b": -0.25, "site_c": 0.01, "site_d": 0.333}
HALF_A_STEP = 0.5 / (2**23 - 1) / 2 + 1e-7  # and float32's own


@pytest.mark.parametrize(
    "strategy",
    [
        "fedavg",
        pytest.param("fedavgm", marks=pytest.mark.slow),
        pytest.param({"name": "fedadam", "tau": 0.1}, marks=pytest.mark.slow),
    ],
)
def test_secure_sums_give_the_weights_of_plain_ones_to_the_grid(
    tmp_path: Path, strategy: Any
) -> None:
    sites = [
        make_site(tmp_path, name, pairs=pairs)
        for name, pairs in zip(NAMES, (7, 14, 7, 21), strict=True)
    ]
    secure, plain = (make(tmp_path, strategy=strategy) for make in (securely, plainly))
    hidden = run(secure, sites, work=moves(STEPS))
    shown = run(plain, sites, work=moves(STEPS))
    for number in (1, 2):
        difference = weights_after(hidden, number, secure) - weights_after(shown, number, plain)
        assert np.abs(difference).max() <= 2 * HALF_A_STEP
    entry = read_metrics(hidden.path).rounds[0]
    assert entry.secure_sum is not None
    assert (entry.secure_sum.sites, entry.secure_sum.n_pairs) == (4, 3 + 6 + 3 + 9)
    assert entry.secure_sum.numbers_clipped == 0
    for part in entry.sites.values():
        assert part.status == "ok"
        assert part.train is not None
        told = part.train.model_dump(exclude_none=True)
        assert set(told) == {"seconds", "round_trip_seconds", "bytes_down", "bytes_up"}
        assert part.weight is None
    assert load_model(hidden.model).provenance["sites"] == [*NAMES]
    plan = plan_withdrawal(hidden, "site_b")
    assert (plan.keep_round, plan.rounds) == (0, {1: None, 2: None})


@pytest.mark.slow
def test_a_run_that_trains_is_the_plain_one_to_the_grid(tmp_path: Path) -> None:
    sites = [make_site(tmp_path, name) for name in NAMES[:3]]
    secure, plain = securely(tmp_path, rounds=1), plainly(tmp_path, rounds=1)
    difference = weights_after(run(secure, sites), 1, secure) - weights_after(
        run(plain, sites), 1, plain
    )
    assert 0 < np.abs(difference).max() <= HALF_A_STEP


@pytest.mark.parametrize(
    "step",
    [
        "train",
        "reveal",
        *(pytest.param(step, marks=pytest.mark.slow) for step in ("keys", "shares", "agree")),
    ],
)
def test_a_site_that_leaves_at_any_step_is_out_of_the_sum_or_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    sites = [make_site(tmp_path, name) for name in NAMES]
    Leaving(monkeypatch, "site_d", step)
    study = securely(tmp_path, rounds=2)
    folder = run(study, sites, work=moves(STEPS))
    first, second = read_metrics(folder.path).rounds
    counts = step in ("agree", "reveal")  # its masked update was there before it left
    expected = np.mean([STEPS[name] for name in (NAMES if counts else NAMES[:3])])
    start = weights_after(folder, 0, study)
    assert np.abs(weights_after(folder, 1, study) - start - expected).max() <= 2 * HALF_A_STEP
    assert first.sites["site_d"].status == ("ok" if counts else "left-out")
    assert second.sites["site_d"].status == "ok"
    if not counts:
        assert first.sites["site_d"].reason == "MemoryError:unexpected"


def test_too_few_sites_end_the_run_and_nothing_is_summed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = [make_site(tmp_path, name) for name in NAMES[:3]]
    Leaving(monkeypatch, "site_c", "train")
    with pytest.raises(FederationError, match=r"2 sites trained, 3 are needed .* site_c") as caught:
        run(securely(tmp_path), sites, work=moves(STEPS))
    assert caught.value.code == "secure-too-few"


def test_a_round_that_was_interrupted_is_summed_again_with_the_same_sites_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = [make_site(tmp_path, name) for name in NAMES]
    study = securely(tmp_path, rounds=1)
    folder = _interrupted(study, sites, monkeypatch)
    path = folder.secure_round
    assert json.loads(path.read_text()) == {"round": 1, "sites": ["site_a", "site_b", "site_c"]}
    run(study, sites, work=moves(STEPS), folder=folder)  # site_d is back, and not in this round
    metrics = read_metrics(folder.path)
    assert metrics.rounds[0].sites["site_d"].reason == "secure-sum"
    assert metrics.rounds[0].secure_sum is not None
    assert metrics.rounds[0].secure_sum.sites == 3


def test_a_coordinator_that_asks_for_another_sum_of_the_round_gets_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = [make_site(tmp_path, name) for name in NAMES]
    study = securely(tmp_path, rounds=1)
    folder = _interrupted(study, sites, monkeypatch)
    folder.secure_round.unlink()
    with pytest.raises(FederationError, match="PrivacyError:secure-other-survivors"):
        run(study, sites, work=moves(STEPS), folder=folder)


@pytest.mark.slow
def test_without_the_sites_of_an_interrupted_round_the_run_waits_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = [make_site(tmp_path, name) for name in NAMES]
    study = securely(tmp_path, rounds=1)
    folder = _interrupted(study, sites, monkeypatch)
    with pytest.raises(FederationError, match=r"site_a not here. Bring them back"):
        run(study, sites[1:], work=moves(STEPS), folder=folder)


def _interrupted(
    study: StudyConfig, sites: list[Path], monkeypatch: pytest.MonkeyPatch
) -> RunFolder:
    """Run a round whose sum of three of the four sites can't be unmasked."""
    from nognet_server.runs.folder import new_run_folder, write_study

    folder = new_run_folder(study)
    write_study(folder, study)
    with monkeypatch.context() as patch:
        Leaving(patch, "site_d", "train")
        Leaving(patch, "site_c", "reveal")
        with pytest.raises(FederationError, match="2 sites gave shares"):
            run(study, sites, work=moves(STEPS), folder=folder)
    return folder


def test_secrets_are_gone_from_a_sites_disk_after_the_round(tmp_path: Path) -> None:
    sites = [make_site(tmp_path, name) for name in NAMES[:3]]
    folder = run(securely(tmp_path, rounds=1), sites, work=moves(STEPS))
    token = load_identity(folder, 1).run_token
    for site in sites:
        kept = MaskingState(site.parent / "state", token)
        text = (kept.folder / "session.json").read_text()
        values = json.loads(text)
        assert values["stage"] == "revealed"
        assert {values[key] for key in ("seed", "own_shares")} == {"hex:"}
        assert values["seal"]["private"] == values["pair"]["private"] == "hex:"
        for path in kept.folder.iterdir():
            assert path.stat().st_mode & 0o077 == 0
