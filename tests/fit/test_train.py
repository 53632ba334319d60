from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nognet.config import (
    FedProxConfig,
    PrivacyConfig,
    QFedAvgConfig,
    RoiConfig,
    ScaffoldConfig,
    SiteConfig,
    StudyConfig,
    TrainingConfig,
)
from nognet.data.store import PreparedSite
from nognet.errors import (
    ConfigError,
    PrivacyBudgetError,
    PrivacyError,
    TrainingError,
    WireError,
)
from nognet.fit.budget import ledger_of
from nognet.fit.outcome import RoundOutcome
from nognet.fit.schedule import learning_rate
from nognet.fit.train import train_round
from nognet.fit.weights import Weights, initial_weights
from nognet.privacy.accounting import PrivacyHistory
from tests.builders.federation import make_site, make_study, opened

Opened = tuple[SiteConfig, PreparedSite]


@pytest.fixture
def site(tmp_path: Path) -> Opened:
    return opened(make_site(tmp_path / "alpha", "alpha"))


@pytest.fixture
def study(tmp_path: Path) -> StudyConfig:
    return make_study(tmp_path)


def _round(study: StudyConfig, site: Opened, weights: Weights, number: int = 1) -> RoundOutcome:
    return train_round(study, *site, weights, round_number=number)


def _distance(one: Weights, two: Weights) -> float:
    return sum(float((one[name] - two[name]).square().sum()) for name in one) ** 0.5


def test_the_same_arguments_give_the_same_bits(study: StudyConfig, site: Opened) -> None:
    weights = initial_weights(study.network, study.seed)
    one, two = (_round(study, site, weights) for _ in range(2))
    assert all(torch.equal(one.weights[name], two.weights[name]) for name in weights)
    assert one.mean_loss == two.mean_loss


def test_a_round_leaves_the_weights_it_was_given(study: StudyConfig, site: Opened) -> None:
    weights = initial_weights(study.network, study.seed)
    before = {name: tensor.clone() for name, tensor in weights.items()}
    outcome = _round(study, site, weights)
    assert all(torch.equal(weights[name], before[name]) for name in weights)
    assert _distance(outcome.weights, weights) > 0


def test_rounds_and_seeds_draw_other_samples(study: StudyConfig, site: Opened) -> None:
    weights = initial_weights(study.network, study.seed)
    first = _round(study, site, weights)
    assert _distance(first.weights, _round(study, site, weights, 2).weights) > 0
    other = site[0].model_copy(update={"seed": 99}), site[1]
    assert _distance(first.weights, _round(study, other, weights).weights) > 0


def test_training_draws_nothing_from_global_generators(study: StudyConfig, site: Opened) -> None:
    state = torch.random.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002  the global one is what is watched
    _round(study, site, initial_weights(study.network, study.seed))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002  see above


def test_the_outcome_counts_pairs_patients_and_steps(study: StudyConfig, site: Opened) -> None:
    seen: list[tuple[int, int]] = []
    outcome = train_round(
        study,
        *site,
        initial_weights(study.network, study.seed),
        round_number=1,
        progress=lambda step, of, _: seen.append((step, of)),
    )
    counts = site[1].counts()["train"]
    assert (outcome.n_pairs, outcome.n_patients) == (counts["pairs"], counts["patients"])
    assert outcome.steps == study.training.steps_per_round
    assert seen == [(step + 1, outcome.steps) for step in range(outcome.steps)]
    assert outcome.epsilon is None


@pytest.mark.slow
def test_training_lowers_the_loss(tmp_path: Path, site: Opened) -> None:
    training = TrainingConfig(steps_per_round=15, batch_size=2, learning_rate=3e-3)
    study = make_study(tmp_path / "longer").model_copy(update={"training": training})
    weights = initial_weights(study.network, study.seed)
    losses = []
    for number in range(1, 4):
        outcome = _round(study, site, weights, number)
        weights = outcome.weights
        losses.append(outcome.mean_loss)
    assert losses[2] < losses[0]


