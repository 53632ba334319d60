"""Which privacy settings hold at a site, and whether a round may still be spent."""

from __future__ import annotations

from dataclasses import dataclass

from nognet.config import PrivacyConfig
from nognet.errors import PrivacyBudgetError, PrivacyError
from nognet.privacy.accounting import NoisedSteps, PrivacyHistory


@dataclass(frozen=True)
class BudgetForecast:
    """What a round costs, known before it trains: it depends on no data.

    Attributes:
        epsilon_before: Spent by the history so far.
        epsilon_after: Spent once the round is done.
        delta: The delta of both.
        max_epsilon: The limit, if there is one.
        history: The history once the round is done.
    """

    epsilon_before: float
    epsilon_after: float
    delta: float
    max_epsilon: float | None
    history: PrivacyHistory


def stricter(study: PrivacyConfig | None, site: PrivacyConfig | None) -> PrivacyConfig | None:
    """Combine study's and site's settings, value by value the stricter one.

    The larger noise, the smaller clip norm, the smaller delta, the smaller limit. None, when
    neither asks for privacy.
    """
    if study is None or site is None:
        return study or site
    limits = [p.max_epsilon for p in (study, site) if p.max_epsilon is not None]
    return PrivacyConfig(
        noise_multiplier=max(study.noise_multiplier, site.noise_multiplier),
        clip_norm=min(study.clip_norm, site.clip_norm),
        delta=min(study.delta, site.delta),
        max_epsilon=min(limits, default=None),
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


def forecast(
    privacy: PrivacyConfig, history: PrivacyHistory, planned: NoisedSteps
) -> BudgetForecast:
    """Compute what planned steps would cost on top of a history; refuses nothing.

    Raises:
        PrivacyError: the steps carry less noise than the settings ask for.
    """
    if planned.noise_multiplier < privacy.noise_multiplier:
        raise PrivacyError(
            f"planned steps have noise_multiplier {planned.noise_multiplier:g}, the settings ask "
            f"for at least {privacy.noise_multiplier:g}",
            code="too-little-noise",
        )
    after = history.then(planned)
    return BudgetForecast(
        epsilon_before=history.epsilon(privacy.delta),
        epsilon_after=after.epsilon(privacy.delta),
        delta=privacy.delta,
        max_epsilon=privacy.max_epsilon,
        history=after,
    )


def admit_round(
    privacy: PrivacyConfig, history: PrivacyHistory, planned: NoisedSteps, *, n_patients: int
) -> BudgetForecast:
    """Decide, before it trains, whether a round may be spent; give its cost.

    Raises:
        PrivacyError: delta is too large for so many patients.
        PrivacyBudgetError: epsilon after the round would pass `max_epsilon`.
    """
    check_delta(privacy.delta, n_patients)
    cost = forecast(privacy, history, planned)
    if cost.max_epsilon is not None and cost.epsilon_after > cost.max_epsilon:
        raise PrivacyBudgetError(
            f"the round is refused before it trains: epsilon is {cost.epsilon_before:.3f} now and "
            f"would be {cost.epsilon_after:.3f} after its {planned.steps} steps, over the limit "
            f"of {cost.max_epsilon:g} (delta {cost.delta:g}); use more noise or fewer steps, or "
            "let the site's data-protection officer raise privacy.max_epsilon"
        )
    return cost
