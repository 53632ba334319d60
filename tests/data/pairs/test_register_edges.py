"""Nodules at the pleura, growth, thick slices, and CTs that nothing can be held on to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nognet.config import RegistrationConfig
from nognet.data.pairs.register import CtWithNodule, Registration, register
from nognet.data.pairs.roi import crop_mask, cut_mask, map_points, nodule_volume_mm3, roi_grid
from nognet.errors import SiteDataError
from nognet.phantom.patient import PhantomPatient
from nognet.types import Geometry, Volume
from tests.builders.true_studies import Acquisition, Scanned, TrueNodule, patient, scan

CONFIG = RegistrationConfig()
FIRST = Acquisition((0.8, 0.8, 1.25))
SECOND = Acquisition(
    (0.7, 0.75, 1.0), turned_degrees=(-5.0, 4.0, 3.0), table_mm=(12.0, -9.0, 250.0), scanner=1
)


def side(scanned: Scanned) -> CtWithNodule:
    return CtWithNodule(scanned.ct, crop_mask(scanned.mask, scanned.ct.geometry))


def nodule_at(shift_mm: tuple[float, float, float]) -> PhantomPatient:
    """Patient 1, the nodule elsewhere in the lung."""
    who = patient(1)
    centre = who.nodules[0].centre_mm + np.array(shift_mm)
    return replace(who, nodules=(replace(who.nodules[0], centre_mm=centre),))


def off_mm(found: Registration, first: Scanned, second: Scanned) -> float:
    there = map_points(found.transform(), first.centre_mm[None])[0]
    return float(np.linalg.norm(there - second.centre_mm))


@pytest.mark.parametrize(
    ("shift_mm", "growth"),
    [
        ((12.0, 0.0, 0.0), 3.0),
        pytest.param((0.0, 72.0, 0.0), 2.0, marks=pytest.mark.slow),
        pytest.param((0.0, -20.0, 0.0), 0.5, marks=pytest.mark.slow),
    ],
)
def test_a_nodule_at_the_pleura_may_double_treble_or_halve(
    shift_mm: tuple[float, float, float], growth: float
) -> None:
    who = nodule_at(shift_mm)
    first = scan(who, TrueNodule(300.0, 300.0), FIRST, noise_seed=1)
    second = scan(who, TrueNodule(300.0 * growth, 300.0), SECOND, noise_seed=2)
    found = register(side(first), side(second), CONFIG)
    assert off_mm(found, first, second) <= 0.5
    assert found.scale == pytest.approx(1.0, abs=0.01)
    grid = roi_grid(side(first).centre_mm, 48)
    before, _ = cut_mask(side(first).nodule, grid, Registration.identity().transform())
    after, _ = cut_mask(side(second).nodule, grid, found.transform())
    native = nodule_volume_mm3(side(second).nodule) / nodule_volume_mm3(side(first).nodule)
    assert native == pytest.approx(growth, rel=0.03)  # voxels of 1.25 mm slices
    assert after.sum() / before.sum() == pytest.approx(native, rel=0.02)


def test_a_wrong_place_that_looks_alike_is_not_taken_for_the_right_one() -> None:
    """The likeliest coarse shift lies 22 mm off here, and its rigid fit agrees by 0.66."""
    first = Acquisition(
        (0.6, 0.8, 1.0), oblique_degrees=(11.3, 0.0, 6.3), flipped=(True, True, True),
        aside_mm=(0.0, 0.0, 7.5), table_mm=(7.6, 0.0, 0.0), scanner=2,
    )  # fmt: skip
    second = Acquisition(
        (0.87, 0.6, 1.0), oblique_degrees=(-8.4, -10.1, 0.0), flipped=(True, False, True),
        turned_degrees=(0.0, -3.9, 3.7), table_mm=(0.0, -28.6, -11.9),
        aside_mm=(-7.9, 0.0, -0.2), scanner=1,
    )  # fmt: skip
    volume = np.pi / 6 * 14.0**3
    scans = [
        scan(patient(2), TrueNodule(volume * g, volume, (1.03, 1.19, 0.96)), how, noise_seed=k)
        for k, (g, how) in enumerate(((1.0, first), (1.19, second)))
    ]
    found = register(side(scans[0]), side(scans[1]), CONFIG)
    assert off_mm(found, scans[0], scans[1]) <= 0.5
    assert found.ncc > 0.9


def test_on_one_grid_noise_does_not_pull_the_map_between_the_voxels() -> None:
    how = Acquisition(
        (0.8, 0.62, 1.0), oblique_degrees=(0.0, 0.0, -11.6), turned_degrees=(0.0, 0.0, 1.8),
        aside_mm=(8.0, 0.33, 7.0),
    )  # fmt: skip
    scans = [scan(patient(1), TrueNodule(861.0, 861.0), how, noise_seed=k) for k in (0, 1)]
    found = register(side(scans[0]), side(scans[1]), CONFIG)
    assert off_mm(found, scans[0], scans[1]) <= 0.35


def in_slices_of(scanned: Scanned, count: int) -> Scanned:
    """Average neighbouring slices."""
    old = scanned.ct.geometry
    depth = old.size[2] // count

    def averaged(array: np.ndarray) -> np.ndarray:
        kept = array[: depth * count].astype(np.float32)
        return np.asarray(kept.reshape(depth, count, *kept.shape[1:]).mean(axis=1))

    x, y, z = old.index_to_world(np.array([0.0, 0.0, (count - 1) / 2])).tolist()
    sx, sy, sz = old.spacing_mm
    grid = Geometry((*old.size[:2], depth), (sx, sy, sz * count), (x, y, z), old.direction)
    hu = np.rint(averaged(scanned.ct.array)).astype(np.int16)
    return replace(scanned, ct=Volume(hu, grid), soft_mask=averaged(scanned.soft_mask))


@pytest.mark.slow
@pytest.mark.parametrize(("count", "limit_mm"), [(2, 0.5), (4, 1.0)])
def test_slices_of_2_5_and_5_mm_are_registered_without_a_warning(
    count: int, limit_mm: float
) -> None:
    first = scan(patient(1), TrueNodule(400.0, 400.0), FIRST, noise_seed=1)
    how = replace(SECOND, spacing_mm=(0.7, 0.7, 1.25))
    second = in_slices_of(scan(patient(1), TrueNodule(600.0, 400.0), how, noise_seed=2), count)
    found = register(side(first), side(second), CONFIG)
    assert off_mm(found, first, second) <= limit_mm
    assert found.ncc > CONFIG.warn_ncc


@pytest.mark.slow
def test_numbers_whole_or_not_give_the_same_map() -> None:
    scans = [scan(patient(1), TrueNodule(300.0, 300.0), FIRST, noise_seed=k) for k in (1, 2)]
    whole = register(side(scans[0]), side(scans[1]), CONFIG)
    floating = [replace(s, ct=Volume(s.ct.array.astype(np.float32), s.ct.geometry)) for s in scans]
    other = register(side(floating[0]), side(floating[1]), CONFIG)
    np.testing.assert_allclose(other.translation_mm, whole.translation_mm, atol=0.3)
    assert other.ncc == pytest.approx(whole.ncc, abs=0.01)


@pytest.mark.parametrize("hu", [-1024, 40, pytest.param(-850, marks=pytest.mark.slow)])
def test_a_ct_of_one_value_is_refused(hu: int) -> None:
    first = scan(patient(1), TrueNodule(300.0, 300.0), FIRST)
    flat = Volume(np.full_like(first.ct.array, hu), first.ct.geometry)
    for one, other in ((first.ct, flat), (flat, flat)):
        nodule = side(first).nodule
        with pytest.raises(SiteDataError, match="registration failed") as caught:
            register(CtWithNodule(one, nodule), CtWithNodule(other, nodule), CONFIG)
        assert caught.value.code == "registration"
