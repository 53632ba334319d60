"""Damage done to mask files: a refusal with a code, or the right mask; never a traceback."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from nognet.config import PreparationConfig
from nognet.data.masks.inspect import examine_mask, referenced_series
from nognet.data.masks.nodules import read_nodules
from nognet.data.masks.source import MaskSource
from nognet.errors import NognetError
from tests.builders.ct_files import (
    WrittenSeries,
    ball,
    geometry,
    middle,
    outline,
    write_image,
    write_rtstruct,
)
from tests.builders.mask_files import SegFrame, write_raw_seg

GRID = geometry((21, 19, 11), (0.7, 0.8, 1.5), origin=(-30.0, 12.0, -200.0))
MASK = ball(GRID, middle(GRID), 4.0)
SERIES = WrittenSeries(Path(), (), "1.2.3", "1.2.4")
SOURCE = MaskSource(GRID, "1.2.3", "1.2.4")
LIMITS = PreparationConfig(max_volume_voxels=2_000_000)
GARBAGE = ["", "x", "-1", "0", "1", "7", "nan", "1e300", "inf", "99999", "\\", "1\\2\\3"]


def rtstruct(folder: Path) -> Path:
    filled = np.flatnonzero(MASK.any(axis=(1, 2)))
    contours = [c for k in filled for c in outline(MASK[k], GRID, int(k))]
    return write_rtstruct(folder / "rt.dcm", {"nodule": contours}, SERIES)


def seg(folder: Path, kind: str) -> Path:
    filled = np.flatnonzero(MASK.any(axis=(1, 2)))
    scale = 255 if kind == "FRACTIONAL" else 1
    frames = [SegFrame(MASK[k] * scale, int(k)) for k in filled]
    return write_raw_seg(folder / "seg.dcm", frames, GRID, kind=kind, series=SERIES)


WRITERS: dict[str, Callable[[Path], Path]] = {
    "RTSTRUCT": rtstruct,
    "BINARY": lambda folder: seg(folder, "BINARY"),
    "FRACTIONAL": lambda folder: seg(folder, "FRACTIONAL"),
    "LABELMAP": lambda folder: seg(folder, "LABELMAP"),
    "nii": lambda folder: write_image(folder / "m.nii", MASK, GRID),
    "nii.gz": lambda folder: write_image(folder / "m.nii.gz", MASK, GRID),
    "nrrd": lambda folder: write_image(folder / "m.nrrd", MASK, GRID),
    "mha": lambda folder: write_image(folder / "m.mha", MASK, GRID),
}
CONTENTS = ("PixelData", "ContourData", "ImagePositionPatient")
"""Tags whose every value may be meant: another value is another mask."""


def outcome(path: Path) -> np.ndarray | None:
    """Read a file in every way; the mask's voxels, or None where it was refused or warned of."""
    row = examine_mask(path, [SOURCE], limits=LIMITS)
    referenced_series(path)
    try:
        found = read_nodules(path, SOURCE, None, limits=LIMITS)
    except NognetError:
        assert row.status == "refused" or "mask-other-series" in row.codes, row
        return None
    assert row.status != "refused", row
    whole = np.zeros(GRID.size[::-1], dtype=np.uint8)
    for nodule in found.nodules:
        assert nodule.mask.array.any()
        points = np.argwhere(nodule.mask.array)[:, ::-1].astype(float)
        index = GRID.world_to_index(nodule.mask.geometry.index_to_world(points))
        x, y, z = np.round(index).astype(int).T
        assert (np.array([x, y, z]).min(axis=1) >= 0).all()
        whole[z, y, x] = 1
    return whole if not found.findings else None


def datasets(data: Dataset) -> Iterator[Dataset]:
    yield data
    for element in data:
        if element.VR == "SQ":
            for item in element.value or []:
                yield from datasets(item)


@pytest.mark.parametrize("kind", list(WRITERS)[:4])
@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32 - 1), how=st.sampled_from(["delete", "empty", *GARBAGE]))
def test_a_tag_that_is_gone_or_nonsense_never_gives_another_mask(
    tmp_path_factory: pytest.TempPathFactory, kind: str, seed: int, how: str
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    path = WRITERS[kind](folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = pydicom.dcmread(path)
        rng = random.Random(seed)  # noqa: S311  a choice of tags
        places = [(d, e) for d in datasets(data) for e in d if e.keyword not in ("", *CONTENTS)]
        item, element = rng.choice(places)
        name = element.keyword
        try:
            if how == "delete":
                delattr(item, name)
            elif how == "empty":
                element.value = None if element.VR != "SQ" else []
            elif element.VR in ("US", "SS", "UL"):
                element.value = int(how) % 65536 if how.lstrip("-").isdigit() else 0
            elif element.VR != "SQ":
                element.value = how.split("\\") if "\\" in how else how
            data.save_as(path)
        except (ValueError, TypeError, AttributeError, OverflowError, KeyError):
            return  # pydicom can't write it
    found = outcome(path)
    meant = {"PixelSpacing", "ImageOrientationPatient", "SpacingBetweenSlices"}
    if found is not None and name not in meant:
        np.testing.assert_array_equal(found, MASK, err_msg=f"{name} {how}")


@pytest.mark.parametrize("kind", list(WRITERS))
@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32 - 1), n_bytes=st.sampled_from([1, 4, 40]), cut=st.booleans())
def test_flipped_bytes_and_cut_files_are_refused_or_lie_on_the_image(
    tmp_path_factory: pytest.TempPathFactory, kind: str, seed: int, n_bytes: int, cut: bool
) -> None:
    path = WRITERS[kind](tmp_path_factory.mktemp("fuzz"))
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    head = min(len(content), 600 if rng.random() < 0.5 else len(content))  # headers twice as often
    for place in rng.integers(0, head, n_bytes):
        content[place] = rng.integers(0, 256)
    if cut:
        del content[int(rng.integers(0, len(content))) :]
    path.write_bytes(bytes(content))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outcome(path)


@pytest.mark.parametrize("kind", list(WRITERS))
def test_a_file_cut_short_never_gives_a_part_of_the_mask(tmp_path: Path, kind: str) -> None:
    path = WRITERS[kind](tmp_path)
    whole = path.read_bytes()
    for part in (0.3, 0.6, 0.9, 0.99):
        path.write_bytes(whole[: int(len(whole) * part)])
        found = outcome(path)
        if found is not None:
            np.testing.assert_array_equal(found, MASK)
    path.write_bytes(whole)
    np.testing.assert_array_equal(outcome(path), MASK)
