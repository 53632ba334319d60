from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import SimpleITK as sitk

from nognet.config import RegistrationConfig
from nognet.data.pairs.register import CtWithNodule, Registration, register
from nognet.data.pairs.roi import crop_mask
from nognet.data.sitk_bridge import resample, to_sitk
from nognet.errors import SiteDataError
from nognet.types import Geometry, Volume
from tests.builders.ct_files import ball, geometry, middle

GRID = geometry((90, 80, 50), (1.4, 1.4, 2.5), origin=(-60.0, -50.0, -200.0))
CONFIG = RegistrationConfig()


@cache
def chest(seed: int = 0) -> Volume:
    """A lung with a wall and vessel-like structure at several scales."""
    rng = np.random.default_rng(seed)
    hu = np.full(GRID.size[::-1], -870.0, dtype=np.float32)
    for sigma, height in ((2.0, 900.0), (4.0, 500.0)):
        noise = sitk.GetImageFromArray(rng.normal(size=hu.shape).astype(np.float32))
        smooth = sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(noise, sigma))
        hu += height * np.maximum(smooth / smooth.std() - 1.5, 0)
    hu[:, :10] = 40
    hu[:, -14:, :] = 30
    hu[:6] = 20
    return Volume(np.clip(hu, -1000, 100), GRID)


def with_nodule(ct: Volume, centre: np.ndarray, radius_mm: float) -> CtWithNodule:
    mask = ball(ct.geometry, centre, radius_mm)
    array = np.where(mask, np.float32(40), ct.array)
    return CtWithNodule(Volume(array, ct.geometry), crop_mask(mask, ct.geometry))


def moved(
    ct: Volume, degrees: tuple[float, float, float], shift_mm: tuple[float, float, float]
) -> tuple[Volume, sitk.Euler3DTransform]:
    """The same patient, lying elsewhere, on another scanner's grid with noise."""
    true = sitk.Euler3DTransform()
    true.SetCenter(middle(ct.geometry).tolist())
    true.SetRotation(*np.radians(degrees).tolist())
    true.SetTranslation(shift_mm)
    x, y, z = np.add(ct.geometry.origin_mm, np.array(shift_mm) - 8.0).tolist()
    grid = Geometry((105, 95, 70), (1.3, 1.3, 2.0), (x, y, z), ct.geometry.direction)
    hu = resample(to_sitk(ct.array, ct.geometry), grid, true.GetInverse(), fill=-1000)
    noise = np.random.default_rng(4).normal(0, 25, hu.shape).astype(np.float32)
    return Volume(hu + noise, grid), true


@pytest.mark.parametrize(
    ("degrees", "shift_mm", "growth"),
    [
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 1.0),
        ((3.0, -4.0, 2.0), (12.0, -8.0, 20.0), 1.6),
        ((-5.0, 2.0, 5.0), (-35.0, 25.0, -30.0), 0.7),
    ],
)
def test_a_moved_follow_up_is_found_to_half_a_millimetre(
    degrees: tuple[float, float, float], shift_mm: tuple[float, float, float], growth: float
) -> None:
    centre = middle(GRID) + np.array([6.0, -4.0, 3.0])
    baseline = with_nodule(chest(), centre, 5.0)
    elsewhere, true = moved(chest(), degrees, shift_mm)
    there = np.array(true.TransformPoint(centre.tolist()))
    follow_up = with_nodule(elsewhere, there, 5.0 * growth)
    found = register(baseline, follow_up, CONFIG)
    off = np.array(found.transform().TransformPoint(centre.tolist())) - there
    assert np.linalg.norm(off) <= 0.5
    assert found.nodule_displacement_mm <= 0.8  # the nodule's own voxels shift its centre a little
    assert found.ncc > 0.9
    assert found.shift_mm == pytest.approx(np.linalg.norm(there - centre), abs=0.5)
    true_angle = np.degrees(np.arccos((np.trace(np.array(true.GetMatrix()).reshape(3, 3)) - 1) / 2))
    assert found.rotation_degrees == pytest.approx(true_angle, abs=0.5)


def test_a_ct_with_itself_gives_the_identity_and_the_same_bits_each_time() -> None:
    side = with_nodule(chest(), middle(GRID), 5.0)
    before = side.ct.array.copy()
    first, second = (register(side, side, CONFIG) for _ in range(2))
    assert first == second
    np.testing.assert_array_equal(side.ct.array, before)
    assert first.shift_mm < 0.1
    assert first.rotation_degrees < 0.1
    assert first.ncc > 0.99


def test_growth_is_not_registered_away() -> None:
    centre = middle(GRID)
    baseline, follow_up = (with_nodule(chest(), centre, r) for r in (4.0, 9.0))
    found = register(baseline, follow_up, CONFIG)
    matrix = np.array(found.matrix).reshape(3, 3)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-9)  # rigid
    assert found.nodule_displacement_mm < 0.3


def test_another_patient_correlates_less_than_passes_without_a_warning() -> None:
    strict = RegistrationConfig(min_ncc=CONFIG.warn_ncc)
    sides = [with_nodule(chest(seed), middle(GRID), 5.0) for seed in (0, 1)]
    with pytest.raises(SiteDataError, match="correlation around the nodule is") as caught:
        register(sides[0], sides[1], strict)
    assert caught.value.code == "registration"


def test_a_move_beyond_the_limit_is_refused() -> None:
    elsewhere, true = moved(chest(), (0.0, 0.0, 0.0), (30.0, 0.0, 0.0))
    there = np.array(true.TransformPoint(middle(GRID).tolist()))
    sides = with_nodule(chest(), middle(GRID), 5.0), with_nodule(elsewhere, there, 5.0)
    with pytest.raises(SiteDataError, match="by 30 mm, at most 10 are allowed"):
        register(*sides, RegistrationConfig(max_shift_mm=10))


def test_switched_off_it_measures_the_identity() -> None:
    sides = [with_nodule(chest(), middle(GRID), r) for r in (5.0, 6.0)]
    found = register(sides[0], sides[1], RegistrationConfig(enabled=False))
    assert found.matrix == Registration.identity().matrix
    assert found.translation_mm == (0.0, 0.0, 0.0)
    assert found.ncc > 0.99
