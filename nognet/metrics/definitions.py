"""What each metric means, in one text that the contract hashes and every report prints.

A change of any number a metric gives needs a new `DEFINITIONS_VERSION`: sites of different versions
must not be compared or averaged.
"""

from __future__ import annotations

from dataclasses import dataclass

from nognet.types import STRATA, Stratum

DEFINITIONS_VERSION = 2
GROWTH_AUC = "growth_auc"


@dataclass(frozen=True)
class MetricDefinition:
    """One metric, as a report shows it.

    Attributes:
        name: The key in `metrics.json`.
        title: The column's head.
        unit: The unit printed behind the title; empty for a plain number.
        region: The voxels it is computed on.
        text: The definition.
        short: The definition in a line, for a terminal.
        higher_is_better: The direction in which predictions improve.
        decimals: Digits behind the point that a table shows.
    """

    name: str
    title: str
    unit: str
    region: str
    text: str
    short: str
    higher_is_better: bool
    decimals: int

    @property
    def full_text(self) -> str:
        """Text, region and direction in one paragraph."""
        direction = "Higher" if self.higher_is_better else "Lower"
        return f"{self.text} Region: {self.region}. {direction} is better."


_IMAGE = "Images are CT scaled from the study's HU window to [0, 1], so the data range is 1."

_ALL = (
    MetricDefinition(
        name="psnr",
        title="PSNR",
        unit="dB",
        region="the whole ROI",
        text=(
            "Peak signal-to-noise ratio, 10 log10(1 / MSE) between predicted and true follow-up "
            f"image. {_IMAGE} The MSE is floored at 1e-10, so identical images give 100 dB."
        ),
        short="10 log10(1 / MSE), whole ROI, data range 1, at most 100 dB",
        higher_is_better=True,
        decimals=2,
    ),
    MetricDefinition(
        name="psnr_nodule",
        title="PSNR nodule",
        unit="dB",
        region=(
            "the union of the predicted (probability > 0.5) and the true follow-up mask; both "
            "images are 0 elsewhere and the MSE is averaged over the whole ROI"
        ),
        text=(
            "PSNR of the nodule alone, as NoFoNet's PSNR*. It grows with the size of the ROI and "
            f"can't be set beside PSNR. {_IMAGE} Floored as PSNR."
        ),
        short="PSNR with 0 outside predicted or true nodule, MSE over the whole ROI, data range 1",
        higher_is_better=True,
        decimals=2,
    ),
    MetricDefinition(
        name="ssim",
        title="SSIM",
        unit="",
        region="the whole ROI but a rim of 5 voxels, half the window, as scikit-image averages it",
        text=(
            "Structural similarity in 3D: Gaussian window of 11 voxels, sigma 1.5, K1 0.01, K2 "
            f"0.03, population covariances, borders reflected. {_IMAGE}"
        ),
        short="3D, Gaussian window 11, sigma 1.5, whole ROI but a rim of 5 voxels, data range 1",
        higher_is_better=True,
        decimals=4,
    ),
    MetricDefinition(
        name="ssim_nodule",
        title="SSIM nodule",
        unit="",
        region=(
            "the bounding box of the true follow-up mask, enlarged at each side by 10 % of its "
            "edge (rounded up) and cut at the ROI's border"
        ),
        text=(
            "The SSIM map of SSIM (computed on the whole ROI, borders reflected) averaged over "
            "the nodule's box. Undefined, and left out, where the true mask is empty."
        ),
        short="SSIM map over the true nodule's bounding box with a 10 % margin, data range 1",
        higher_is_better=True,
        decimals=4,
    ),
    MetricDefinition(
        name="dsc",
        title="DSC",
        unit="",
        region="the whole ROI",
        text=(
            "Dice similarity coefficient of the predicted follow-up mask (probability > 0.5) and "
            "the true one; two empty masks give 1."
        ),
        short="Dice of predicted (probability > 0.5) and true follow-up mask, whole ROI",
        higher_is_better=True,
        decimals=4,
    ),
    MetricDefinition(
        name="volume_error",
        title="Volume error",
        unit="",
        region="the whole ROI",
        text=(
            "Relative error of the follow-up volume, |V_hat - V| / V. V_hat is the sum of the "
            "predicted mask's probabilities, V the count of the true mask's voxels, both on the 1 "
            "mm ROI grid. Undefined, and left out, where the true mask is empty."
        ),
        short="|V_hat - V| / V, lower is better, whole ROI",
        higher_is_better=False,
        decimals=3,
    ),
    MetricDefinition(
        name="log_volume_error",
        title="Log volume error",
        unit="",
        region="the whole ROI",
        text=(
            "Error of the logarithm of the follow-up volume, |ln(V_hat / V)|, with the volumes of "
            "the volume error; V_hat is floored at 1 mm3. Undefined, and left out, where the true "
            "mask is empty."
        ),
        short="|ln(V_hat / V)|, lower is better, whole ROI",
        higher_is_better=False,
        decimals=3,
    ),
    MetricDefinition(
        name="folded_fraction",
        title="Folded",
        unit="",
        region="the whole ROI but its last slice along each axis",
        text=(
            "Share of voxels at which the displacement field folds: the Jacobian determinant of "
            "p + u(p), by forward differences, is not positive. 0 for a predictor that moves "
            "nothing."
        ),
        short="share of voxels with a Jacobian determinant <= 0, lower is better",
        higher_is_better=False,
        decimals=5,
    ),
    MetricDefinition(
        name="interval_coverage",
        title="Coverage",
        unit="",
        region="the whole ROI",
        text=(
            "Share of pairs whose true volume lies in the predicted interval V_hat exp(+-r). r is "
            "calibrated on the site's validation patients (split conformal prediction) to hold "
            "with the study's uncertainty.coverage (nominal, 0.8 by default): compare with that. "
            "Undefined where there are too few validation patients for that level."
        ),
        short="share of true volumes within the predicted interval; compare with the nominal 0.8",
        higher_is_better=True,
        decimals=3,
    ),
    MetricDefinition(
        name="interval_width",
        title="Interval width",
        unit="",
        region="the whole ROI",
        text=(
            "Width of that interval: the natural logarithm of its upper over its lower volume. "
            "Undefined where the coverage is."
        ),
        short="ln(upper / lower volume) of the predicted interval, lower is better",
        higher_is_better=False,
        decimals=3,
    ),
    MetricDefinition(
        name=GROWTH_AUC,
        title="Growth AUC",
        unit="",
        region="the whole ROI",
        text=(
            "How well the predicted volume ratio V_hat / V0 ranks growing nodules (true native "
            "volume +25 % and more) above the others: the share of (growing, other) pairs of "
            "examples in the right order, ties counting one half. Examples are compared within a "
            "site only; pooling adds the sites' comparisons."
        ),
        short="growing (+25 % and more) against the rest, ranked by V_hat / V0",
        higher_is_better=True,
        decimals=3,
    ),
)

