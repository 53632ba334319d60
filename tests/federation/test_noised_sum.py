"""Secure sums whose noise the sites make, in whole runs in one process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nognet_client.spent import check_told_is_noted
from nognet_server.central_dp.charges import read_charges
from nognet_server.runs.folder import RunFolder, new_run_folder, write_study

from nognet.config import SiteConfig, StudyConfig, load_site
from nognet.errors import FederationError, PrivacyBudgetError, PrivacyError
from nognet.fit.site_privacy import plan_for
from nognet.privacy.accounting import NoisedSteps, PrivacyHistory
from nognet.report.central import central_sentence
from nognet.report.metrics_file import read_metrics
from tests.builders.federation import make_site, make_study, run, stub_work, weights_after
from tests.builders.leaving import Leaving

NAMES = ("site_a", "site_b", "site_c", "site_d")
NOISE, CLIP_NORM, EXPECTED = 1.5, 0.5, 4
STEP = 0.125  # by which each number moves at each site: far longer than the clip norm


def epsilon(rounds: int) -> float:
    """Give what so many releases cost by Renyi divergence; the noise is the same below."""
    plan = plan_for(noisily(Path()))
    assert plan is not None
    return plan.accounts(PrivacyHistory((NoisedSteps(NOISE, 1.0, rounds),))).epsilon


def noisily(folder: Path, *, releases: int | None = None, **changes: Any) -> StudyConfig:
    limit = 50.0 if releases is None else epsilon(releases)
    central = {
        "noise_multiplier": NOISE,
        "clip_norm": CLIP_NORM,
        "delta": 1e-3,
        "max_epsilon": limit,
    }
    values: dict[str, Any] = {
        "strategy": {"name": "fedavg", "weighting": "equal"},
        "federation": {"minimum_sites": 3, "expected_sites": EXPECTED, "quorum": 0.5},
        "secure_aggregation": {},
        "central_privacy": central,
        "rounds": 1,
    }
    return make_study(folder, **{**values, **changes})


def moved(folder: RunFolder, study: StudyConfig, number: int = 1) -> np.ndarray:
    after, before = (weights_after(folder, n, study).astype(np.float64) for n in (number, 0))
    return after - before


def expected_noise(sites: int) -> float:
    """Of the mean: shares of z C / sqrt(2) each (three sites at least, one of them curious)."""
    return NOISE * CLIP_NORM * float(np.sqrt(sites / 2)) / EXPECTED


def test_a_run_is_noised_by_its_sites_and_charged_before_they_give_anything(
    tmp_path: Path,
) -> None:
    sites = [make_site(tmp_path, name) for name in NAMES]
    study = noisily(tmp_path, rounds=2)
    folder = run(study, sites, work=stub_work(step=STEP))
    change = moved(folder, study)
    noise = expected_noise(4)
    assert change.std() == pytest.approx(noise, rel=0.02)
    mean = CLIP_NORM / change.size**0.5
    assert change.mean() == pytest.approx(mean, abs=5 * noise / change.size**0.5)
    metrics = read_metrics(folder.path)
    entry = metrics.central_privacy
    assert entry is not None
    assert (entry.noise_from, entry.honest_sites, entry.releases) == ("sites", 2, 2)
    assert (entry.epsilon, entry.epsilon_prv) == (epsilon(2), None)
    summed = metrics.rounds[0].secure_sum
    assert summed is not None
    assert (summed.sites, summed.n_pairs, summed.updates_shortened) == (4, None, 0)
    assert "the sites made it" in str(central_sentence(metrics))
    assert json.loads(folder.charges.read_text())["noise_from"] == "sites"
    receipts = sorted((load_site(sites[0]).state / "egress" / "receipts").rglob("*-train.json"))
    noted = [json.loads(path.read_text())["noise"] for path in receipts]
    assert [part["releases"] for part in noted] == [1, 2]
    assert noted[1]["site_epsilon"] == entry.epsilon
    _older_state_is_refused(load_site(sites[0]))


def _older_state_is_refused(site: SiteConfig) -> None:
    check_told_is_noted(site)
    path = next((site.state / "secure").rglob("done.json"))
    done = json.loads(path.read_text())
    done["noised"].popitem()
    path.write_text(json.dumps(done))
    with pytest.raises(PrivacyError, match="1 noised updates of the run are noted") as caught:
        check_told_is_noted(site)
    assert caught.value.code == "secure-behind"


@pytest.mark.parametrize(
    ("step", "counted"), [("train", 3), pytest.param("reveal", 4, marks=pytest.mark.slow)]
)
def test_with_a_site_less_there_is_less_noise_and_never_less_than_charged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, counted: int
) -> None:
    sites = [make_site(tmp_path, name) for name in NAMES]
    Leaving(monkeypatch, "site_d", step)
    study = noisily(tmp_path)
    folder = run(study, sites, work=stub_work(step=STEP))
    assert moved(folder, study).std() == pytest.approx(expected_noise(counted), rel=0.02)
    assert expected_noise(counted) > NOISE * CLIP_NORM / EXPECTED


def interrupted(
    study: StudyConfig, sites: list[Path], monkeypatch: pytest.MonkeyPatch
) -> RunFolder:
    """Play a round whose noised updates are given, and whose sum can't be unmasked."""
    folder = new_run_folder(study)
    write_study(folder, study)
    with monkeypatch.context() as patch:
        Leaving(patch, "site_c", "reveal")
        with pytest.raises(FederationError, match="2 sites gave shares"):
            run(study, sites, work=stub_work(step=STEP), folder=folder)
    assert read_charges(folder, at_least=PrivacyHistory()).steps == 1
    return folder


