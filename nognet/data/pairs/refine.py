"""The refinement: Mattes mutual information, first rigid, then affine, blind to every nodule."""

from __future__ import annotations

from typing import TypeVar

import SimpleITK as sitk

from nognet.data.pairs.surroundings import Surroundings
from nognet.errors import SiteDataError

SAMPLES = 6_000
SAMPLING_SEED = 1729
MAX_STEPS = 60
HISTOGRAM_BINS = 32

Linear = TypeVar("Linear", sitk.Euler3DTransform, sitk.AffineTransform)


def refine_rigid(
    fixed: Surroundings, moving: Surroundings, start: sitk.Euler3DTransform
) -> sitk.Euler3DTransform:
    """Refine rotation and translation in two resolutions.

    Raises:
        SiteDataError: the surroundings don't overlap (code ``registration``).
    """
    method = _method(fixed, moving, first_step=2.0)
    share = min(1.0, SAMPLES / fixed.image.GetNumberOfPixels())
    method.SetMetricSamplingPercentagePerLevel([min(1.0, 8 * share), share], SAMPLING_SEED)
    method.SetShrinkFactorsPerLevel([2, 1])
    method.SetSmoothingSigmasPerLevel([1.0, 0.0])
    return _run(method, fixed, moving, sitk.Euler3DTransform(start))


def refine_affine(
    fixed: Surroundings, moving: Surroundings, start: sitk.AffineTransform
) -> sitk.AffineTransform:
    """Refine all twelve parameters from a rigid start, at full resolution.

    Raises:
        SiteDataError: the surroundings don't overlap (code ``registration``).
    """
    method = _method(fixed, moving, first_step=0.5)
    share = min(1.0, SAMPLES / fixed.image.GetNumberOfPixels())
    method.SetMetricSamplingPercentage(share, SAMPLING_SEED)
    method.SetShrinkFactorsPerLevel([1])
    method.SetSmoothingSigmasPerLevel([0.0])
    return _run(method, fixed, moving, sitk.AffineTransform(start))


def _method(
    fixed: Surroundings, moving: Surroundings, *, first_step: float
) -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=HISTOGRAM_BINS)
    method.SetMetricFixedMask(fixed.visible)
    method.SetMetricMovingMask(moving.visible)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetInterpolator(sitk.sitkLinear)
    # gradients where they are needed, not filtered over the whole image: half the time, and closer
    method.MetricUseFixedImageGradientFilterOff()
    method.MetricUseMovingImageGradientFilterOff()
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=first_step,
        minStep=0.01,
        numberOfIterations=MAX_STEPS,
        relaxationFactor=0.6,
        gradientMagnitudeTolerance=1e-6,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    return method


def _run(
    method: sitk.ImageRegistrationMethod,
    fixed: Surroundings,
    moving: Surroundings,
    found: Linear,
) -> Linear:
    """Optimise `found` (in place) and give it back."""
    method.SetInitialTransform(found, inPlace=True)
    try:
        method.Execute(fixed.image, moving.image)
    except RuntimeError as err:
        raise SiteDataError(
            "registration failed: the surroundings of the nodule don't overlap at the two times; "
            "check that both CTs are of one patient and show the nodule",
            code="registration",
        ) from err
    return found