def test_fedprox_holds_the_weights_nearer_to_the_global_ones(
    study: StudyConfig, site: Opened
) -> None:
    weights = initial_weights(study.network, study.seed)
    free = study.model_copy(update={"strategy": FedProxConfig(name="fedprox", proximal_mu=0.0)})
    held = study.model_copy(update={"strategy": FedProxConfig(name="fedprox", proximal_mu=1e4)})
    plain = _round(study, site, weights)
    assert _distance(_round(free, site, weights).weights, plain.weights) == 0
    near = _distance(_round(held, site, weights).weights, weights)
    assert near < _distance(plain.weights, weights)


def test_scaffold_without_or_with_a_correction_of_zero_is_fedavg_bit_for_bit(
    study: StudyConfig, site: Opened
) -> None:
    weights = initial_weights(study.network, study.seed)
    plain = _round(study, site, weights)
    ours = study.model_copy(update={"strategy": ScaffoldConfig(name="scaffold")})
    zero = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    for correction in (None, zero):
        outcome = train_round(ours, *site, weights, round_number=1, correction=correction)
        assert all(torch.equal(outcome.weights[n], plain.weights[n]) for n in weights)
        assert outcome.mean_loss == plain.mean_loss
        assert outcome.control is not None
        assert list(outcome.control) == list(weights)
        assert _distance(outcome.control, zero) > 0
    assert plain.control is None
    assert plain.start_loss is None


def test_a_correction_leads_elsewhere(study: StudyConfig, site: Opened) -> None:
    weights = initial_weights(study.network, study.seed)
    ours = study.model_copy(update={"strategy": ScaffoldConfig(name="scaffold")})
    some = {name: torch.full_like(tensor, 0.1) for name, tensor in weights.items()}
    one = train_round(ours, *site, weights, round_number=1)
    two = train_round(ours, *site, weights, round_number=1, correction=some)
    assert _distance(one.weights, two.weights) > 0


def test_the_loss_of_the_global_weights_is_measured_where_it_is_asked_for(
    study: StudyConfig, site: Opened
) -> None:
    weights = initial_weights(study.network, study.seed)
    fair = study.model_copy(update={"strategy": QFedAvgConfig(name="qfedavg")})
    outcome, plain = _round(fair, site, weights), _round(study, site, weights)
    assert outcome.start_loss is not None
    assert outcome.start_loss > 0
    assert all(torch.equal(outcome.weights[n], plain.weights[n]) for n in weights)


@pytest.mark.parametrize(
    "strategy", [QFedAvgConfig(name="qfedavg"), ScaffoldConfig(name="scaffold")]
)
def test_a_strategy_that_wants_more_than_an_update_gets_nothing_of_a_private_site(
    study: StudyConfig, site: Opened, strategy: QFedAvgConfig | ScaffoldConfig
) -> None:
    private = PrivacyConfig(noise_multiplier=1.0, delta=1e-3)
    config = site[0].model_copy(update={"privacy": private})
    asked = study.model_copy(update={"strategy": strategy})
    with pytest.raises(ConfigError, match=f"strategy {strategy.name}") as caught:
        _round(asked, (config, site[1]), initial_weights(study.network, study.seed))
    assert caught.value.public_code == "ConfigError:strategy-private"
    assert charged_steps(config) == 0


def test_a_site_without_training_pairs_is_told_so(
    study: StudyConfig, site: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PreparedSite, "pairs", lambda _self, _split: [])
    with pytest.raises(TrainingError, match="alpha: no training pairs") as caught:
        _round(study, site, initial_weights(study.network, study.seed))
    assert caught.value.public_code == "TrainingError:no-pairs"


def test_a_loss_that_is_not_finite_names_the_pairs(study: StudyConfig, site: Opened) -> None:
    weights = initial_weights(study.network, study.seed)
    spoilt = {name: torch.full_like(tensor, torch.inf) for name, tensor in weights.items()}
    ids = {pair.pair_id for pair in site[1].pairs("train")}
    with pytest.raises(TrainingError, match="not finite") as caught:
        _round(study, site, spoilt)
    assert any(pair_id in str(caught.value) for pair_id in ids)


def test_weights_of_another_architecture_are_refused(study: StudyConfig, site: Opened) -> None:
    weights = initial_weights(study.network, study.seed)
    first = next(iter(weights))
    with pytest.raises(WireError, match=first):
        _round(study, site, {**weights, first: torch.zeros(1)})


