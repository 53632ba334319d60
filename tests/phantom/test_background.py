from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nognet.config import RoiConfig
from nognet.errors import SiteDataError
from nognet.phantom.background import draw_patient_in, load_background, sample
from nognet.phantom.motion import draw_motion
from nognet.phantom.patient import PatientPlan
from nognet.phantom.render import render_hu, render_mask
from nognet.phantom.roi import roi_geometry
from nognet.types import Geometry, Volume

PLAN = PatientPlan(site=0, number=0, days=(0, 365), kinds=("lobulated", "smooth"))


@pytest.fixture(scope="module")
def chest_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A block of tissue in air, with two lungs, turned as NIfTI files often are."""
    array = np.full((50, 70, 90), -1000.0, dtype=np.float32)
    array[:, 5:65, 5:85] = 40.0
    array[:, 12:58, 10:42] = -860.0
    array[:, 12:58, 48:80] = -860.0
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((2.0, 2.0, 2.0))
    image.SetDirection((-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0))
    image.SetOrigin((90.0, 70.0, -300.0))
    path = tmp_path_factory.mktemp("background") / "chest.nii.gz"
    sitk.WriteImage(image, str(path))
    return path


def test_sampling_at_voxel_centres_gives_the_voxels() -> None:
    geometry = Geometry(
        (6, 5, 4), (1.5, 0.5, 2.0), (3.0, -2.0, 9.0), ((-1, 0, 0), (0, -1, 0), (0, 0, 1))
    )
    array = np.random.default_rng(0).normal(0, 100, (4, 5, 6)).astype(np.float32)
    index = np.argwhere(np.ones_like(array))[:, ::-1].astype(float)
    x, y, z = geometry.index_to_world(index).T.astype(np.float32)
    assert sample(Volume(array, geometry), x, y, z) == pytest.approx(array.ravel(), abs=1e-2)


def test_lung_is_found_and_the_air_around_is_not(chest_path: Path) -> None:
    background = load_background(chest_path)
    values = sample(
        background.tissue.volume, *(axis.astype(np.float32) for axis in background.places_mm.T)
    )
    assert values == pytest.approx(np.full(values.shape, -860.0), abs=0.5)


def test_nodules_grow_in_the_lung_of_the_real_ct(chest_path: Path) -> None:
    patient = draw_patient_in(PLAN, 4, chest_path)
    assert not patient.nodules[0].plan.contrary
    motion = draw_motion((0.0, 0.0, 0.0), np.random.default_rng(0))
    geometry = roi_geometry(
        motion.to_scan(patient.nodules[0].centre_mm[None])[0], RoiConfig(size_vox=48)
    )
    images, masks = [], []
    for visit in (0, 1):
        scene = patient.scene(visit, motion)
        images.append(render_hu(scene, geometry, 0.8))
        masks.append(render_mask(scene, scene.nodules[0], geometry).astype(bool))
        assert np.median(images[-1][masks[-1]]) > -150
    assert masks[1].sum() > 1.3 * masks[0].sum()
    rim = masks[1] & ~masks[0]
    assert np.median(images[0][rim]) < np.median(images[1][rim]) - 300


def test_files_that_are_no_chest_ct_are_refused_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(SiteDataError, match="no such file"):
        load_background(tmp_path / "absent.mha")
    (tmp_path / "text.mha").write_text("not an image")
    with pytest.raises(SiteDataError, match="can't read"):
        load_background(tmp_path / "text.mha")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SiteDataError, match="0 DICOM series"):
        load_background(tmp_path / "empty")
    sitk.WriteImage(sitk.Image([20, 20, 20], sitk.sitkInt16) + 40, str(tmp_path / "water.mha"))
    with pytest.raises(SiteDataError, match="no lung"):
        load_background(tmp_path / "water.mha")
