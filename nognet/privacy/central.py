"""Central differential privacy of one study: its numbers, and what they cost.

In a round each site k adds at most ``a_k C`` to the sum of updates, with ``C`` the clip norm and
``a_k <= W`` its bounded weight. So one site, there or absent, changes the sum by at most ``W C``
(the sensitivity), and the noise is ``z W C`` a number. The sum is divided by a *fixed* ``N W``, N
the study's `expected_sites`: by who answered, it would change with one site's absence.

A round is one Gaussian mechanism, rounds compose, and nobody is drawn by lot (sample rate 1):
epsilon of R rounds is that of one mechanism with noise ``z / sqrt(R)`` (Balle and Wang 2018).

With adaptive clipping (Andrew et al. 2021, section 3.1) a round releases a second sum, of
``b_k - 1/2`` with b_k = 1 where a site's update is within C, of sensitivity 1/2. A share s of the
budget is the count's: noise of ``z / (2 sqrt(s))`` on it and a multiplier of ``z / sqrt(1 - s)`` on
the updates are together one mechanism of multiplier z.

Where updates are summed securely the sites make the noise, each its share (`distributed`), and no
one sees a sum without: the same multiplier, charged by RDP alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from nognet.config import AdaptiveClipping, CentralPrivacyConfig
from nognet.errors import PrivacyBudgetError, PrivacyError
from nognet.privacy.accounting import (
    Accounts,
    NoisedSteps,
    PrivacyHistory,
    account,
    concentrated,
)
from nognet.privacy.calibration import noise_for_epsilon
from nognet.privacy.distributed import NoiseShare


@dataclass(frozen=True)
class CentralPlan:
    """What central privacy comes to in a study, before anybody is asked.

    Attributes:
        noise_multiplier: z, of all that a round releases.
        clip_norm: C of the first round.
        sites: N, fixed.
        max_weight: W, the most that a site counts by.
        rounds: R, planned.
        delta: Failure probability.
        max_epsilon: What may not be passed; None without a limit.
        adaptive: How the clip norm moves; None where it doesn't.
        share: Each site's noise; None where the coordinator makes it.
    """

    noise_multiplier: float
    clip_norm: float
    sites: int
    max_weight: int
    rounds: int
    delta: float
    max_epsilon: float | None = None
    adaptive: AdaptiveClipping | None = None
    share: NoiseShare | None = None

    @property
    def noise_from(self) -> Literal["coordinator", "sites"]:
        """Who makes the noise."""
        return "coordinator" if self.share is None else "sites"

    @property
    def total_weight(self) -> int:
        """What a sum is divided by: ``N W``, whoever answered."""
        return self.sites * self.max_weight

    @property
    def sum_multiplier(self) -> float:
        """The noise multiplier of the summed updates.

        >>> CentralPlan(1.0, 1.0, 3, 1, 10, 1e-3).sum_multiplier
        1.0
        """
        share = self.adaptive.count_share if self.adaptive else 0.0
        return self.noise_multiplier / math.sqrt(1.0 - share)

    @property
    def count_std(self) -> float:
        """The noise on the count of updates within the clip norm; 0 where none is made."""
        if self.adaptive is None:
            return 0.0
        return self.noise_multiplier / (2.0 * math.sqrt(self.adaptive.count_share))

    def sum_std(self, clip_norm: float) -> float:
        """Standard deviation of the noise on each number of the sum, at a clip norm."""
        return self.sum_multiplier * self.max_weight * clip_norm

    def noise_ratio(self, length: int) -> float:
        """Expected length of a round's noise over the longest mean update, at `length` numbers.

        >>> CentralPlan(1.0, 0.5, 5, 1, 10, 1e-3).noise_ratio(10_000)
        20.0
        """
        return self.sum_multiplier * math.sqrt(length) / self.sites

    def accounts(self, history: PrivacyHistory) -> Accounts:
        """Compute what a history of releases cost."""
        if self.share is None:
            return account(history, self.delta)
        return concentrated(history, self.delta, distance=self.share.distance)

    def after_round(self, history: PrivacyHistory) -> PrivacyHistory:
        """Add the charge of one more round."""
        return history.then(NoisedSteps(self.noise_multiplier, 1.0, 1))

    def whole_run(self) -> PrivacyHistory:
        """Give the charge of all rounds planned."""
        return PrivacyHistory((NoisedSteps(self.noise_multiplier, 1.0, self.rounds),))

    def has_room(self, history: PrivacyHistory) -> bool:
        """Whether one more round stays within `max_epsilon`."""
        if self.max_epsilon is None:
            return True
        return self.accounts(self.after_round(history)).epsilon <= self.max_epsilon

    def check_affordable(self) -> None:
        """Refuse a study whose rounds together would pass the limit.

        Raises:
            PrivacyBudgetError: they would; says by how much.
        """
        planned = self.accounts(self.whole_run()).epsilon
        if self.max_epsilon is not None and planned > self.max_epsilon:
            raise PrivacyBudgetError(
                f"central_privacy: {self.rounds} rounds with noise_multiplier "
                f"{self.noise_multiplier:g} cost epsilon {planned:.3f} at delta {self.delta:g}, "
                f"expected at most max_epsilon {self.max_epsilon:g}; use more noise or fewer "
                "rounds, or raise central_privacy.max_epsilon"
            )


def central_plan(
    privacy: CentralPrivacyConfig, *, sites: int, rounds: int, share: NoiseShare | None = None
) -> CentralPlan:
    """Work out a study's central privacy.

    Args:
        privacy: Of the study.
        sites: `federation.expected_sites`.
        rounds: Of the study.
        share: Of each site, where the sites make the noise.

    Raises:
        PrivacyError: no noise is enough for the target.
    """
    noise = privacy.noise_multiplier
    if noise is None:
        noise = site_noise_for_epsilon(
            privacy.target_epsilon or 0.0, rounds=rounds, delta=privacy.delta
        )
    return CentralPlan(
        noise_multiplier=noise,
        clip_norm=privacy.clip_norm,
        sites=sites,
        max_weight=privacy.max_weight,
        rounds=rounds,
        delta=privacy.delta,
        max_epsilon=privacy.max_epsilon,
        adaptive=privacy.clipping if isinstance(privacy.clipping, AdaptiveClipping) else None,
        share=share,
    )


def site_noise_for_epsilon(target_epsilon: float, *, rounds: int, delta: float) -> float:
    """Find the least noise multiplier, to 3 decimals, by which a run stays within epsilon.

    Raises:
        PrivacyError: not even a multiplier of 1000 is enough.
    """
    try:
        return noise_for_epsilon(target_epsilon, rate=1.0, steps=rounds, delta=delta)
    except PrivacyError as err:
        raise PrivacyError(
            f"central_privacy: epsilon {target_epsilon:g} at delta {delta:g} can't be met in "
            f"{rounds} rounds; take fewer rounds, or a larger epsilon",
            code=err.code,
        ) from err


def promise_in_words(plan: CentralPlan) -> str:
    """Say what the plan promises a site."""
    epsilon = plan.accounts(plan.whole_run()).epsilon
    return (
        f"central privacy: epsilon {epsilon:.3g} at delta {plan.delta:g} for any one site after "
        f"{plan.rounds} rounds (noise multiplier {plan.noise_multiplier:g})"
    )


def cost_in_words(plan: CentralPlan, length: int) -> tuple[str, ...]:
    """Say what the plan promises a site, and what it does to the model.

    Args:
        plan: Of the study.
        length: Numbers that are shared.
    """
    ratio, promise = plan.noise_ratio(length), promise_in_words(plan)
    price = (
        f"with {plan.sites} sites the noise of a round is {_times(ratio)} as long as the mean "
        f"update can be ({length} numbers)"
    )
    if plan.share is not None:
        more = math.sqrt(plan.sites / plan.share.honest)
        price += (
            f"; the sites make it in shares for {plan.share.honest}: with all {plan.sites} it is "
            f"{more:.2g} times that"
        )
    if ratio < 1:
        return promise, price
    advice = (
        f"the model will hardly learn: noise and update would be as long with "
        f"{math.ceil(plan.sum_multiplier * math.sqrt(length))} sites. Use more sites, less noise, "
        "fewer numbers (network.width, personalisation.local), or patient-level privacy instead, "
        "whose noise a site's many patients share"
    )
    return promise, price, advice


def _times(ratio: float) -> str:
    """Write a ratio as a factor.

    >>> _times(130.04), _times(0.25)
    ('130 times', '0.25 times')
    """
    return f"{ratio:.0f} times" if ratio >= 10 else f"{ratio:.2g} times"