def test_the_learning_rate_warms_up_in_a_round_and_falls_over_the_rounds() -> None:
    training = TrainingConfig(learning_rate=1e-2, warmup_steps=4, final_learning_rate_fraction=0.1)

    def rate(step: int, round_number: int) -> float:
        return learning_rate(training, step=step, round_number=round_number, rounds=5)

    assert [rate(step, 1) for step in range(5)] == pytest.approx([2.5e-3, 5e-3, 7.5e-3, 1e-2, 1e-2])
    peaks = [rate(10, number) for number in range(1, 6)]
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[-1] == pytest.approx(1e-3)


def charged_steps(site: SiteConfig) -> int:
    return sum(entry.steps.steps for entry in ledger_of(site).entries())


def _private(study: StudyConfig, **changes: float) -> StudyConfig:
    values = {"noise_multiplier": 1.0, "clip_norm": 1.0, "delta": 1e-2, **changes}
    return study.model_copy(update={"privacy": PrivacyConfig(**values)})


def test_a_private_round_spends_epsilon_and_keeps_its_loss_to_itself(
    study: StudyConfig, site: Opened
) -> None:
    private = _private(study)
    weights = initial_weights(study.network, study.seed)
    first = _round(private, site, weights)
    second = _round(private, site, first.weights, 2)
    assert [e.state for e in ledger_of(site[0]).entries()] == ["taken", "taken"]
    assert first.mean_loss is None
    assert first.epsilon is not None
    assert second.epsilon is not None
    assert 0 < first.epsilon < second.epsilon
    assert first.delta == 1e-2
    assert charged_steps(site[0]) == 2 * study.training.steps_per_round


def test_what_another_run_spent_is_not_in_a_private_rounds_epsilon(
    study: StudyConfig, site: Opened
) -> None:
    private, weights = _private(study), initial_weights(study.network, study.seed)
    one, other = (
        train_round(private, *site, weights, round_number=1, run_token=token * 16)
        for token in ("ab", "cd")
    )
    assert one.epsilon == other.epsilon
    [before, after] = ledger_of(site[0]).entries()
    assert before.epsilon_after == one.epsilon
    assert after.epsilon_after is not None
    assert other.epsilon is not None
    assert after.epsilon_after > other.epsilon


def test_the_site_can_ask_for_privacy_that_the_study_does_not(
    study: StudyConfig, site: Opened
) -> None:
    own = PrivacyConfig(noise_multiplier=2.0, delta=1e-2)
    config = site[0].model_copy(update={"privacy": own})
    weights = initial_weights(study.network, study.seed)
    outcome = _round(study, (config, site[1]), weights)
    [entry] = ledger_of(config).entries()
    assert outcome.epsilon == entry.epsilon_after == PrivacyHistory((entry.steps,)).epsilon(1e-2)


