"""Noise that the sites make, each its share: the grid, the share's size, and what it is worth.

Kairouz, Liu, Steinke 2021, "The distributed discrete Gaussian mechanism for federated learning with
secure aggregation". Each site k adds ``q_k + y_k`` to a modular sum, whole numbers on one grid:
``q_k`` is its update of length at most L steps, ``y_k`` discrete Gaussian of variance ``v``. Of
the sites in any sum at least K are honest, and theirs alone counts: the sum's noise is that of K
shares, of total standard deviation ``sqrt(K v) = z L``, with z the study's noise multiplier. Shares
of more sites are added to what is already private, which costs nothing.

One release is then ``e^2 / 2``-concentrated differentially private (their proposition 14), with

    e = min(sqrt(L^2 / (K v) + tau d / 2), L / sqrt(K v) + tau sqrt(d))
    tau = 10 sum_(j=1)^(K-1) exp(-2 pi^2 v j / (j + 1))

for d numbers, ``v >= 1/4``: the Renyi divergence at every order is that of a Gaussian of multiplier
``1 / e``, and rounds compose as those do. tau is what a sum of discrete Gaussians lacks to be one;
with shares of 1024 steps and more it is below ``10^-4000000``, and ``1 / e`` is z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from nognet.errors import PrivacyError
from nognet.privacy.accounting import NoisedSteps, PrivacyHistory, concentrated
from nognet.privacy.discrete_gaussian import distance_of, fits_a_table, largest_of

LEAST_STEPS = 1024
"""A share's standard deviation has at least so many steps: rounding is nothing beside it."""
_LEVELS_OF_ROOT = 2
"""And an update at the clip norm at least so many a number, in the mean square, times ``sqrt(d)``:
rounding lengthens it by 1/32 at most, by which it is shortened."""
_MOST_LEVELS = 2**30


@dataclass(frozen=True)
class NoiseShare:
    """One site's share of the noise, and the grid it is made on.

    Attributes:
        clip_norm: C: an update's length in units of the weights.
        levels: L: the same in steps.
        variance: v of a share, in steps squared; exact.
        honest: K: sites whose shares count.
        numbers: d: of an update.
    """

    clip_norm: float
    levels: int
    variance: Fraction
    honest: int
    numbers: int

    @property
    def step(self) -> float:
        """Of the grid, in units of the weights."""
        return self.clip_norm / self.levels

    @property
    def std(self) -> float:
        """Of a share, in units of the weights."""
        return math.sqrt(self.variance) * self.step

    @property
    def largest(self) -> int:
        """No number of a site's noised update is farther from 0, in steps; for certain."""
        return self.levels + largest_of(self.variance)

    @property
    def distance(self) -> float:
        """Total variation of a release to the exact mechanism: of K x d draws."""
        return self.honest * self.numbers * distance_of(self.variance)

    @property
    def tau(self) -> float:
        """How far the sum of K shares is from a discrete Gaussian (see the module)."""
        exponent = -2 * math.pi**2 * float(self.variance)
        return 10 * sum(math.exp(exponent * j / (j + 1)) for j in range(1, self.honest))

    @property
    def concentrated(self) -> float:
        """Give e of one release: ``e^2 / 2``-concentrated differential privacy."""
        squared = float(self.levels**2 / (self.honest * self.variance))
        return min(
            math.sqrt(squared + self.tau * self.numbers / 2),
            math.sqrt(squared) + self.tau * math.sqrt(self.numbers),
        )


def noise_share(
    noise_multiplier: float, *, clip_norm: float, numbers: int, honest: int
) -> NoiseShare:
    """Choose the grid and the share, the same at every site: nothing here is found numerically.

    Raises:
        PrivacyError: fewer than one honest site, or noise that no grid of whole numbers holds.
    """
    if honest < 1:
        raise PrivacyError(
            f"{honest} honest sites would have to make the noise, expected 1 or more; raise "
            "federation.minimum_sites or lower central_privacy.colluding_sites",
            code="noise-shares",
        )
    levels = max(
        math.ceil(LEAST_STEPS * math.sqrt(honest) / noise_multiplier),
        math.ceil(_LEVELS_OF_ROOT * math.sqrt(numbers)),
    )
    variance = (Fraction(noise_multiplier) * levels) ** 2 / honest
    if levels > _MOST_LEVELS or not fits_a_table(variance):
        raise PrivacyError(
            f"central_privacy.noise_multiplier {noise_multiplier:g} shared by {honest} sites over "
            f"{numbers} numbers can't be made of whole numbers (levels {levels}, a share of "
            f"{math.sqrt(variance):.4g} steps; expected at most 2^30 and 74898); take noise "
            "that is nearer to 1, more sites (federation.minimum_sites) or a smaller network",
            code="noise-grid",
        )
    return NoiseShare(clip_norm, levels, variance, honest, numbers)


def shared_noise_for_epsilon(
    target_epsilon: float, *, rounds: int, delta: float, numbers: int, honest: int
) -> float:
    """Find the least noise multiplier, to 3 decimals, by which a run stays within epsilon.

    Raises:
        PrivacyError: the noise that would be enough can't be made in shares.
    """

    def is_enough(thousandths: int) -> bool:
        noise = thousandths / 1000
        share = noise_share(noise, clip_norm=1.0, numbers=numbers, honest=honest)
        history = PrivacyHistory((NoisedSteps(noise, 1.0, rounds),))
        try:
            return concentrated(history, delta, distance=share.distance).epsilon <= target_epsilon
        except PrivacyError:  # so little noise that no epsilon is finite
            return False

    enough = 64
    while not is_enough(enough):
        enough *= 2
    too_little = 0
    while enough - too_little > 1:
        between = (enough + too_little) // 2
        too_little, enough = (too_little, between) if is_enough(between) else (between, enough)
    return enough / 1000
