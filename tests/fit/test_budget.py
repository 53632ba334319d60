"""What a study's privacy means at a site, and whether the site's budget bears the whole run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nognet.config import PrivacyConfig, SiteConfig, StudyConfig
from nognet.data.site.prepare import prepare_site
from nognet.data.store import PreparedSite, write_store
from nognet.errors import PrivacyBudgetError, PrivacyError
from nognet.fit.alone import train_alone
from nognet.fit.budget import admit_study, data_set_of, ledger_of, private_plan, purpose_of
from nognet.fit.train import train_round
from nognet.fit.weights import initial_weights
from nognet.privacy.accounting import NoisedSteps, PrivacyHistory
from nognet.types import SPLITS, Split
from tests.builders.federation import make_site, make_study, opened
from tests.builders.site_files import write_growing_site

Opened = tuple[SiteConfig, PreparedSite]
RUN = "cd" * 16
RATE = 2 / 3  # batches of 2 from 3 training patients


@pytest.fixture
def site(tmp_path: Path) -> Opened:
    return opened(make_site(tmp_path, "site_a"))


def study_with(folder: Path, rounds: int = 4, **privacy: Any) -> StudyConfig:
    noise = {} if "target_epsilon" in privacy else {"noise_multiplier": 2.0}
    return make_study(folder, rounds=rounds, privacy={"delta": 1e-2, **noise, **privacy})


def epsilon(rounds: int) -> float:
    return PrivacyHistory((NoisedSteps(2.0, RATE, 2 * rounds),)).epsilon(1e-2)


def charge(study: StudyConfig, site: Opened, number: int, run: str = RUN) -> None:
    plan = private_plan(study, *site)
    assert plan is not None
    about = purpose_of(study, run, number)
    ledger_of(site[0]).charge(plan.settings, plan.data, about, plan.round_steps)


def test_without_privacy_there_is_nothing_to_plan_or_admit(tmp_path: Path, site: Opened) -> None:
    study = make_study(tmp_path)
    assert private_plan(study, *site) is None
    assert admit_study(study, *site) is None
    assert not ledger_of(site[0]).folder.exists()


def test_a_run_that_fits_is_admitted_with_its_whole_cost_and_charges_nothing(
    tmp_path: Path, site: Opened
) -> None:
    cost = admit_study(study_with(tmp_path, max_epsilon=epsilon(4) * 1.001), *site, RUN)
    assert cost is not None
    assert (cost.epsilon_before, cost.epsilon_after) == (0.0, epsilon(4))
    assert ledger_of(site[0]).entries() == ()


def test_a_run_that_does_not_fit_is_refused_before_it_starts(tmp_path: Path, site: Opened) -> None:
    limit = epsilon(3)
    with pytest.raises(PrivacyBudgetError, match="refused before it starts") as caught:
        admit_study(study_with(tmp_path, max_epsilon=limit), *site, RUN)
    assert caught.value.code == "budget-run"
    rounds_only = study_with(tmp_path, max_epsilon=limit, admit="round")
    assert admit_study(rounds_only, *site, RUN) is not None


def test_training_alone_is_refused_before_its_first_round(tmp_path: Path, site: Opened) -> None:
    study = study_with(tmp_path, max_epsilon=epsilon(3))
    with pytest.raises(PrivacyBudgetError, match="refused before it starts"):
        next(train_alone(study, *site))
    assert ledger_of(site[0]).entries() == ()


def test_what_other_runs_and_studies_spent_counts_and_the_runs_own_rounds_are_not_planned_twice(
    tmp_path: Path, site: Opened
) -> None:
    study = study_with(tmp_path, max_epsilon=epsilon(4) * 1.001)
    for number in (1, 2):
        charge(study, site, number)
    back = admit_study(study, *site, RUN)  # the site was away and joins again
    assert back is not None
    assert (back.epsilon_before, back.epsilon_after) == (epsilon(2), epsilon(4))
    with pytest.raises(PrivacyBudgetError, match=rf"is {epsilon(2):.3f} now"):
        admit_study(study, *site, "another run")


def test_a_site_finds_the_noise_for_the_target_of_a_whole_run(tmp_path: Path, site: Opened) -> None:
    plan = private_plan(study_with(tmp_path, target_epsilon=0.5), *site)
    assert plan is not None
    assert (plan.round_steps.sample_rate, plan.round_steps.steps) == (RATE, 2)
    assert 0.49 < PrivacyHistory((plan.steps_of(4),)).epsilon(1e-2) <= 0.5


def test_a_site_with_more_noise_than_the_target_needs_keeps_its_own(
    tmp_path: Path, site: Opened
) -> None:
    own = PrivacyConfig(noise_multiplier=50.0, delta=1e-2)
    config = site[0].model_copy(update={"privacy": own})
    plan = private_plan(study_with(tmp_path, target_epsilon=0.5), config, site[1])
    assert plan is not None
    assert plan.round_steps.noise_multiplier == 50.0


def test_a_delta_too_large_for_the_sites_patients_is_refused_on_joining(
    tmp_path: Path, site: Opened
) -> None:
    with pytest.raises(PrivacyError, match="must be below 1 / \\(2 x 3\\)"):
        admit_study(study_with(tmp_path, delta=0.17), *site, RUN)


def test_all_pairs_of_a_patient_cost_what_one_of_them_costs(tmp_path: Path, site: Opened) -> None:
    config, prepared = site
    found = [pair for split in SPLITS for pair in prepared.pairs(split)]
    owners = "aaaabbc"
    pairs = [replace(pair, patient_id=who) for pair, who in zip(found, owners, strict=True)]
    splits: dict[str, Split] = dict.fromkeys(owners, "train")
    several = write_store(tmp_path / "several", pairs, splits, roi=prepared.roi)
    assert data_set_of(config, several).patients == {"a", "b", "c"}
    weights = initial_weights(make_study(tmp_path).network, 5)
    costs = []
    for choice in ("one", "all"):
        study = study_with(tmp_path, pairs_of_patient=choice, noise_multiplier=2.0, delta=1e-2)
        here = config.model_copy(update={"state": tmp_path / choice})
        costs.append(train_round(study, here, several, weights, round_number=1).epsilon)
    assert costs[0] == costs[1] == PrivacyHistory((NoisedSteps(2.0, RATE, 2),)).epsilon(1e-2)


@pytest.mark.slow
def test_pseudonyms_survive_another_preparation_so_that_patients_in_common_add_up(
    tmp_path: Path,
) -> None:
    config = write_growing_site(tmp_path, ("p1", "p2", "p3", "p4"))
    before = prepare_site(config)
    table = config.studies.read_text().splitlines()
    kept = [line for line in table if not line.startswith("p1,")]
    other = tmp_path / "other.csv"  # another table of the same hospital, in another cache
    other.write_text("\n".join(kept) + "\n")
    again = prepare_site(config.model_copy(update={"studies": other, "cache": tmp_path / "c2"}))
    ids = [{record.patient_id for record in p.index.records} for p in (before, again)]
    assert len(ids[0]) == 4
    assert ids[1] < ids[0]
    one, two = data_set_of(config, before), data_set_of(config, again)
    assert one.fingerprint != two.fingerprint
    assert one.key == two.key != ""