DEFINITIONS: dict[str, MetricDefinition] = {definition.name: definition for definition in _ALL}
METRIC_NAMES: tuple[str, ...] = tuple(DEFINITIONS)
PAIR_METRIC_NAMES: tuple[str, ...] = tuple(name for name in METRIC_NAMES if name != GROWTH_AUC)

AVERAGING_TEXT = (
    "A metric is computed for each pair of scans; tables give the mean over pairs, and the sample "
    "standard deviation (n - 1) where one is shown. A patient with several pairs counts with each."
)
NOT_COMPARABLE_TEXT = (
    "Published PSNR values are not comparable between papers or with these: data ranges, regions "
    "and ROI sizes differ. Compare with the baselines beside, which saw the same pairs."
)
STRATUM_TEXTS: dict[Stratum, str] = dict(
    zip(
        STRATA,
        ("volume +25 % and more", "between", "volume -20 % and less"),
        strict=True,
    )
)


def definition_texts() -> dict[str, str]:
    """Give the full text of every metric, as `metrics.json` carries it."""
    return {name: definition.full_text for name, definition in DEFINITIONS.items()}


def is_better(metric: str, candidate: float, best: float | None) -> bool:
    """Say whether `candidate` beats `best` (None: nothing yet) in the metric's own direction.

    >>> is_better("dsc", 0.8, 0.7), is_better("volume_error", 0.8, 0.7), is_better("dsc", 0.1, None)
    (True, False, True)
    """
    if best is None:
        return True
    return candidate > best if DEFINITIONS[metric].higher_is_better else candidate < best
