"""The rigid start: Mattes mutual information at 4 mm, blind to every nodule."""

from __future__ import annotations

import SimpleITK as sitk

from nognet.data.pairs.least_squares import LinearMap
from nognet.data.pairs.surroundings import Surroundings
from nognet.errors import SiteDataError

SHRINK = 2
SMOOTHING_VOX = 1.0
SAMPLES = 48_000
"""Of the unshrunk surroundings' voxels; at the shrunken resolution about half of all."""
SAMPLING_SEED = 1729
MAX_STEPS = 40
HISTOGRAM_BINS = 32


def refine_rigid(fixed: Surroundings, moving: Surroundings, start: LinearMap) -> LinearMap:
    """Refine rotation and translation, from a shift, to about half a millimetre.

    Raises:
        SiteDataError: the surroundings don't overlap (code ``registration``).
    """
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=HISTOGRAM_BINS)
    method.SetMetricFixedMask(fixed.visible)
    method.SetMetricMovingMask(moving.visible)
    method.SetMetricSamplingStrategy(method.REGULAR)
    share = min(1.0, SAMPLES / fixed.image.GetNumberOfPixels())
    method.SetMetricSamplingPercentage(share, SAMPLING_SEED)
    method.SetInterpolator(sitk.sitkLinear)
    # gradients where they are needed, not filtered over the whole image: half the time, and closer
    method.MetricUseFixedImageGradientFilterOff()
    method.MetricUseMovingImageGradientFilterOff()
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=2.0,
        minStep=0.05,
        numberOfIterations=MAX_STEPS,
        relaxationFactor=0.6,
        gradientMagnitudeTolerance=1e-6,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([SHRINK])
    method.SetSmoothingSigmasPerLevel([SMOOTHING_VOX])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    found = sitk.Euler3DTransform()
    found.SetCenter(start.centre_mm.tolist())
    found.SetTranslation(start.shift_mm.tolist())
    method.SetInitialTransform(found, inPlace=True)
    try:
        method.Execute(fixed.image, moving.image)
    except RuntimeError as err:
        raise SiteDataError(
            "registration failed: the surroundings of the nodule don't overlap here",
            code="registration",
        ) from err
    return LinearMap.of(found, start.centre_mm)