def test_what_is_spent_is_recorded_before_the_first_step(
    study: StudyConfig, site: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PowerCut(Exception):  # noqa: N818  it stands for one
        pass

    def cut(*_: object) -> None:
        raise PowerCut

    monkeypatch.setattr("nognet.fit.private.PrivateSteps.noised_gradient", cut)
    private = _private(study)
    with pytest.raises(PowerCut):
        _round(private, site, initial_weights(study.network, study.seed))
    assert charged_steps(site[0]) == study.training.steps_per_round


def test_a_round_over_the_budget_is_refused_and_costs_nothing(
    study: StudyConfig, site: Opened
) -> None:
    private = _private(study, max_epsilon=1e-3)
    with pytest.raises(PrivacyBudgetError, match="refused before it trains"):
        _round(private, site, initial_weights(study.network, study.seed))
    assert charged_steps(site[0]) == 0


def test_a_delta_too_large_for_so_few_patients_is_refused(study: StudyConfig, site: Opened) -> None:
    with pytest.raises(PrivacyError, match="must be below"):
        _round(_private(study, delta=0.4), site, initial_weights(study.network, study.seed))


def test_two_private_rounds_never_draw_the_same_noise(study: StudyConfig, site: Opened) -> None:
    weights = initial_weights(study.network, study.seed)
    private = _private(study)
    one, two = (_round(private, site, weights) for _ in range(2))
    assert _distance(one.weights, two.weights) > 0


def _training(study: StudyConfig, **changes: Any) -> StudyConfig:
    training = {**study.training.model_dump(), **changes}
    return study.model_copy(update={"training": TrainingConfig.model_validate(training)})


def test_a_round_gives_the_average_of_its_weights_where_that_is_on(
    study: StudyConfig, site: Opened
) -> None:
    weights = initial_weights(study.network, study.seed)
    one = _training(study, steps_per_round=1)
    plain = _round(one, site, weights).weights
    averaged = _round(_training(one, ema_decay=0.75), site, weights).weights
    for name, start in weights.items():
        torch.testing.assert_close(averaged[name], 0.75 * start + 0.25 * plain[name])


def test_accumulated_batches_take_their_pairs_one_after_the_other(
    study: StudyConfig, site: Opened
) -> None:
    weights = initial_weights(study.network, study.seed)
    plain = _training(study, steps_per_round=1, batch_size=2, augment=False)
    split = _training(plain, batch_size=1, accumulate=2)
    whole, parts = _round(plain, site, weights), _round(split, site, weights)
    assert parts.mean_loss == pytest.approx(whole.mean_loss, abs=1e-6)
    assert parts.steps == 1


def test_a_fault_of_a_step_says_where_it_was(study: StudyConfig, site: Opened) -> None:
    weights = initial_weights(study.network, study.seed)
    spoilt = {name: torch.full_like(tensor, torch.inf) for name, tensor in weights.items()}
    with pytest.raises(TrainingError, match=r"^site alpha, round 3, step 1: the loss") as caught:
        _round(study, site, spoilt, 3)
    assert caught.value.public_code == "TrainingError:loss-not-finite"


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"precision": "fp16"}, "precision-private"), ({"accumulate": 2}, "accumulate-private")],
)
def test_what_privacy_cannot_do_is_refused_and_costs_nothing(
    study: StudyConfig, site: Opened, changes: dict[str, Any], code: str
) -> None:
    private = _private(_training(study, **changes))
    with pytest.raises(ConfigError) as caught:
        _round(private, site, initial_weights(study.network, study.seed))
    assert caught.value.code == code
    assert charged_steps(site[0]) == 0


@pytest.mark.parametrize("private", [False, True])
def test_pairs_of_another_size_than_the_studys_are_refused_by_name(
    study: StudyConfig, site: Opened, private: bool
) -> None:
    larger = study.model_copy(update={"roi": RoiConfig(size_vox=48)})
    with pytest.raises(TrainingError, match=r"^pair .*expected \(48, 48, 48\)") as caught:
        _round(
            _private(larger) if private else larger,
            site,
            initial_weights(study.network, study.seed),
        )
    assert caught.value.code == "roi-shape"


def test_a_precision_the_device_lacks_is_refused(study: StudyConfig, site: Opened) -> None:
    half = _training(study, precision="fp16")
    with pytest.raises(ConfigError, match="fp16 needs CUDA"):
        _round(half, site, initial_weights(study.network, study.seed))


@pytest.mark.parametrize("private", [False, True])
def test_a_pair_without_a_mask_is_refused_unless_the_network_segments(
    study: StudyConfig, site: Opened, monkeypatch: pytest.MonkeyPatch, private: bool
) -> None:
    pairs = site[1].pairs("train")
    bare = dataclasses.replace(pairs[0], baseline_mask=np.zeros_like(pairs[0].baseline_mask))
    monkeypatch.setattr(PreparedSite, "pairs", lambda _self, _split: [bare, *pairs[1:]])
    asked = _private(study) if private else study
    with pytest.raises(TrainingError, match=f"pair {bare.pair_id}: the mask is empty"):
        _round(asked, site, initial_weights(study.network, study.seed))
    assert charged_steps(site[0]) == 0
    network = study.network.model_copy(update={"missing_mask": "predicted"})
    able = asked.model_copy(update={"network": network})
    assert _round(able, site, initial_weights(network, study.seed)).steps == 2


def test_outcomes_are_values() -> None:
    outcome = RoundOutcome({}, 1, 1, 1, 0.5, 1.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        outcome.steps = 2  # type: ignore[misc]  # that it can't be is the point
