from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nognet.data.masks.grey import greyness

SHAPE = (30, 32, 34)


def sphere(centre: tuple[float, float, float], radius: float) -> np.ndarray:
    z, y, x = np.indices(SHAPE)
    away = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2
    return away <= radius**2


def resampled(mask: np.ndarray, shift: tuple[float, float, float], scale: float) -> np.ndarray:
    image = sitk.GetImageFromArray(mask.astype(np.float32) * 255)
    size = [int(n * scale) for n in image.GetSize()]
    found = sitk.Resample(image, size, sitk.Transform(), sitk.sitkLinear, shift, [1 / scale] * 3)
    return np.round(sitk.GetArrayFromImage(found)).astype(np.uint8)


shifts = st.tuples(*[st.floats(0.1, 0.5)] * 3)


@settings(deadline=None, max_examples=40)
@given(st.floats(2.0, 11.0), shifts, st.sampled_from([0.7, 1.0, 2.0]))
def test_an_interpolated_mask_is_grey(
    radius: float, shift: tuple[float, float, float], scale: float
) -> None:
    assert greyness(resampled(sphere((15, 16, 17), radius), shift, scale))


@pytest.mark.parametrize("sigma", [0.6, 1.0, 2.0])
@pytest.mark.parametrize("radius", [3.0, 6.0, 10.0])
def test_a_smoothed_mask_is_grey(sigma: float, radius: float) -> None:
    smooth = ndimage.gaussian_filter(sphere((15, 16, 17), radius) * 255.0, sigma)
    assert greyness(np.round(smooth).astype(np.int16))


def test_a_mask_shifted_by_half_a_voxel_along_one_axis_is_grey() -> None:
    """Only two values, 128 and 255, and sharp edges along the other axes."""
    found = resampled(sphere((15, 16, 17), 7.0), (0.5, 0.0, 0.0), 1.0)
    assert len(np.unique(found)) == 3
    assert greyness(found)


def test_votes_of_four_readers_are_grey() -> None:
    centres = [(15 + 0.4 * i, 16 - 0.3 * i, 17) for i in range(4)]
    votes = sum(sphere(c, 5 + 0.4 * i).astype(np.uint8) for i, c in enumerate(centres))
    assert greyness(np.asarray(votes))


@pytest.mark.parametrize(
    "values",
    [
        sphere((15, 16, 17), 5) * np.float32(0.5) + sphere((15, 16, 17), 3) * np.float32(0.5),
        np.where(sphere((15, 16, 17), 5), 40, -1024),
        np.where(sphere((15, 16, 17), 5), 1, 0) + np.where(sphere((9, 9, 9), 2), np.nan, 0),
        np.random.default_rng(1).integers(0, 255, SHAPE),
    ],
    ids=["fractions", "negative", "not finite", "noise"],
)
def test_what_was_never_a_mask_is_grey(values: np.ndarray) -> None:
    assert greyness(values)


@pytest.mark.parametrize("peak", [1, 255, 1.0, 0.5, 137])
def test_a_binary_mask_is_not_grey_whatever_its_value(peak: float) -> None:
    assert not greyness(sphere((15, 16, 17), 5) * peak)
    assert not greyness(np.zeros(SHAPE))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(st.floats(4, 26), st.floats(4, 28), st.floats(4, 30), st.floats(2.5, 7)),
        min_size=2,
        max_size=6,
    ),
    st.lists(st.integers(1, 999), min_size=6, max_size=6, unique=True),
)
def test_labels_of_nodules_side_by_side_or_touching_are_not_grey(
    balls: list[tuple[float, float, float, float]], numbers: list[int]
) -> None:
    """Each voxel goes to the nearest centre, as organs share a border; none is a thin shell."""
    z, y, x = np.indices(SHAPE)
    away = np.stack(
        [np.sqrt((z - a) ** 2 + (y - b) ** 2 + (x - c) ** 2) - r for a, b, c, r in balls]
    )
    labels = np.where(away.min(axis=0) <= 0, np.array(numbers)[away.argmin(axis=0)], 0)
    sizes = np.unique(labels[labels > 0], return_counts=True)[1]
    if sizes.size > 1 and sizes.min() >= 60:
        assert not greyness(labels)


def test_a_solid_core_in_a_thick_shell_is_a_map_of_labels() -> None:
    shell, core = sphere((15, 16, 17), 9), sphere((15, 16, 17), 5)
    assert not greyness(shell.astype(np.uint8) + core)


def test_whole_numbers_stored_as_floats_are_labels() -> None:
    labels = sphere((9, 9, 9), 4) * 3.0 + sphere((20, 20, 20), 4) * 7.0
    assert not greyness(labels.astype(np.float32))
