"""A run's metrics as a real run would write them, and nodules to draw."""

from __future__ import annotations

import functools

import numpy as np

from nognet.config import StudyConfig
from nognet.metrics.statistics import PairRow, SiteStatistics, merge_all
from nognet.report.cases import Case
from nognet.report.metrics_file import append_round, end_run, set_final, start_metrics
from nognet.report.metrics_schema import (
    FinalEntry,
    RoundEntry,
    RunMetrics,
    Selection,
    SiteEntry,
    SiteRound,
    SplitCounts,
    TestEntry,
    TrainFigures,
)
from nognet.types import STRATA, Stratum

SITES = ("alpha", "beta", "gamma")
_MIX = (0.4, 0.5, 0.1)
_COPY_DSC: dict[Stratum, float] = {"growing": 0.62, "stable": 0.86, "shrinking": 0.70}


@functools.cache
def site_statistics(
    *, n_patients: int = 12, seed: int = 0, gain: float = 0.08, decibels: float = 0.6
) -> SiteStatistics:
    """Make the statistics of a site whose model beats copy by `gain` in DSC of growing nodules."""
    draws = np.random.default_rng(seed)
    rows = []
    for index in range(n_patients * 2):
        stratum = STRATA[int(draws.choice(3, p=_MIX))]
        base, noise = _COPY_DSC[stratum], float(draws.normal(0, 0.03))
        better = gain if stratum == "growing" else gain / 6
        for predictor, shift in (("federated", better), ("copy", 0.0), ("isotropic", gain / 3)):
            dsc = float(np.clip(base + noise + shift, 0, 1))
            decibel = 28 + 8 * noise + (decibels if predictor == "federated" else 0.0)
            values = {
                "psnr": decibel,
                "psnr_nodule": decibel + 14,
                "ssim": 0.76 + noise + shift / 8,
                "ssim_nodule": 0.58 + noise + shift / 4,
                "dsc": dsc,
                "volume_error": 1.1 - dsc,
                "log_volume_error": 1.05 - dsc,
            }
            growth = 1.0 if predictor == "copy" else float(draws.normal(1 + shift * 4, 0.2))
            rows.append(PairRow(predictor, f"p{index // 2}", stratum, values, growth))
    return SiteStatistics.from_pairs(rows)


@functools.cache
def build_round(
    number: int, *, sites: tuple[str, ...] = SITES, epsilon: bool = False
) -> RoundEntry:
    """Make one round in which the last of several sites is left out of round 2."""
    progress = 1 - np.exp(-number / 3)
    parts, statistics = {}, []
    for index, site in enumerate(sites):
        if number == 2 and index == len(sites) - 1 and index > 0:
            parts[site] = SiteRound(status="left-out", reason="TrainingError:not-finite")
            continue
        gain = 0.1 * (progress - 0.25)
        mine = site_statistics(seed=index, gain=gain, decibels=1.2 * (progress - 0.4))
        statistics.append(mine)
        parts[site] = SiteRound(
            status="ok",
            weight=1 / len(sites),
            train=TrainFigures(
                loss=1.1 - 0.5 * progress + 0.05 * index,
                seconds=12.5 + index,
                steps=25,
                n_pairs=60 + index,
                n_patients=24 + index,
                epsilon=0.6 * number**0.5 + 0.1 * index if epsilon else None,
                delta=1e-3 if epsilon else None,
                bytes_down=2_400_000,
                bytes_up=2_400_000,
            ),
            validation=mine.figures(),
            evaluate_seconds=3.0,
        )
    pooled = merge_all(statistics).figures()
    return RoundEntry(
        round=number,
        seconds=17.0,
        sites=parts,
        validation=pooled,
        selection=Selection(metric="dsc", value=pooled["federated"]["dsc"]["mean"], is_best=True),
    )


@functools.cache
def build_run(
    *,
    sites: tuple[str, ...] = SITES,
    rounds: int = 8,
    finished: bool = True,
    gain: float = 0.08,
    epsilon: bool = False,
) -> RunMetrics:
    """Make a whole run, or one that is still going."""
    study = StudyConfig(name="demo", rounds=8, seed=1).model_dump(mode="json")
    counts = {
        "train": SplitCounts(
            patients=24, pairs=60, strata={"growing": 24, "stable": 30, "shrinking": 6}
        ),
        "validation": SplitCounts(
            patients=6, pairs=14, strata={"growing": 6, "stable": 7, "shrinking": 1}
        ),
        "test": SplitCounts(
            patients=12, pairs=24, strata={"growing": 10, "stable": 12, "shrinking": 2}
        ),
    }
    entries = {site: SiteEntry(counts=counts, joined={"nognet": "0.1.0"}) for site in sites}
    metrics = start_metrics(study, started="2026-01-05T09:00:00+00:00", sites=entries)
    for number in range(1, rounds + 1):
        metrics = append_round(metrics, build_round(number, sites=sites, epsilon=epsilon))
    if not finished:
        return metrics
    tests = {
        site: site_statistics(
            seed=50 + index, gain=gain * (1 - 0.3 * index), decibels=gain * 8 - 0.1 * index
        )
        for index, site in enumerate(sites)
    }
    final = FinalEntry(
        round=rounds,
        sites={site: TestEntry(test=mine.figures()) for site, mine in tests.items()},
        pooled=TestEntry(test=merge_all(tests.values()).figures()),
    )
    return end_run(
        set_final(metrics, final),
        "completed",
        ended="2026-01-05T09:04:12+00:00",
        seconds=252.0,
    )


def build_case(*, size: int = 48, title: str = "alpha, growing, 182 days") -> Case:
    """Make a ball that grows by half in radius beside a vessel, and a prediction a little small."""
    draws = np.random.default_rng(4)
    z, y, x = np.meshgrid(*(np.arange(size) - (size - 1) / 2,) * 3, indexing="ij")
    distance = np.sqrt(z**2 + (y / 1.15) ** 2 + x**2)

    def image(radius: float) -> np.ndarray:
        ball = 0.6 / (1 + np.exp((distance - radius) * 1.6))
        vessel = 0.5 * np.exp(-((y - 0.3 * x - 12) ** 2 + (z - 1) ** 2) / 5)
        noise = draws.normal(0, 0.025, ball.shape)
        return np.clip(0.12 + ball + vessel + noise, 0, 1).astype(np.float32)

    before, after, guess = 5.0, 7.5, 7.0
    pull = -(1 - before / guess) * np.exp(-((distance / 11) ** 2))
    return Case(
        title=title,
        baseline=image(before),
        follow_up=image(after),
        predicted=image(guess),
        baseline_mask=(distance <= before).astype(np.uint8),
        follow_up_mask=(distance <= after).astype(np.uint8),
        predicted_mask=1 / (1 + np.exp((distance - guess) * 3)),
        displacement_vox=np.stack([pull * z, pull * y, pull * x]),
        interval_days=182,
        figures={"DSC": 0.894, "DSC of copy": 0.458, "PSNR (dB)": 31.2, "Volume ratio": 2.74},
    )
