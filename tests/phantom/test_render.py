from __future__ import annotations

import numpy as np
import pytest

from nognet.phantom.anatomy import occupancy, texture_field
from nognet.phantom.motion import draw_motion
from nognet.phantom.patient import PatientPlan, draw_patient
from nognet.phantom.render import draw_noise, render_hu, render_mask, render_soft_mask
from nognet.phantom.scanner import SCANNERS, Scanner
from nognet.types import Geometry
from tests.builders.phantom_scene import (
    ball_look,
    drawn_look,
    grid,
    moved,
    nodule_plan,
    one_nodule_scene,
)


def test_half_of_a_voxel_on_the_surface_is_inside() -> None:
    distance = np.array([-2.0, -0.4, 0.0, 0.4, 2.0], dtype=np.float32)
    share = occupancy(distance, 0.8)
    assert share[[0, 2, 4]] == pytest.approx([1.0, 0.5, 0.0])
    assert share[1] + share[3] == pytest.approx(1.0)


@pytest.mark.parametrize("diameter_mm", [6.0, 8.0, 12.0])
def test_partial_volume_adds_up_to_the_nodules_volume(diameter_mm: float) -> None:
    plan = nodule_plan("smooth", diameter_mm)
    centre = moved().to_scan(np.zeros((1, 3)))[0]
    geometry = grid(spacing_mm=(0.85, 0.85, 1.25), centre_mm=(centre[0], centre[1], centre[2]))
    image = render_hu(one_nodule_scene(ball_look(), plan, motion=moved()), geometry, 0.8)
    excess = float(np.sum(image.astype(np.float64) + 850.0)) / (40.0 + 850.0)
    assert excess * geometry.voxel_volume_mm3 == pytest.approx(plan.volume_mm3(0), rel=0.05)


def test_soft_mask_is_above_half_where_the_mask_is() -> None:
    scene = one_nodule_scene(drawn_look("lobulated", 2), nodule_plan("lobulated", 9.0))
    soft = render_soft_mask(scene, scene.nodules[0], grid())
    mask = render_mask(scene, scene.nodules[0], grid())
    assert np.array_equal(soft > 0.5, mask.astype(bool))
    assert soft[(soft > 0) & (soft < 1)].min() > 0.0


def test_a_nodule_off_the_grid_leaves_no_mask() -> None:
    scene = one_nodule_scene(ball_look(), nodule_plan(), centre_mm=(200.0, 0.0, 0.0))
    assert render_mask(scene, scene.nodules[0], grid()).sum() == 0


@pytest.mark.parametrize("scanner", SCANNERS, ids=lambda s: s.kernel)
def test_noise_has_the_scanners_strength_and_kernel(scanner: Scanner) -> None:
    noise = draw_noise((24, 96, 96), scanner, np.random.default_rng(0)).astype(np.float64)
    assert noise.std() == pytest.approx(scanner.noise_hu, rel=0.03)
    assert noise.mean() == pytest.approx(0.0, abs=1.0)
    neighbours = float(np.mean(noise[:, :, 1:] * noise[:, :, :-1])) / noise.var()
    between_slices = float(np.mean(noise[1:] * noise[:-1])) / noise.var()
    assert (neighbours < -0.05) if scanner.noise_blur < 0 else (neighbours > 0.5)
    assert abs(between_slices) < 0.02


def patient_scene_images(growth_visit: int) -> np.ndarray:
    plan = PatientPlan(site=0, number=0, days=(0, 365, 730), kinds=("spiculated",))
    patient = draw_patient(plan, seed=5)
    motion = draw_motion((0.0, 0.0, 0.0), np.random.default_rng(0))
    centre = motion.to_scan(patient.nodules[0].centre_mm[None])[0]
    geometry = grid(
        spacing_mm=(1.0, 1.0, 1.0), extent_mm=96.0, centre_mm=(centre[0], centre[1], centre[2])
    )
    return render_hu(patient.scene(growth_visit, motion), geometry, 0.8)


def test_growth_changes_the_nodule_and_leaves_what_is_far_away() -> None:
    first, later = patient_scene_images(0), patient_scene_images(2)
    difference = np.abs(later - first)
    assert difference[44:52, 44:52, 44:52].max() > 100
    far = np.concatenate([difference[:6].ravel(), difference[:, :6].ravel()])
    assert float(np.quantile(far, 0.99)) < 40


def test_a_chest_shows_air_fat_muscle_bone_and_lung() -> None:
    plan = PatientPlan(site=0, number=1, days=(0,), kinds=("smooth",))
    patient = draw_patient(plan, seed=1)
    motion = draw_motion((0.0, 0.0, 0.0), np.random.default_rng(1))
    x, y, z = patient.middle_mm
    geometry = Geometry((96, 96, 12), (2.0, 2.0, 4.0), (x - 95, y - 95, z - 22))
    image = render_hu(patient.scene(0, motion), geometry, 0.9)
    bands = {"air": (-1010, -985), "lung": (-940, -780), "fat": (-120, -50), "muscle": (30, 60)}
    shares = {
        name: float(np.mean((image > low) & (image < high))) for name, (low, high) in bands.items()
    }
    assert shares["lung"] > 0.25
    assert min(shares.values()) > 0.02
    assert float(np.mean(image > 150)) > 0.003
    assert image.min() >= -1010


def test_rendering_twice_gives_the_same_bits_and_leaves_the_texture() -> None:
    field = texture_field(1).copy()
    first, again = patient_scene_images(1), patient_scene_images(1)
    assert np.array_equal(first, again)
    assert np.array_equal(texture_field(1), field)
