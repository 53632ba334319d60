"""What noised steps cost: a history of (noise, rate, steps) and its epsilon at a delta.

Two accountants of Opacus, each an upper bound. **PRV** (Gopi et al. 2021) composes the privacy
loss numerically and is tight: within 0.02 of dp-accounting's PLD. **RDP** (Mironov 2019, conversion
of Balle et al. 2020) is analytic, looser, and the check. `epsilon` gives PRV's *upper* end, its
numerical error of 0.01 included. Where PRV contradicts RDP (lies above it), the larger holds; where
PRV can't be computed, RDP holds: never the more flattering figure of two that disagree.

`concentrated` is for mechanisms of which the Renyi divergence alone is known, that of a Gaussian at
every order, and whose draws are exact to a distance: RDP alone.

Neighbours are data sets that differ by one patient added or removed; the number of patients,
which sets the rate, counts as public.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nognet.errors import PrivacyError

PRV_ERROR = 0.01
"""Numerical error of epsilon that PRV is asked for, and which its upper bound includes."""
PRV_LIMIT = 100.0
"""Above this epsilon (no privacy to speak of) PRV's exponentials overflow; RDP is used."""
_EXP_LIMIT = 700.0  # beyond it a float overflows; no distance is so small
_WHOLE_ORDERS = (*map(float, range(2, 65)), 80.0, 96.0, 128.0, 192.0, 256.0, 384.0, 512.0)
_RDP_ORDERS = tuple(sorted({*(1 + tenth / 10 for tenth in range(1, 100)), *_WHOLE_ORDERS}))


@dataclass(frozen=True, order=True)
class NoisedSteps:
    """A number of DP-SGD steps alike: Poisson-subsampled Gaussian mechanisms.

    Attributes:
        noise_multiplier: Standard deviation of the noise over the clip norm, > 0.
        sample_rate: Probability that a patient takes part in a step, in (0, 1].
        steps: How many steps were taken, empty batches included, >= 1.

    Raises:
        PrivacyError: a value is outside its range.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int

    def __post_init__(self) -> None:
        if not (
            0 < self.noise_multiplier < math.inf
            and 0 < self.sample_rate <= 1
            and type(self.steps) is int  # not bool, which JSON may hold
            and self.steps >= 1
        ):
            raise PrivacyError(
                f"steps that can't be accounted for: {self}; expected noise_multiplier > 0, "
                "sample_rate in (0, 1], steps >= 1",
                code="bad-history",
            )


@dataclass(frozen=True)
class PrivacyHistory:
    """All noised steps on one data set, over rounds, restarts and studies; the order is kept."""

    entries: tuple[NoisedSteps, ...] = ()

    @property
    def steps(self) -> int:
        """How many steps were taken in all."""
        return sum(entry.steps for entry in self.entries)

    @property
    def grouped(self) -> tuple[NoisedSteps, ...]:
        """Sum the steps of alike entries, sorted: composition doesn't depend on the order."""
        steps: dict[tuple[float, float], int] = {}
        for entry in self.entries:
            key = (entry.noise_multiplier, entry.sample_rate)
            steps[key] = steps.get(key, 0) + entry.steps
        return tuple(sorted(NoisedSteps(noise, rate, n) for (noise, rate), n in steps.items()))

    def then(self, taken: NoisedSteps) -> PrivacyHistory:
        """Append steps; alike ones one after the other become one entry.

        >>> PrivacyHistory().then(NoisedSteps(1.0, 0.1, 5)).then(NoisedSteps(1.0, 0.1, 7)).entries
        (NoisedSteps(noise_multiplier=1.0, sample_rate=0.1, steps=12),)
        """
        if self.entries and _is_alike(self.entries[-1], taken):
            last = self.entries[-1]
            longer = NoisedSteps(last.noise_multiplier, last.sample_rate, last.steps + taken.steps)
            return PrivacyHistory((*self.entries[:-1], longer))
        return PrivacyHistory((*self.entries, taken))

    def merge(self, other: PrivacyHistory) -> PrivacyHistory:
        """Append another history of the same patients: its costs add to these."""
        return functools.reduce(PrivacyHistory.then, other.entries, self)

    def epsilon(self, delta: float) -> float:
        """Give epsilon at `delta` (see the module); 0 when nothing was spent.

        Raises:
            PrivacyError: delta is not in (0, 1), or no finite bound can be given.
        """
        return account(self, delta).epsilon


