"""The scan before a baseline for one prediction: aligned, cut and judged as preparation does it.

Where preparation goes on without a prior scan that can't be used, a prediction refuses it: whoever
names one wants it used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from nognet.config import PreparationConfig, RoiConfig
from nognet.data.findings import Finding
from nognet.data.pairs.cut import Cut, NoduleAt, PairName, cut_pair
from nognet.data.pairs.gate import MAX_DAYS_OFF, advice_for, judge_pair
from nognet.data.pairs.prior import DOUBTS, KEPT
from nognet.data.pairs.register import CtWithNodule, register
from nognet.errors import ConfigError, SiteDataError
from nognet.fit.baseline import ReadNodule
from nognet.fit.model_file import SavedModel
from nognet.types import PriorScan

LONGEST_PRIOR_DAYS = 20 * 365.25


@dataclass(frozen=True)
class CutPrior:
    """A prior scan on the baseline's ROI.

    Attributes:
        scan: What the network reads.
        quality: `ncc` and `nodule_displacement_mm` of its registration.
        findings: Warnings; refusals are raised.
    """

    scan: PriorScan
    quality: Mapping[str, float]
    findings: tuple[Finding, ...]


def check_prior(model: SavedModel, days_before: float) -> None:
    """Refuse a prior scan before any file of it is read.

    Raises:
        ConfigError: the model takes none, or the days before make no sense.
    """
    if not 0 < days_before <= LONGEST_PRIOR_DAYS:  # NaN compares false and is refused too
        raise ConfigError(
            f"prior scan {days_before:g} days before the baseline: expected more than 0 and at "
            f"most {LONGEST_PRIOR_DAYS:g} (20 years); count from the prior CT to the baseline CT",
            code="prior-days",
        )
    if not model.network.prior_scan:
        raise ConfigError(
            "the model takes no prior scan (its network.prior_scan is false); leave the options "
            "--prior-... out, or use a model trained with network.prior_scan: true",
            code="prior-not-taken",
        )


def cut_prior(
    baseline: ReadNodule,
    earlier: ReadNodule,
    days_before: float,
    roi: RoiConfig,
    limits: PreparationConfig | None = None,
) -> CutPrior:
    """Lay an earlier scan of a nodule on the ROI of its baseline.

    Args:
        baseline: The nodule at the time at hand.
        earlier: The same nodule before.
        days_before: From the earlier CT to the baseline's, > 0.
        roi: Size and HU window of the model.
        limits: Those of preparation; by default its defaults.

    Raises:
        SiteDataError: the two CTs can't be aligned, are the same, or the earlier nodule is another
            one or reaches beyond the ROI; the code is preparation's.
    """
    limits = limits or PreparationConfig(max_interval_days=LONGEST_PRIOR_DAYS)
    if np.array_equal(baseline.ct.volume.array, earlier.ct.volume.array):
        raise _unusable(Finding("duplicate-study", "refused", "it is the same CT as the baseline"))
    sides = baseline.ct, earlier.ct
    registration = register(
        CtWithNodule(baseline.ct.volume, baseline.nodule),
        CtWithNodule(earlier.ct.volume, earlier.nodule),
        limits.registration,
    )
    name = PairName("prior", "", days_before)
    nodules = NoduleAt(sides[0], baseline.nodule), NoduleAt(sides[1], earlier.nodule)
    cut = cut_pair(name, nodules, registration, roi)
    judged = (*judge_pair(cut.facts, limits), *cut.findings)
    for finding in judged:
        if finding.severity == "refused":
            raise _unusable(finding)
    scan = PriorScan(cut.pair.follow_up, cut.pair.follow_up_mask, days_before)
    quality = {name: cut.quality[name] for name in KEPT if name in cut.quality}
    doubts = (finding for finding in judged if finding.code in DOUBTS)
    return CutPrior(scan, quality, (*earlier.findings, *doubts, *_dates(cut, days_before)))


def _dates(cut: Cut, days_before: float) -> Iterator[Finding]:
    """Hold the days that were given against the headers; equal dates there say nothing."""
    days = -(cut.facts.header_days or 0)
    if days and abs(days - days_before) > MAX_DAYS_OFF:
        message = (
            f"the prior scan is given as {days_before:g} days before the baseline, by the headers "
            f"of the CTs it is {days}"
        )
        yield Finding("dates-differ", "warning", message)


def _unusable(finding: Finding) -> SiteDataError:
    return SiteDataError(
        f"prior scan: {finding.message}; {advice_for(finding.code)}, or leave it out",
        code=finding.code,
    )
