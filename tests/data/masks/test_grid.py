from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nognet.data.masks.grid import place_on
from nognet.errors import GeometryError, SiteDataError
from nognet.types import Geometry
from tests.builders.ct_files import ball, geometry, middle, rotation

CT = geometry((44, 40, 30), (0.7, 0.8, 1.25), origin=(-10.0, 4.0, 30.0), axes=rotation((5, 8, 20)))


def around(centre: np.ndarray, spacing: float, thick: float, turn: float) -> Geometry:
    """A grid of another spacing and direction around a point."""
    size = (int(26 / spacing), int(26 / spacing), int(30 / thick))
    axes = rotation((5 + turn, 8, 20 - turn))
    extent = (np.array(size) - 1) * [spacing, spacing, thick]
    x, y, z = centre - axes @ (extent / 2)
    return geometry(size, (spacing, spacing, thick), origin=(x, y, z), axes=axes)


@settings(deadline=None, max_examples=40)
@given(
    st.floats(3.0, 7.0),
    st.floats(0.4, 1.3),
    st.floats(0.6, 2.6),
    st.floats(0, 40),
    st.tuples(*[st.floats(-1, 1)] * 3),
)
def test_a_mask_on_another_grid_keeps_volume_and_centre(
    radius: float, spacing: float, thick: float, turn: float, shift: tuple[float, float, float]
) -> None:
    centre = middle(CT) + np.array(shift)
    grid = around(centre, spacing, thick, turn)
    mask = ball(grid, centre, radius)
    block, findings = place_on(mask, grid, CT)
    assert [f.code for f in findings] == ["mask-resampled"]
    there = mask.sum() * grid.voxel_volume_mm3
    here = block.array.sum() * CT.voxel_volume_mm3
    assert here == pytest.approx(there, rel=0.02, abs=3 * CT.voxel_volume_mm3)
    index = np.argwhere(block.array)[:, ::-1] + np.array(block.start)
    found = CT.index_to_world(index.astype(float)).mean(axis=0)
    points = grid.index_to_world(np.argwhere(mask)[:, ::-1].astype(float)).mean(axis=0)
    assert np.linalg.norm(found - points) < 0.5


def test_a_block_is_the_mask_on_the_whole_grid_and_in_the_patient() -> None:
    mask = ball(CT, middle(CT), 5.0)
    block, findings = place_on(mask, CT, CT)
    assert findings == ()
    np.testing.assert_array_equal(block.full(CT), mask)
    volume = block.volume(CT)
    corner = volume.geometry.index_to_world(np.zeros(3))
    np.testing.assert_allclose(CT.world_to_index(corner), block.start, atol=1e-9)


def test_a_mask_shifted_by_part_of_a_voxel_is_resampled_and_told() -> None:
    x, y, z = CT.index_to_world(np.array([0.3, 0.0, 0.0]))
    shifted = Geometry(CT.size, CT.spacing_mm, (x, y, z), CT.direction)
    mask = ball(CT, middle(CT), 5.0)
    block, findings = place_on(mask, shifted, CT)
    assert [f.code for f in findings] == ["mask-resampled"]
    assert block.array.sum() == pytest.approx(mask.sum(), rel=0.01)


def test_a_mask_too_small_for_the_grid_of_the_image_is_refused() -> None:
    x, y, z = (float(v) for v in middle(CT) - 12)
    fine = geometry((60, 60, 60), (0.4, 0.4, 0.4), origin=(x, y, z))
    mask = np.zeros((60, 60, 60), dtype=np.uint8)
    mask[30, 30, 30] = 1
    with pytest.raises(SiteDataError, match="vanishes") as caught:
        place_on(mask, fine, CT)
    assert caught.value.code == "mask-empty"


@pytest.mark.parametrize(
    ("spacing", "axes"),
    [
        ((0.7, 0.8, 1.25), np.array([[1.0, 0.2, 0], [0, 1, 0], [0, 0, 1]])),
        ((0.7, -0.8, 1.25), np.eye(3)),
        ((0.7, float("nan"), 1.25), np.eye(3)),
    ],
    ids=["skewed", "negative", "not a number"],
)
def test_grids_whose_volume_can_not_be_told_are_refused(
    spacing: tuple[float, float, float], axes: np.ndarray
) -> None:
    grid = geometry(CT.size, spacing, origin=CT.origin_mm, axes=axes)
    with pytest.raises(GeometryError, match="right angles"):
        place_on(np.ones(CT.size[::-1], dtype=np.uint8), grid, CT)