@dataclass(frozen=True)
class Accounts:
    """Epsilon by each accountant, and the one that holds.

    Attributes:
        epsilon: What is charged.
        prv: Upper bound by PRV; None where it can't be computed.
        rdp: Upper bound by RDP.
        delta: The delta of all three.
    """

    epsilon: float
    prv: float | None
    rdp: float
    delta: float


def account(history: PrivacyHistory, delta: float) -> Accounts:
    """Compute epsilon of a history by both accountants.

    Raises:
        PrivacyError: delta is not in (0, 1), or no finite bound can be given.
    """
    _check_delta(delta)
    if not history.entries:
        return Accounts(epsilon=0.0, prv=0.0, rdp=0.0, delta=delta)
    return _account(history.grouped, delta)


def concentrated(history: PrivacyHistory, delta: float, *, distance: float) -> Accounts:
    """Compute epsilon of releases that are as a Gaussian's at every Renyi order, and nearly drawn.

    Where both of two neighbours' outputs are within total variation t of exact ones that are
    (epsilon, delta')-close, they are (epsilon, ``delta' + (1 + e^epsilon) t``)-close. So delta' is
    what t leaves of delta.

    Args:
        history: Releases.
        delta: In all.
        distance: Total variation of one release to the exact mechanism.

    Raises:
        PrivacyError: delta is not in (0, 1), or the distance leaves less than half of it.
    """
    _check_delta(delta)
    if not history.entries:
        return Accounts(epsilon=0.0, prv=None, rdp=0.0, delta=delta)
    looser = _epsilon_rdp(history.grouped, delta / 2)
    spent = (1 + math.exp(min(looser, _EXP_LIMIT))) * history.steps * distance
    if not spent <= delta / 2:
        raise PrivacyError(
            f"epsilon is about {looser:.3g}, so large that the noise's exactness ({distance:.2g} a "
            f"release) leaves nothing of delta {delta:g}; use more noise or fewer rounds",
            code="no-epsilon",
        )
    epsilon = _epsilon_rdp(history.grouped, math.nextafter(delta - spent, 0.0))
    return Accounts(epsilon=epsilon, prv=None, rdp=epsilon, delta=delta)


def quick_bound(history: PrivacyHistory, delta: float) -> float:
    """Bound epsilon by RDP at whole orders alone: looser than what is charged, and at once.

    Raises:
        PrivacyError: delta is not in (0, 1).
    """
    _check_delta(delta)
    return _epsilon_rdp(history.grouped, delta, _WHOLE_ORDERS) if history.entries else 0.0


@functools.lru_cache(maxsize=256)
def _account(entries: tuple[NoisedSteps, ...], delta: float) -> Accounts:
    rdp = _epsilon_rdp(entries, delta)
    prv = _epsilon_prv(entries, delta) if rdp < PRV_LIMIT else None
    if not math.isfinite(rdp) and prv is None:
        raise PrivacyError(
            f"no finite epsilon at delta {delta} for {entries}; use more noise", code="no-epsilon"
        )
    return Accounts(epsilon=rdp if prv is None else prv, prv=prv, rdp=rdp, delta=delta)


def _epsilon_rdp(
    entries: Iterable[NoisedSteps], delta: float, orders: Sequence[float] = _RDP_ORDERS
) -> float:
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = [(e.noise_multiplier, e.sample_rate, e.steps) for e in entries]
    with warnings.catch_warnings():
        # A bound at the first or last order is still a bound, only a looser one.
        warnings.filterwarnings("ignore", message="Optimal order is")
        epsilon = accountant.get_epsilon(delta, alphas=list(orders))
    return max(0.0, float(epsilon))


def _epsilon_prv(entries: Iterable[NoisedSteps], delta: float) -> float | None:
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = [(e.noise_multiplier, e.sample_rate, e.steps) for e in entries]
    with warnings.catch_warnings(), np.errstate(divide="ignore"):
        # At rate 1 the loss is bounded from below by log(1 - q) = -inf, which is right.
        warnings.filterwarnings("ignore", message="Optimal order is")
        try:
            epsilon = float(accountant.get_epsilon(delta, eps_error=PRV_ERROR))
        except (RuntimeError, ValueError):  # Opacus: the discretisation is not fine enough
            return None
    return max(0.0, epsilon) if math.isfinite(epsilon) else None


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise PrivacyError(f"delta is {delta}, expected a number in (0, 1)", code="bad-delta")


def _is_alike(one: NoisedSteps, other: NoisedSteps) -> bool:
    return (one.noise_multiplier, one.sample_rate) == (other.noise_multiplier, other.sample_rate)
