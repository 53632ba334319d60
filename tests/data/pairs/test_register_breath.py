"""What a registration must not take for growth, for breath, or for the same patient."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from nognet.config import RegistrationConfig
from nognet.data.pairs.register import CtWithNodule, Registration, register
from nognet.data.pairs.roi import crop, crop_mask, cut_mask, map_points, nodule_volume_mm3, roi_grid
from nognet.data.sitk_bridge import resample, to_sitk
from nognet.errors import SiteDataError
from nognet.types import Volume
from tests.builders.ct_files import ball, middle
from tests.builders.true_studies import Acquisition, Scanned, TrueNodule, patient, scan

CONFIG = RegistrationConfig()
FIRST = Acquisition(spacing_mm=(0.8, 0.8, 1.0))


def side(scanned: Scanned) -> CtWithNodule:
    return CtWithNodule(scanned.ct, crop_mask(scanned.mask, scanned.ct.geometry))


def scanned_at(how: Acquisition, seed: int = 1, volume_mm3: float = 300.0) -> Scanned:
    return scan(patient(seed), TrueNodule(volume_mm3, 300.0), how, noise_seed=seed)


def breathed(
    first: Scanned, stretch: tuple[float, float, float], volume_mm3: float
) -> tuple[CtWithNodule, np.ndarray]:
    """The same patient after a deeper breath; the nodule is stiff. Gives its centre too."""
    deeper = sitk.AffineTransform(3)
    deeper.SetMatrix(np.diag(stretch).ravel().tolist())
    deeper.SetCenter((first.centre_mm + np.array([20.0, -15.0, 10.0])).tolist())
    deeper.SetTranslation((3.0, -4.0, 6.0))
    there = map_points(deeper, first.centre_mm[None])[0]
    grid = first.ct.geometry
    hu = resample(to_sitk(first.ct.array, grid), grid, deeper.GetInverse(), fill=-1024)
    mask = ball(grid, there, (volume_mm3 * 3 / (4 * np.pi)) ** (1 / 3))
    hu[mask > 0] = 40
    known = crop(Volume(hu, grid), middle(grid), 32.0)  # beyond lies what was never scanned
    return CtWithNodule(known, crop_mask(mask, grid)), there


@pytest.mark.parametrize("growth", [1.0, 2.0])
@pytest.mark.parametrize("stretch", [(1.05, 1.05, 1.05), (1.0, 1.02, 1.08), (0.96, 0.96, 0.96)])
def test_a_breath_is_no_growth_and_growth_is_no_breath(
    stretch: tuple[float, float, float], growth: float
) -> None:
    first = scanned_at(FIRST, volume_mm3=600.0)
    baseline = side(first)
    follow_up, there = breathed(first, stretch, 600.0 * growth)
    found = register(baseline, follow_up, CONFIG)
    assert found.kind == "affine"
    assert found.scale == pytest.approx(np.prod(stretch) ** (1 / 3), abs=0.01)
    assert np.linalg.det(np.array(found.matrix).reshape(3, 3)) == pytest.approx(1.0, abs=1e-9)
    off = map_points(found.transform(), first.centre_mm[None])[0] - there
    assert np.linalg.norm(off) <= 0.5
    grid = roi_grid(baseline.centre_mm, 48)
    before, _ = cut_mask(baseline.nodule, grid, Registration.identity().transform())
    after, _ = cut_mask(follow_up.nodule, grid, found.transform())
    native = nodule_volume_mm3(follow_up.nodule) / nodule_volume_mm3(baseline.nodule)
    assert native == pytest.approx(growth, rel=0.02)  # a plain ball of voxels
    assert after.sum() / before.sum() == pytest.approx(native, rel=0.01)


def test_rigid_by_choice_leaves_the_breath_alone() -> None:
    first = scanned_at(FIRST, volume_mm3=600.0)
    follow_up, there = breathed(first, (1.03, 1.03, 1.03), 600.0)
    found = register(side(first), follow_up, RegistrationConfig(transform="rigid", min_ncc=0.3))
    assert (found.kind, found.scale) == ("rigid", 1.0)
    matrix = np.array(found.matrix).reshape(3, 3)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-9)
    off = map_points(found.transform(), first.centre_mm[None])[0] - there
    assert np.linalg.norm(off) <= 1.5


@pytest.mark.parametrize(
    ("table_mm", "turned"),
    [
        pytest.param((60.0, 0.0, 0.0), (0.0, 0.0, 0.0), marks=pytest.mark.slow),
        ((0.0, -35.0, 48.0), (0.0, 0.0, 8.0)),
        ((-20.0, 10.0, 5.0), (15.0, 0.0, 0.0)),
        ((10.0, 0.0, -30.0), (0.0, -15.0, 0.0)),
        ((0.0, 5.0, 0.0), (0.0, 0.0, 15.0)),
    ],
)
def test_the_table_elsewhere_and_the_patient_turned_are_found(
    table_mm: tuple[float, float, float], turned: tuple[float, float, float]
) -> None:
    first = scanned_at(FIRST)
    thicker = Acquisition((0.7, 0.7, 2.0), table_mm=table_mm, turned_degrees=turned, scanner=1)
    second = scanned_at(thicker, volume_mm3=450.0)
    found = register(side(first), side(second), CONFIG)
    there = map_points(found.transform(), first.centre_mm[None])[0]
    assert np.linalg.norm(there - second.centre_mm) <= 0.5
    assert found.rotation_degrees == pytest.approx(np.linalg.norm(turned), abs=1.0)
    assert found.lung_overlap > 0.95


@pytest.mark.parametrize(("one", "other"), [(1, 2), pytest.param(2, 3, marks=pytest.mark.slow)])
def test_another_patient_is_refused(one: int, other: int) -> None:
    sides = [side(scanned_at(FIRST, seed)) for seed in (one, other)]
    with pytest.raises(SiteDataError, match="correlation around the nodule is") as caught:
        register(sides[0], sides[1], CONFIG)
    assert caught.value.code == "registration"


def test_the_map_does_not_depend_on_which_of_the_follow_ups_nodules_is_named() -> None:
    first, second = (side(scanned_at(replace(FIRST, aside_mm=a))) for a in ((0, 0, 0), (4, 0, 0)))
    grid = second.ct.geometry
    elsewhere = crop_mask(ball(grid, second.centre_mm + np.array([0.0, 20.0, 0.0]), 4.0), grid)
    one = register(first, CtWithNodule(second.ct, second.nodule, (elsewhere,)), CONFIG)
    other = register(first, CtWithNodule(second.ct, elsewhere, (second.nodule,)), CONFIG)
    assert one.matrix == other.matrix
    assert one.translation_mm == other.translation_mm
    assert one.ncc == other.ncc
    assert one.nodule_displacement_mm < 0.5
    assert other.nodule_displacement_mm == pytest.approx(20.0, abs=1.0)


def test_other_nodules_are_blinded_too() -> None:
    first = scanned_at(FIRST)
    second = scanned_at(replace(FIRST, aside_mm=(3.0, 0.0, 0.0)))
    grid = second.ct.geometry
    grown = ball(grid, second.centre_mm + np.array([0.0, 24.0, 0.0]), 11.0)
    shown = Volume(np.where(grown > 0, np.int16(40), second.ct.array), grid)
    new = crop_mask(grown, grid)
    nodule = side(second).nodule
    blind = register(side(first), CtWithNodule(shown, nodule, (new,)), CONFIG)
    seeing = register(side(first), CtWithNodule(shown, nodule), RegistrationConfig(min_ncc=-1))
    assert blind.ncc > 0.9
    assert seeing.ncc < blind.ncc - 0.02
