"""Which privacy settings hold at a site, and whether a round or a run may still be spent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from nognet.config import Admission, PairsOfPatient, PrivacyConfig
from nognet.errors import PrivacyBudgetError, PrivacyError
from nognet.privacy.accounting import NoisedSteps, PrivacyHistory

ValueT = TypeVar("ValueT", str, float)
TARGET_TOLERANCE = 1 + 1e-6
"""For last digits alone: noise is rounded up, so that all rounds together stay below the target."""


@dataclass(frozen=True)
class PrivacySettings:
    """What holds at a site: study's and site's settings combined.

    Attributes:
        clip_norm: L2 norm to which each patient's gradient is clipped.
        delta: Failure probability.
        noise_floor: Noise multiplier that steps have at least; None where only a target is given.
        target_epsilon: Epsilon that one whole run may cost at most; None where only noise is given.
        max_epsilon: What a patient may be charged in all; None for no limit.
        admit: Whether the whole run has to fit into `max_epsilon`, or each round alone.
        pairs_of_patient: Whether a drawn patient gives one pair or all of them, averaged.
    """

    clip_norm: float
    delta: float
    noise_floor: float | None = None
    target_epsilon: float | None = None
    max_epsilon: float | None = None
    admit: Admission = "run"
    pairs_of_patient: PairsOfPatient = "one"

    @property
    def noise_words(self) -> str:
        """Say where the noise comes from, as the configuration has it."""
        given = {"noise_multiplier": self.noise_floor, "target_epsilon": self.target_epsilon}
        return ", ".join(f"{name} {value:g}" for name, value in given.items() if value is not None)


@dataclass(frozen=True)
class BudgetForecast:
    """What planned steps cost, known before they are taken: it depends on no image.

    Attributes:
        epsilon_before: Charged so far to the patient with the most.
        epsilon_after: The same once the steps are taken.
        delta: The delta of both.
        max_epsilon: The limit, if there is one.
    """

    epsilon_before: float
    epsilon_after: float
    delta: float
    max_epsilon: float | None

    @property
    def is_over(self) -> bool:
        """Whether the steps would pass the limit."""
        return self.max_epsilon is not None and self.epsilon_after > self.max_epsilon


def unlimited_words(settings: PrivacySettings | None) -> str | None:
    """Say that a target bounds one run alone, where no limit stands beside it."""
    if settings is None or settings.target_epsilon is None or settings.max_epsilon is not None:
        return None
    return (
        f"target_epsilon {settings.target_epsilon:g} bounds one run; every new run adds to what "
        "was spent, and nothing bounds them all: set privacy.max_epsilon in site.yaml"
    )


def stricter(study: PrivacyConfig | None, site: PrivacyConfig | None) -> PrivacySettings | None:
    """Combine study's and site's settings, value by value the stricter one.

    The larger noise, the smaller target, clip norm, delta and limit. Where one gives noise and the
    other a target, both hold: `noise_for_run` takes the larger noise. None, when neither asks for
    privacy.
    """
    given = [config for config in (study, site) if config is not None]
    if not given:
        return None
    return PrivacySettings(
        clip_norm=min(config.clip_norm for config in given),
        delta=min(config.delta for config in given),
        noise_floor=_strictest(max, [config.noise_multiplier for config in given]),
        target_epsilon=_strictest(min, [config.target_epsilon for config in given]),
        max_epsilon=_strictest(min, [config.max_epsilon for config in given]),
        admit="round" if {c.admit for c in given} - {None} == {"round"} else "run",
        pairs_of_patient="all"
        if {c.pairs_of_patient for c in given} - {None} == {"all"}
        else "one",
    )


def check_delta(delta: float, n_patients: int) -> None:
    """Refuse a delta that would let a mechanism publish some patient outright.

    Raises:
        PrivacyError: delta >= 1 / (2 n_patients), or there are no patients.
    """
    if n_patients < 1:
        raise PrivacyError("no patients to protect; expected at least 1", code="no-patients")
    limit = 1 / (2 * n_patients)
    if delta >= limit:
        raise PrivacyError(
            f"privacy.delta is {delta:g}, but for {n_patients} patients it must be below "
            f"1 / (2 x {n_patients}) = {limit:.3g}; lower privacy.delta in study.yaml or site.yaml",
            code="delta-too-large",
        )


def noise_for_run(settings: PrivacySettings, *, rate: float, steps: int) -> float:
    """Give the noise multiplier of a run: the noise given, the noise for the target, or the larger.

    Args:
        settings: What holds at the site.
        rate: Probability that a patient takes part in a step.
        steps: Steps of the whole run, all rounds.

    Raises:
        PrivacyError: the target can't be met, or neither noise nor target is given.
    """
    from nognet.privacy.calibration import noise_for_epsilon  # late: a site may give the noise

    found = [] if settings.noise_floor is None else [settings.noise_floor]
    if settings.target_epsilon is not None:
        found.append(
            noise_for_epsilon(settings.target_epsilon, rate=rate, steps=steps, delta=settings.delta)
        )
    if not found:
        raise PrivacyError("neither noise nor a target epsilon is given", code="no-noise")
    return max(found)


def forecast(
    settings: PrivacySettings, histories: Sequence[PrivacyHistory], planned: NoisedSteps
) -> BudgetForecast:
    """Compute what planned steps would cost the worst of several patients; refuses nothing.

    Args:
        settings: Delta, limit, least noise.
        histories: What the patients have behind them, each distinct history once.
        planned: Steps in which all of them may take part.

    Raises:
        PrivacyError: the steps carry less noise than the settings ask for.
    """
    if settings.noise_floor is not None and planned.noise_multiplier < settings.noise_floor:
        raise PrivacyError(
            f"planned steps have noise_multiplier {planned.noise_multiplier:g}, the settings ask "
            f"for at least {settings.noise_floor:g}",
            code="too-little-noise",
        )
    behind = histories or (PrivacyHistory(),)
    return BudgetForecast(
        epsilon_before=max(history.epsilon(settings.delta) for history in behind),
        epsilon_after=max(history.then(planned).epsilon(settings.delta) for history in behind),
        delta=settings.delta,
        max_epsilon=settings.max_epsilon,
    )


def admit_round(
    settings: PrivacySettings, histories: Sequence[PrivacyHistory], planned: NoisedSteps
) -> BudgetForecast:
    """Decide, before it trains, whether a round may be spent; give its cost.

    Raises:
        PrivacyBudgetError: the worst patient's epsilon after the round would pass `max_epsilon`.
    """
    cost = forecast(settings, histories, planned)
    if cost.is_over:
        raise PrivacyBudgetError(
            f"the round is refused before it trains: {_found(cost, planned)}; use more noise or "
            "fewer steps, or let the site's data-protection officer raise privacy.max_epsilon"
        )
    return cost


def admit_run(
    settings: PrivacySettings, histories: Sequence[PrivacyHistory], planned: NoisedSteps
) -> BudgetForecast:
    """Decide, before it starts, whether all that is left of a run may be spent; give its cost.

    Where `settings.admit` is `round`, nothing is refused here: each round is, by `admit_round`.

    Raises:
        PrivacyBudgetError: the worst patient's epsilon after the run would pass `max_epsilon`.
    """
    cost = forecast(settings, histories, planned)
    if cost.is_over and settings.admit == "run":
        raise PrivacyBudgetError(
            f"the run is refused before it starts: {_found(cost, planned)}; ask for a study with "
            "more noise or fewer rounds, let the site's data-protection officer raise "
            "privacy.max_epsilon, or set privacy.admit: round to take part as long as it lasts",
            code="budget-run",
        )
    return cost


def admit_to_target(settings: PrivacySettings, run: PrivacyHistory, planned: NoisedSteps) -> float:
    """Decide, before it trains, whether a round stays within the run's target; give its epsilon.

    The noise was found for each round once. Rounds that are trained again, for a crash or because
    they were asked for again, spend what later ones would have.

    Args:
        settings: What holds at the site.
        run: All that was charged to the run, whomever for.
        planned: The round's steps.

    Returns:
        Epsilon of the run with them, whether there is a target or not.

    Raises:
        PrivacyBudgetError: it would pass `target_epsilon` (``budget-target``).
    """
    epsilon = run.then(planned).epsilon(settings.delta)
    target = settings.target_epsilon
    if target is not None and epsilon > target * TARGET_TOLERANCE:
        raise PrivacyBudgetError(
            f"the round is refused before it trains: with it the run would have spent epsilon "
            f"{epsilon:.3f}, over its target_epsilon of {target:g} (delta {settings.delta:g}): "
            "rounds of it were trained more than once, or on a changed number of patients. This "
            "site's part in the run ends here; the others go on. Begin a new run, which adds to "
            "what was spent, or agree on a study with a larger target",
            code="budget-target",
        )
    return epsilon


def _found(cost: BudgetForecast, planned: NoisedSteps) -> str:
    return (
        f"epsilon of the patient charged most is {cost.epsilon_before:.3f} now and would be "
        f"{cost.epsilon_after:.3f} after its {planned.steps} steps (noise "
        f"{planned.noise_multiplier:g}, rate {planned.sample_rate:.4g}), over the limit of "
        f"{cost.max_epsilon:g} (delta {cost.delta:g})"
    )


def _strictest(
    choose: Callable[[list[ValueT]], ValueT], values: Sequence[ValueT | None]
) -> ValueT | None:
    """Choose among the values that are given; None where none is."""
    given = [value for value in values if value is not None]
    return choose(given) if given else None