def test_a_round_that_is_played_again_has_other_noise_and_is_charged_again_on_both_sides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = [make_site(tmp_path, name) for name in NAMES[:3]]
    study = noisily(tmp_path, releases=2)
    folder = interrupted(study, sites, monkeypatch)
    run(study, sites, work=stub_work(step=STEP), folder=folder)
    entry = read_metrics(folder.path).central_privacy
    assert entry is not None
    assert (entry.releases, entry.epsilon) == (2, epsilon(2))
    for site in sites:
        done = json.loads(next((site.parent / "state").rglob("done.json")).read_text())
        assert list(done["noised"].values()) == [NOISE, NOISE]


def test_what_sites_gave_is_charged_where_too_few_gave_it_for_a_sum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = [make_site(tmp_path, name) for name in NAMES[:3]]
    study = noisily(tmp_path)
    folder = new_run_folder(study)
    write_study(folder, study)
    Leaving(monkeypatch, "site_c", "train")
    with pytest.raises(FederationError, match="2 sites trained, 3 are needed"):
        run(study, sites, work=stub_work(step=STEP), folder=folder)
    assert read_charges(folder, at_least=PrivacyHistory()).steps == 1
    given = [json.loads(p.read_text())["noised"] for p in sorted(tmp_path.rglob("done.json"))]
    assert [len(part) for part in given] == [1, 1, 0]


def test_a_sum_below_the_quorum_is_not_made_so_that_the_round_can_have_more_sites_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = [make_site(tmp_path, name) for name in NAMES]
    study = noisily(
        tmp_path, federation={"minimum_sites": 3, "expected_sites": EXPECTED, "quorum": 1}
    )
    folder = new_run_folder(study)
    write_study(folder, study)
    with monkeypatch.context() as patch:
        Leaving(patch, "site_d", "train")
        with pytest.raises(FederationError, match="3 usable replies of 4 sites asked, expected 4"):
            run(study, sites, work=stub_work(step=STEP), folder=folder)
    assert all(not json.loads(p.read_text())["agreed"] for p in tmp_path.rglob("done.json"))
    run(study, sites, work=stub_work(step=STEP), folder=folder)
    summed = read_metrics(folder.path).rounds[0].secure_sum
    assert summed is not None
    assert summed.sites == 4


@pytest.mark.slow
def test_the_limit_holds_where_a_round_would_have_to_be_played_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = [make_site(tmp_path, name) for name in NAMES[:3]]
    study = noisily(tmp_path, releases=1)
    folder = interrupted(study, sites, monkeypatch)
    run(study, sites, work=stub_work(step=STEP), folder=folder)
    metrics = read_metrics(folder.path)
    assert (metrics.status, len(metrics.rounds)) == ("completed", 0)


@pytest.mark.slow
def test_sites_stop_where_a_coordinator_forgets_what_was_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = [make_site(tmp_path, name) for name in NAMES[:3]]
    study = noisily(tmp_path, releases=1)
    folder = interrupted(study, sites, monkeypatch)
    record = json.loads(folder.charges.read_text())
    folder.charges.write_text(json.dumps({**record, "releases": []}))
    with pytest.raises(FederationError, match="PrivacyBudgetError:budget-site"):
        run(study, sites, work=stub_work(step=STEP), folder=folder)


def test_a_plan_beyond_its_limit_is_refused_before_a_site_is_asked(tmp_path: Path) -> None:
    study = noisily(tmp_path, releases=1, rounds=2)
    with pytest.raises(PrivacyBudgetError, match="expected at most max_epsilon"):
        run(study, [make_site(tmp_path, "site_a")], work=stub_work())
