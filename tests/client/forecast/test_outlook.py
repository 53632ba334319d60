"""The whole study from what was measured: closed forms, and nothing spent or kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nognet_client.forecast.measured import Measured, measure
from nognet_client.forecast.outlook import Outlook, _compute, foresee
from nognet_client.forecast.words import document, table

from nognet.config import ConsentConfig, PrivacyConfig, RoiConfig, SiteConfig, StudyConfig
from nognet.data.store import PreparedSite
from nognet.errors import ConfigError, PrivacyError, TrainingError
from nognet.fit.budget import admit_study, ledger_of, private_plan, purpose_of
from nognet.privacy.accounting import NoisedSteps, PrivacyHistory
from tests.builders.federation import make_site, make_study, opened

MEASURED = Measured(
    device="cpu",
    step_s=2.0,
    round_extra_s=10.0,
    own_step_s=3.0,
    pair_s=0.5,
    evaluation_extra_s=4.0,
    statistics=None,
    process_bytes=1,
    gpu_bytes=None,
)
PRIVACY: dict[str, Any] = {"noise_multiplier": 1.0, "delta": 1e-3}


@pytest.fixture
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nognet_client.forecast.outlook.measure", lambda *_: MEASURED)


def outlook_of(folder: Path, *, consent: Any = None, privacy: Any = None, **study: Any) -> Outlook:
    config, prepared = opened(make_site(folder, "site_a"))
    limits = ConsentConfig.model_validate(consent) if consent is not None else None
    own = PrivacyConfig.model_validate(privacy) if privacy is not None else None
    config = config.model_copy(update={"consent": limits, "privacy": own})
    return foresee(make_study(folder, **study), config, prepared)


@pytest.mark.parametrize(
    ("personal", "training_s", "end_s"),
    [
        ({}, 10 + 2 * 2, 4 + 4 * 0.5),
        ({"ditto_lambda": 0.1}, 10 + 2 * 2 + 10 + 2 * 3, 4 + 2 * 4 * 0.5),
        ({"fine_tune_steps": 7}, 10 + 2 * 2, 4 + 2 * 4 * 0.5 + 10 + 7 * 3),
    ],
)
def test_seconds_are_sums_of_what_was_measured(
    tmp_path: Path, personal: dict[str, Any], training_s: float, end_s: float
) -> None:
    study = make_study(tmp_path, rounds=5, personalisation=personal)
    _, prepared = opened(make_site(tmp_path, "site_a"))  # 2 pairs to validation, 2 to test
    compute = _compute(study, prepared, MEASURED)
    assert compute.training_s == pytest.approx(training_s)
    assert compute.evaluation_s == pytest.approx(4 + 2 * 0.5)
    assert compute.end_s == pytest.approx(end_s)
    assert compute.total_s == pytest.approx(5 * (training_s + 5) + end_s)


@pytest.mark.usefixtures("_fast")
def test_epsilon_is_that_of_the_stricter_settings_on_top_of_what_was_spent(tmp_path: Path) -> None:
    study = make_study(tmp_path, rounds=3, privacy=PRIVACY)
    own = {"noise_multiplier": 2.0, "delta": 1e-2, "max_epsilon": 1e3}
    config, prepared = opened(make_site(tmp_path, "site_a"))
    config = config.model_copy(update={"privacy": PrivacyConfig.model_validate(own)})
    before = foresee(study, config, prepared).epsilon
    assert before is not None
    steps = NoisedSteps(2.0, 2 / 3, 6)
    alone = PrivacyHistory((steps,)).epsilon(1e-3)
    assert (before.noise_multiplier, before.delta, before.steps) == (2.0, 1e-3, 6)
    assert (before.study, before.before, before.after) == pytest.approx((alone, 0.0, alone))
    _charge(study, config, prepared, steps)
    after = foresee(study, config, prepared).epsilon
    assert after is not None
    twice = PrivacyHistory((steps,)).then(steps).epsilon(1e-3)
    assert (after.study, after.before, after.after) == pytest.approx((alone, alone, twice))


def _charge(study: StudyConfig, config: Any, prepared: PreparedSite, steps: NoisedSteps) -> None:
    plan = private_plan(study, config, prepared)
    assert plan is not None
    ledger_of(config).charge(plan.settings, plan.data, purpose_of(study, "ab" * 8, 1), steps)


@pytest.mark.usefixtures("_fast")
def test_a_budget_that_ends_early_is_said_with_the_rounds_that_it_holds(tmp_path: Path) -> None:
    def epsilon(rounds: int) -> float:
        return PrivacyHistory((NoisedSteps(1.0, 2 / 3, 2 * rounds),)).epsilon(1e-3)

    limited = {**PRIVACY, "max_epsilon": (epsilon(4) + epsilon(5)) / 2}
    outlook = outlook_of(tmp_path, rounds=9, privacy=limited)
    assert outlook.epsilon is not None
    assert outlook.epsilon.rounds_within == 4
    assert not outlook.is_accepted
    with pytest.raises(PrivacyError):
        admit_study(outlook.study, outlook.site, outlook.prepared)
    assert "max_epsilon holds 4 of the rounds, not all" in table(outlook)


@pytest.mark.usefixtures("_fast")
@pytest.mark.parametrize("limit", [None, 4.0])
def test_a_target_that_nothing_bounds_over_runs_is_warned_of(
    tmp_path: Path, limit: float | None
) -> None:
    privacy = {"target_epsilon": 2.0, "delta": 1e-2, "max_epsilon": limit}
    text = table(outlook_of(tmp_path, privacy=privacy))
    assert ("every new run adds to what was spent" in text) == (limit is None)


@pytest.mark.usefixtures("_fast")
def test_epsilon_is_told_as_consent_counts_it(tmp_path: Path) -> None:
    private = {**PRIVACY, "delta": 0.1}
    outlook = outlook_of(tmp_path, privacy=private, consent={"max_epsilon": 100})
    found = outlook.epsilon
    assert found is not None
    whole = PrivacyHistory((NoisedSteps(1.0, 2 / 3, 4),))
    assert (found.delta, found.consent_delta) == (0.1, 1e-3)
    assert (found.study, found.consent_epsilon) == (whole.epsilon(0.1), whole.epsilon(1e-3))
    row = f"{found.consent_epsilon:.3f} at delta 0.001 (max_epsilon 100)"
    assert row in table(outlook)


@pytest.mark.usefixtures("_fast")
def test_what_would_be_declined_is_said_and_nothing_is_noted(tmp_path: Path) -> None:
    outlook = outlook_of(tmp_path, consent={"studies": ["other"], "max_rounds": 1})
    assert [o.code for o in outlook.objections] == ["consent-study", "consent-max-rounds"]
    assert not outlook.is_accepted
    text = table(outlook)
    assert "asked: 2 rounds; accepted: at most 1" in text
    assert "would NOT take part" in text
    assert not outlook.site.state.exists()
    declined = document(outlook)["consent"]["declined"]
    assert [entry["code"] for entry in declined] == ["consent-study", "consent-max-rounds"]


@pytest.mark.parametrize(
    ("site", "study", "codes"),
    [
        ({"egress": {"min_patients": 8}}, {}, ["too-few-patients"]),
        (
            {"secure_aggregation": {"required": True, "trust_coordinator": True}},
            {},
            ["secure-required"],
        ),
        (
            {
                "secure_aggregation": {
                    "required": False,
                    "trust_coordinator": True,
                    "max_site_epsilon": 20.0,
                }
            },
            {},
            ["secure-no-noise"],
        ),
        ({"rehearsal": True}, {}, ["no-rehearsal"]),
        ({"privacy": PRIVACY}, {"strategy": {"name": "scaffold"}}, ["strategy-private"]),
        ({}, {"rehearsal": True}, ["rehearsal"]),
        (
            {"egress": {"min_patients": 8}, "consent": {"studies": ["other"]}},
            {"federation": {"minimum_sites": 3}, "secure_aggregation": {}},
            ["consent-study", "too-few-patients"],
        ),
    ],
)
def test_what_the_sites_other_rules_refuse_is_no_yes(
    tmp_path: Path, site: dict[str, Any], study: dict[str, Any], codes: list[str]
) -> None:
    """The measurement is a real one: it may not fail on what is refused."""
    config, prepared = opened(make_site(tmp_path, "site_a"))
    values = {**config.model_dump(exclude_defaults=True), **site}
    config = SiteConfig.model_validate(values)
    outlook = foresee(make_study(tmp_path, **study), config, prepared)
    assert [o.code for o in outlook.objections] == codes
    assert not outlook.is_accepted
    assert all(f"[{code}]" in table(outlook) for code in codes)
    declined = document(outlook)["consent"]["declined"]
    assert [(entry["code"], bool(entry["words"])) for entry in declined] == [
        (code, True) for code in codes
    ]
    assert not config.state.exists()


@pytest.mark.usefixtures("_fast")
def test_nights_are_counted_where_there_are_hours(tmp_path: Path) -> None:
    hours = {"hours": "23:30-00:30", "timezone": "UTC"}
    rounds = 400  # of 14 s training and 5 s validation: 2.1 hours
    text = table(outlook_of(tmp_path, consent=hours, rounds=rounds))
    assert "3 x 23:30-00:30" in text


@pytest.mark.parametrize("privacy", [None, PRIVACY])
def test_a_real_measurement_spends_nothing_and_leaves_nothing(tmp_path: Path, privacy: Any) -> None:
    outlook = outlook_of(tmp_path, privacy=privacy)
    measured = outlook.measured
    assert measured.step_s > 0
    assert measured.pair_s > 0
    assert measured.process_bytes > 50e6  # torch alone
    assert measured.gpu_bytes is None
    assert not outlook.site.state.exists()
    assert outlook.is_accepted
    read = json.loads(json.dumps(document(outlook), allow_nan=False))
    assert read["compute"]["total_s"] == outlook.compute.total_s
    assert (read["privacy"] is None) == (privacy is None)


def test_a_study_for_other_pairs_says_what_to_do(tmp_path: Path) -> None:
    config, prepared = opened(make_site(tmp_path, "site_a"))
    with pytest.raises(ConfigError, match="prepare again"):
        foresee(make_study(tmp_path, roi=RoiConfig(size_vox=48)), config, prepared)


def test_a_site_without_training_pairs_says_so(tmp_path: Path) -> None:
    config, prepared = opened(make_site(tmp_path, "site_a"))
    others = tuple(r for r in prepared.index.records if r not in prepared.records("train"))
    empty = replace(prepared, index=replace(prepared.index, records=others))
    with pytest.raises(TrainingError, match="no training pairs"):
        measure(make_study(tmp_path), config, empty)
