"""What a site accepts, limit by limit, and what it says when it declines."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nognet_client.consent import door
from nognet_client.consent.objections import about_hours, about_study
from nognet_client.consent.served import ServedRecord
from nognet_client.consent.words import consent_words
from nognet_client.evaluating import evaluate, share
from nognet_client.request import Request, study_digest
from nognet_client.tasks import Site, Work, join, train

import nognet
from nognet.config import ConsentConfig, PrivacyConfig, StudyConfig, parse_study_json
from nognet.errors import ConsentError
from nognet.fit.weights import initial_weights, weight_spec
from nognet.metrics.statistics import PairRow, SiteStatistics
from nognet.privacy.accounting import NoisedSteps, PrivacyHistory
from nognet.wire.contract import PROTOCOL_VERSION, contract, contract_hash
from nognet.wire.flat import pack
from nognet.wire.records import EvaluateTask, JoinTask, ShareTask, TrainTask
from tests.builders.federation import make_site, make_study, opened, stub_work

TOKEN, OTHER = "ab" * 16, "cd" * 16
NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


def site_with(folder: Path, **limits: Any) -> Site:
    config, prepared = opened(make_site(folder, "site_a"))
    return Site(config.model_copy(update={"consent": ConsentConfig(**limits)}), prepared)


def request(site: Site, study: StudyConfig, **changes: Any) -> Request:
    asked = Request(study, contract_hash(contract(study)), TOKEN, site.config, site.prepared)
    return replace(asked, **changes)


def train_task(study: StudyConfig, number: int = 1, *, token: str = TOKEN) -> TrainTask:
    weights = pack(initial_weights(study.network, study.seed), weight_spec(study.network))
    digest = contract_hash(contract(study))
    return TrainTask(number, study.for_sites(), digest, token, weights)


def evaluate_task(study: StudyConfig, number: int = 1, *, split: Any = "test") -> EvaluateTask:
    asked = train_task(study, number)
    return EvaluateTask(number, split, asked.study_json, asked.contract_hash, TOKEN, asked.weights)


def codes(site: Site, study: StudyConfig, **changes: Any) -> list[str]:
    asked = request(site, study, **{"release": nognet.__version__, **changes})
    return [found.code for found in about_study(asked, NOON)]


PRIVACY = {"noise_multiplier": 1.0, "delta": 1e-3}
INSIDE: dict[str, Any] = {
    "studies": ["tiny", "other"],
    "releases": [nognet.__version__],
    "protocol": PROTOCOL_VERSION,
    "max_rounds": 2,
    "max_epsilon": 1e4,
    "require_privacy": True,
    "min_batch_size": 2,
    "max_steps_per_round": 2,
    "expires": date(2026, 3, 2),
    "timezone": "UTC",
    "metrics": ["dsc"],
}


def test_a_study_at_every_limit_is_inside(tmp_path: Path) -> None:
    study = make_study(tmp_path, privacy=PRIVACY)
    limits = {
        **INSIDE,
        "studies": [{"name": "tiny", "sha256": study_digest(study)}],
        "contract_hash": contract_hash(contract(study)),
    }
    assert codes(site_with(tmp_path, **limits), study) == []


@pytest.mark.parametrize(
    ("limit", "code"),
    [
        ({"studies": ["other"]}, "consent-study"),
        ({"studies": [{"name": "tiny", "sha256": "00" * 32}]}, "consent-study-digest"),
        ({"releases": ["0.0.1"]}, "consent-release"),
        ({"protocol": PROTOCOL_VERSION + 1}, "consent-protocol"),
        ({"contract_hash": "00" * 32}, "consent-contract"),
        ({"max_rounds": 1}, "consent-max-rounds"),
        ({"max_epsilon": 1e-3}, "consent-max-epsilon"),
        ({"min_batch_size": 3}, "consent-batch-size"),
        ({"max_steps_per_round": 1}, "consent-steps"),
        ({"expires": date(2026, 3, 1)}, "consent-expired"),
    ],
)
def test_one_step_beyond_a_limit_is_outside_by_that_code_alone(
    tmp_path: Path, limit: dict[str, Any], code: str
) -> None:
    site = site_with(tmp_path, **{**INSIDE, **limit})
    assert codes(site, make_study(tmp_path, privacy=PRIVACY)) == [code]


def test_without_privacy_there_is_no_epsilon_to_accept(tmp_path: Path) -> None:
    site = site_with(tmp_path, **INSIDE)
    assert codes(site, make_study(tmp_path)) == ["consent-privacy", "consent-max-epsilon"]


def test_the_sites_own_privacy_counts(tmp_path: Path) -> None:
    site = site_with(tmp_path, **INSIDE)
    own = site.config.model_copy(update={"privacy": PrivacyConfig.model_validate(PRIVACY)})
    assert codes(Site(own, site.prepared), make_study(tmp_path)) == []


def test_a_coordinator_of_another_release_is_outside(tmp_path: Path) -> None:
    site = site_with(tmp_path, releases=[nognet.__version__])
    assert codes(site, make_study(tmp_path), release="99.0.0") == ["consent-release"]
    (found,) = about_study(request(site, make_study(tmp_path), release="\x1b[31m" * 999), NOON)
    assert "\x1b" not in found.words
    (found,) = about_study(request(site, make_study(tmp_path)), NOON)
    assert "this site didn't join the run" in found.words
    assert len(found.words) < 300


def joining(study: StudyConfig, release: str = nognet.__version__) -> JoinTask:
    return JoinTask(study.for_sites(), {**contract(study), "nognet": release}, TOKEN)


def test_a_run_that_was_never_joined_has_no_release_to_accept(tmp_path: Path) -> None:
    study, site = make_study(tmp_path), site_with(tmp_path, releases=[nognet.__version__])
    share_task = ShareTask(1, study.for_sites(), contract_hash(contract(study)), TOKEN)
    tasks: tuple[Callable[[], object], ...] = (
        lambda: train(train_task(study), site, stub_work()),
        lambda: evaluate(evaluate_task(study), site, stub_work()),
        lambda: share(share_task, site),
    )
    for answer in tasks:
        with pytest.raises(ConsentError, match="didn't join the run") as found:
            answer()
        assert found.value.code == "consent-release"
    join(joining(study), site, stub_work())
    train(train_task(study), site, stub_work())
    evaluate(evaluate_task(study), site, stub_work())


def test_the_release_of_the_last_joining_holds_for_a_runs_tasks(tmp_path: Path) -> None:
    study, site = make_study(tmp_path), site_with(tmp_path, releases=[nognet.__version__])
    join(joining(study), site, stub_work())
    train(train_task(study), site, stub_work())
    with pytest.raises(ConsentError):
        join(joining(study, "99.0.0"), site, stub_work())
    with pytest.raises(ConsentError, match=r"release 99\.0\.0 at the coordinator"):
        train(train_task(study, 2), site, stub_work())
    join(joining(study), site, stub_work())
    train(train_task(study, 2), site, stub_work())


def test_epsilon_is_that_of_all_rounds_together(tmp_path: Path) -> None:
    study = make_study(tmp_path, rounds=6, privacy=PRIVACY)
    steps = NoisedSteps(1.0, 2 / 3, 12)  # 6 rounds of 2 steps, 2 of the site's 3 patients a step
    exact = PrivacyHistory((steps,)).epsilon(1e-3)
    for factor, expected in ((1.001, []), (0.999, ["consent-max-epsilon"])):
        site = site_with(tmp_path / str(factor), max_epsilon=exact * factor)
        assert codes(site, study) == expected


def test_a_strategy_that_needs_the_loss_is_outside_where_the_loss_stays(tmp_path: Path) -> None:
    study = make_study(tmp_path, strategy="qfedavg")
    assert codes(site_with(tmp_path / "a", metrics=["dsc", "loss"]), study) == []
    assert codes(site_with(tmp_path / "b", metrics=["dsc"]), study) == ["consent-metrics"]


@pytest.mark.parametrize(
    ("hours", "clock", "is_open"),
    [
        ("19:00-06:00", "18:59", False),
        ("19:00-06:00", "19:00", True),
        ("19:00-06:00", "23:59", True),
        ("19:00-06:00", "00:00", True),
        ("19:00-06:00", "05:59", True),
        ("19:00-06:00", "06:00", False),
        ("09:00-17:00", "08:59", False),
        ("09:00-17:00", "09:00", True),
        ("09:00-17:00", "16:59", True),
        ("09:00-17:00", "17:00", False),
    ],
)
@pytest.mark.parametrize(("zone", "offset"), [("UTC", 0), ("Asia/Kolkata", 330)])
def test_hours_hold_on_the_sites_own_clock(
    tmp_path: Path, hours: str, clock: str, is_open: bool, zone: str, offset: int
) -> None:
    site = site_with(tmp_path, hours=hours, timezone=zone)
    hour, minute = map(int, clock.split(":"))
    minutes = (60 * hour + minute - offset) % 1440
    now = datetime(2026, 3, 2, minutes // 60, minutes % 60, tzinfo=UTC)
    found = [o.code for o in about_hours(request(site, make_study(tmp_path)), now)]
    assert found == ([] if is_open else ["consent-hours"])


@pytest.mark.parametrize(
    ("now", "clock"),
    [
        (datetime(2026, 1, 15, 18, 30, tzinfo=UTC), "19:30 CET"),
        (datetime(2026, 7, 15, 18, 30, tzinfo=UTC), "20:30 CEST"),
    ],
)
def test_hours_follow_summer_time(tmp_path: Path, now: datetime, clock: str) -> None:
    site = site_with(tmp_path, hours="21:00-22:00", timezone="Europe/Berlin")
    (found,) = about_hours(request(site, make_study(tmp_path)), now)
    assert clock in found.asked


def test_the_last_day_of_consent_ends_at_the_sites_midnight(tmp_path: Path) -> None:
    site = site_with(tmp_path, expires=date(2026, 3, 2), timezone="America/New_York")
    asked = request(site, make_study(tmp_path))
    late = datetime(2026, 3, 3, 4, 59, tzinfo=UTC)
    assert list(about_study(asked, late)) == []
    assert [o.code for o in about_study(asked, late.replace(hour=5, minute=0))] == [
        "consent-expired"
    ]


def test_outside_hours_training_is_declined_and_a_kept_reply_is_given_all_the_same(
    tmp_path: Path,
) -> None:
    study, site = make_study(tmp_path), site_with(tmp_path, hours="19:00-06:00", timezone="UTC")
    asked = request(site, study)
    door.check_joining(asked, now=NOON)
    door.check_training(asked, 1, now=NOON)  # which a kept reply passes
    with pytest.raises(ConsentError, match=r"asked: training at 12:00 UTC; accepted: 19:00-06:00"):
        door.begin(asked, "rounds", "aa", now=NOON)
    door.begin(asked, "evaluations", "aa", now=NOON)
    door.begin(asked, "rounds", "aa", now=NOON.replace(hour=20))


def test_all_that_is_outside_is_said_at_once_with_what_to_change(tmp_path: Path) -> None:
    site = site_with(tmp_path, studies=["other"], max_rounds=1)
    with pytest.raises(ConsentError) as found:
        door.check_joining(request(site, make_study(tmp_path)))
    assert found.value.public_code == "ConsentError:consent-study"
    text = str(found.value)
    assert "asked: study 'tiny'; accepted: other (consent.studies in site.yaml" in text
    assert "asked: 2 rounds; accepted: at most 1 (consent.max_rounds in site.yaml" in text


def test_rounds_are_counted_over_runs_and_restarts(tmp_path: Path) -> None:
    study, site = make_study(tmp_path, rounds=3), site_with(tmp_path, max_rounds=3)
    for number, token in ((1, TOKEN), (2, TOKEN), (1, OTHER)):
        train(train_task(study, number, token=token), site, stub_work())
    train(train_task(study, 2), site, stub_work())  # kept, so not done again
    with pytest.raises(ConsentError, match="one more after 3 rounds") as found:
        train(train_task(study, 3), site, stub_work())
    assert found.value.code == "consent-max-rounds"
    with pytest.raises(ConsentError):
        join(JoinTask(study.for_sites(), contract(study), "ef" * 16), site, stub_work())
    other = make_study(tmp_path, rounds=3, name="another")
    assert train(train_task(other, token="12" * 16), site, stub_work()).round_number == 1


def test_a_round_sent_again_with_other_weights_counts_again(tmp_path: Path) -> None:
    study, site = make_study(tmp_path), site_with(tmp_path, max_rounds=2)
    task = train_task(study)
    train(task, site, stub_work())
    other = replace(task, weights=task.weights + np.float32(1))
    train(other, site, stub_work())
    with pytest.raises(ConsentError, match="one more after 2 rounds"):
        train(replace(task, weights=task.weights - np.float32(1)), site, stub_work())


def test_a_round_that_died_half_way_counts_once(tmp_path: Path) -> None:
    def dies(*_: Any, **__: Any) -> Any:
        raise MemoryError

    study, site = make_study(tmp_path), site_with(tmp_path, max_rounds=2)
    for _ in range(3):
        with pytest.raises(MemoryError):
            train(train_task(study), site, Work(train=dies))
    train(train_task(study, 1), site, stub_work())
    assert train(train_task(study, 2), site, stub_work()).round_number == 2


def test_weights_that_fit_nothing_cost_no_round(tmp_path: Path) -> None:
    study, site = make_study(tmp_path), site_with(tmp_path, max_rounds=2)
    task = train_task(study)
    for bad in (task.weights[:-1], np.full_like(task.weights, np.nan)):
        with pytest.raises(Exception, match="weights received"):
            train(replace(task, weights=bad), site, stub_work())
    for number in (1, 2):
        train(train_task(study, number), site, stub_work())


def test_evaluations_are_counted(tmp_path: Path) -> None:
    study, site = make_study(tmp_path), site_with(tmp_path, max_evaluations=2)
    for number in (1, 2, 2):
        evaluate(evaluate_task(study, number), site, stub_work())
    with pytest.raises(ConsentError) as found:
        evaluate(evaluate_task(study, 2, split="validation"), site, stub_work())
    assert found.value.code == "consent-max-evaluations"


OWN = {"personalisation": {"fine_tune_steps": 1}}


def final_test(study: StudyConfig, number: int = 2, **changes: Any) -> EvaluateTask:
    return replace(evaluate_task(study, number), personalise=True, **changes)


def test_a_site_makes_its_own_model_once_a_run_and_of_the_same_task_again(tmp_path: Path) -> None:
    study, site = make_study(tmp_path, **OWN), site_with(tmp_path)
    task = final_test(study)
    first = evaluate(task, site, stub_work())
    shutil.rmtree(site.config.state / "replies")  # as a resumed run asks it again much later
    assert evaluate(task, site, stub_work()).statistics == first.statistics
    for other in (
        replace(task, weights=task.weights + np.float32(1)),
        replace(task, round_number=1),
    ):
        with pytest.raises(ConsentError, match="once, for the test at a run's end") as found:
            evaluate(other, site, stub_work())
        assert found.value.code == "consent-personalise"
        evaluate(replace(other, personalise=False), site, stub_work())
    evaluate(replace(task, run_token=OTHER), site, stub_work())


def test_what_changes_at_the_site_is_no_other_task(tmp_path: Path) -> None:
    study, site = make_study(tmp_path, **OWN), site_with(tmp_path)
    evaluate(final_test(study), site, stub_work())
    changed = site.config.model_copy(update={"threads": 2, "consent": ConsentConfig()})
    evaluate(final_test(study), Site(changed, site.prepared), stub_work())


def test_the_task_of_the_own_model_is_noted_before_it_is_worked_on(tmp_path: Path) -> None:
    def dies(*_: Any, **__: Any) -> Any:
        raise MemoryError

    study, site = make_study(tmp_path, **OWN), site_with(tmp_path)
    task = final_test(study)
    with pytest.raises(MemoryError):
        evaluate(task, site, replace(stub_work(), evaluate=dies))
    with pytest.raises(ConsentError):
        evaluate(replace(task, weights=task.weights + np.float32(1)), site, stub_work())
    assert evaluate(task, site, stub_work()).statistics


def test_after_its_own_model_a_site_trains_no_more_in_the_run(tmp_path: Path) -> None:
    study, site = make_study(tmp_path, **OWN), site_with(tmp_path)
    kept = train(train_task(study), site, stub_work())
    evaluate(final_test(study), site, stub_work())
    with pytest.raises(ConsentError, match="whose final test made this site's own model") as found:
        train(train_task(study, 2), site, stub_work())
    assert found.value.code == "consent-personalise"
    assert train(train_task(study), site, stub_work()).seconds == kept.seconds
    train(train_task(study, 1, token=OTHER), site, stub_work())


def test_where_no_site_has_a_model_of_its_own_a_final_test_ends_nothing(tmp_path: Path) -> None:
    study, site = make_study(tmp_path), site_with(tmp_path)
    task = final_test(study)
    for sent in (task, replace(task, weights=task.weights + np.float32(1))):
        evaluate(sent, site, stub_work())
    assert train(train_task(study, 2), site, stub_work()).round_number == 2


def test_a_round_that_was_done_counts_again_once_its_reply_is_forgotten(tmp_path: Path) -> None:
    """Five evaluations push a training reply out of those kept; trained anew it has other noise."""
    study, site = make_study(tmp_path, rounds=5), site_with(tmp_path, max_rounds=5)
    train(train_task(study), site, stub_work())
    for number in range(1, 6):
        evaluate(evaluate_task(study, number), site, stub_work())
    train(train_task(study), site, stub_work())
    evaluate(evaluate_task(study, 1), site, stub_work())
    served = ServedRecord(site.config.state).read().of("tiny")
    assert (served.rounds, served.evaluations) == (2, 6)


def test_epsilon_adds_up_over_the_runs_of_a_study(tmp_path: Path) -> None:
    study = make_study(tmp_path, rounds=1, privacy=PRIVACY)
    two = PrivacyHistory((NoisedSteps(1.0, 2 / 3, 4),)).epsilon(1e-3)
    site = site_with(tmp_path, max_epsilon=two * 1.001)
    for token in ("1", "2"):
        door.begin(request(site, study, run_token=token * 8), "rounds", token)
    with pytest.raises(ConsentError, match="with this round") as found:
        door.begin(request(site, study, run_token="3" * 8), "rounds", "3")
    assert found.value.code == "consent-max-epsilon"


@pytest.mark.parametrize("own_delta", [None, 1e-4])
@pytest.mark.parametrize("factor", [1.0, 5.0, 100.0])  # 0.1 at most; three patients allow 1 / 6
def test_no_delta_of_a_study_buys_more_rounds(
    tmp_path: Path, own_delta: float | None, factor: float
) -> None:
    floor = 1e-3 if own_delta is None else own_delta
    study = make_study(tmp_path, rounds=1, privacy={**PRIVACY, "delta": floor * factor})
    two = PrivacyHistory((NoisedSteps(1.0, 2 / 3, 4),)).epsilon(floor)
    own = {} if own_delta is None else {"max_delta": own_delta}
    site = site_with(tmp_path, max_epsilon=two * 1.001, **own)
    for token in ("1", "2"):
        door.begin(request(site, study, run_token=token * 8), "rounds", token)
    with pytest.raises(ConsentError, match=f"at delta {floor:g} with this round"):
        door.begin(request(site, study, run_token="3" * 8), "rounds", "3")
    assert codes(site, make_study(tmp_path, rounds=2, privacy=study.privacy)) == []
    three = request(site, make_study(tmp_path, rounds=3, privacy=study.privacy))
    (found,) = about_study(three, NOON)
    assert found.code == "consent-max-epsilon"
    assert f"at delta {floor:g}, all rounds together" in found.words


def test_a_studys_smaller_delta_is_the_one_that_counts(tmp_path: Path) -> None:
    study = make_study(tmp_path, privacy={**PRIVACY, "delta": 1e-6})
    limit = PrivacyHistory((NoisedSteps(1.0, 2 / 3, 4),)).epsilon(1e-3) * 1.001
    assert codes(site_with(tmp_path, max_epsilon=limit), study) == ["consent-max-epsilon"]


def test_a_target_at_a_delta_of_the_studys_choice_is_no_epsilon_of_the_sites(
    tmp_path: Path,
) -> None:
    private = {"target_epsilon": 2.0, "delta": 0.15}
    site = site_with(tmp_path, max_epsilon=2.1)
    assert codes(site, make_study(tmp_path, privacy=private)) == ["consent-max-epsilon"]
    assert codes(site, make_study(tmp_path, privacy={**private, "delta": 1e-3})) == []


def test_an_epsilon_that_is_accepted_is_told_with_its_delta(tmp_path: Path) -> None:
    assert "max_delta 0.001" in consent_words(site_with(tmp_path / "a", max_epsilon=4).config)
    assert "max_delta" not in consent_words(site_with(tmp_path / "b", max_rounds=4).config)


def test_of_withheld_metrics_nothing_is_left_and_the_others_are_unchanged() -> None:
    rows = [
        PairRow("federated", f"p{i}", "growing" if i % 2 else "stable", values, 1.0 + i)
        for i, values in enumerate([{"dsc": 0.5, "psnr": 20.0}, {"dsc": 0.7, "psnr": 30.0}])
    ]
    everything = SiteStatistics.from_pairs(rows)
    kept = door.permitted(everything, ConsentConfig(metrics=("dsc",)))
    flat, before = kept.to_flat(), everything.to_flat()
    assert {key for key, value in flat.items() if value} <= {k for k in before if "|dsc|" in k}
    assert all(flat[key] == before[key] for key in before if "|dsc|" in key)
    assert SiteStatistics.from_flat(flat) == kept
    assert door.permitted(everything, ConsentConfig(metrics=("growth_auc",))).to_flat() == {
        key: value for key, value in before.items() if "|growth_auc|" in key
    }
    assert door.permitted(everything, ConsentConfig()) == everything
    assert door.permitted(everything, None) == everything


def test_replies_carry_no_figure_that_may_not_leave(tmp_path: Path) -> None:
    study, site = make_study(tmp_path), site_with(tmp_path, metrics=["psnr"])
    assert train(train_task(study), site, stub_work()).mean_loss is None
    reply = evaluate(evaluate_task(study), site, stub_work())
    assert reply.statistics  # that there are none is a fault for the coordinator
    assert not any(reply.statistics.values())


def test_the_digest_is_the_same_at_coordinator_and_site(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    received = parse_study_json(study.for_sites())
    assert study_digest(study) == study_digest(received)
    assert study_digest(study) != study_digest(make_study(tmp_path, rounds=3))


def test_a_line_says_what_is_accepted(tmp_path: Path) -> None:
    site = site_with(tmp_path, studies=["tiny"], max_rounds=3, metrics=["dsc"])
    assert consent_words(site.config) == "studies tiny; max_rounds 3; metrics dsc"
    without = site.config.model_copy(update={"consent": None})
    assert "takes part in whatever study" in consent_words(without)
