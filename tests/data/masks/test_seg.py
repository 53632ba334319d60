from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nognet.config import PreparationConfig
from nognet.data.ct.image import read_ct_with_findings
from nognet.data.masks.inspect import examine_mask, referenced_series
from nognet.data.masks.nodules import read_nodules
from nognet.data.masks.reading import MaskSource, read_mask_with_findings
from nognet.errors import NognetError
from nognet.types import Geometry
from tests.builders.ct_files import (
    WrittenSeries,
    ball,
    edit,
    geometry,
    middle,
    rotation,
    write_seg,
    write_series,
)
from tests.builders.mask_files import SegFrame, write_raw_seg

LIMITS = PreparationConfig()
GRIDS = {
    "axial": geometry((21, 19, 11), (0.7, 0.8, 1.5), origin=(-30.0, 12.0, -200.0)),
    "oblique": geometry((21, 19, 11), (0.7, 0.8, 1.5), axes=rotation((25, -15, 40))),
    "flipped": geometry((21, 19, 11), (0.7, 0.8, 1.5), axes=np.diag([-1.0, 1.0, -1.0])),
}
AXIAL = GRIDS["axial"]


def nodule(grid: Geometry = AXIAL) -> np.ndarray:
    return ball(grid, middle(grid) + np.array([0.4, -0.3, 0.2]), 4.0)


def as_frames(mask: np.ndarray, segment: int = 1, step: int = 1) -> list[SegFrame]:
    filled = np.flatnonzero(mask.any(axis=(1, 2)))[::step]
    return [SegFrame(mask[k], int(k), segment) for k in filled]


def source_of(grid: Geometry) -> MaskSource:
    return MaskSource(grid)


def read(path: Path, grid: Geometry = AXIAL, segment: str | None = None) -> np.ndarray:
    return read_mask_with_findings(path, source_of(grid), segment).mask


def code_of(path: Path, source: MaskSource, segment: str | None = None) -> str:
    with pytest.raises(NognetError) as caught:
        read_nodules(path, source, segment, limits=LIMITS)
    return caught.value.code


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1), "shuffled"])
@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_only_filled_frames_in_any_order_make_the_mask(
    tmp_path: Path, grid: Geometry, order: Any, kind: str
) -> None:
    """399 pixels a frame: bits of one frame end in the middle of a byte."""
    mask = nodule(grid)
    frames = as_frames(mask)
    if order == "shuffled":
        frames = [frames[i] for i in np.random.default_rng(3).permutation(len(frames))]
    else:
        frames = frames[order]
    if kind == "FRACTIONAL":
        frames = [SegFrame(f.values * 255, f.slice_index) for f in frames]
    path = write_raw_seg(tmp_path / "seg.dcm", frames, grid, kind=kind)
    np.testing.assert_array_equal(read(path, grid), mask)


@pytest.mark.parametrize("kind", ["PROBABILITY", "OCCUPANCY"])
@pytest.mark.parametrize("full", [255, 100])
def test_fractions_count_from_one_half_of_the_declared_maximum(
    tmp_path: Path, kind: str, full: int
) -> None:
    mask = nodule()
    levels = np.where(mask, full, 0).astype(np.uint8)
    levels[5, 9, 9], levels[5, 9, 10] = (full - 1) // 2, (full + 1) // 2
    path = write_raw_seg(
        tmp_path / "seg.dcm",
        as_frames(levels),
        AXIAL,
        kind="FRACTIONAL",
        MaximumFractionalValue=full,
        SegmentationFractionalType=kind,
    )
    wanted = mask.copy()
    wanted[5, 9, 9], wanted[5, 9, 10] = 0, 1
    np.testing.assert_array_equal(read(path), wanted)


def test_a_label_map_is_read_by_label_number_and_name(tmp_path: Path) -> None:
    labels = nodule() * 2
    labels[3, 2:6, 2:6] = 7
    frames = as_frames(labels)
    names = {0: "Background", 2: "nodule", 7: "other"}
    path = write_raw_seg(tmp_path / "s", frames, AXIAL, kind="LABELMAP", labels=names)
    for segment in ("2", "nodule"):
        np.testing.assert_array_equal(read(path, segment=segment), labels == 2)
    found = read_nodules(path, source_of(AXIAL), None, limits=LIMITS)
    assert [n.label for n in found.nodules] == ["nodule", "other"]
    assert [f.code for f in found.findings] == ["mask-segment"]


def test_overlapping_segments_become_nodules_of_their_own(tmp_path: Path) -> None:
    first, second = nodule(), ball(AXIAL, middle(AXIAL) + np.array([2.0, 0, 0]), 3.0)
    frames = [*as_frames(first, 1), *as_frames(second, 2)]
    path = write_raw_seg(tmp_path / "s", frames, AXIAL, labels={1: "same", 2: "same"})
    found = read_nodules(path, source_of(AXIAL), None, limits=LIMITS)
    assert [n.label for n in found.nodules] == ["same (1)", "same (2)"]
    assert [int(n.mask.array.sum()) for n in found.nodules] == [first.sum(), second.sum()]
    assert code_of(path, source_of(AXIAL), "same") == "mask-segment"


def test_segments_without_frames_are_left_out_and_told(tmp_path: Path) -> None:
    path = write_raw_seg(
        tmp_path / "s", as_frames(nodule()), AXIAL, labels={1: "here", 2: "nothing"}
    )
    found = read_nodules(path, source_of(AXIAL), None, limits=LIMITS)
    assert [n.label for n in found.nodules] == [""]
    assert [(f.code, f.severity) for f in found.findings] == [("mask-empty", "warning")]
    assert code_of(path, source_of(AXIAL), "nothing") == "mask-empty"


def test_frames_on_every_other_slice_are_refused_whether_their_distance_is_told_or_not(
    tmp_path: Path,
) -> None:
    frames = as_frames(nodule(), step=2)
    untold = write_raw_seg(tmp_path / "a", frames, AXIAL, spacing_between_slices=None)
    told = write_raw_seg(tmp_path / "b", frames, AXIAL)
    for path in (untold, told):
        assert code_of(path, source_of(AXIAL)) == "mask-incomplete"
        assert "mask-incomplete" in examine_mask(path, [source_of(AXIAL)]).codes


def test_frames_on_their_own_coarser_grid_keep_the_volume(tmp_path: Path) -> None:
    coarse = geometry((40, 40, 12), (0.9, 0.9, 2.0), origin=(-35.0, 8.0, -203.0))
    mask = ball(coarse, middle(AXIAL), 5.0)
    path = write_raw_seg(tmp_path / "s", as_frames(mask), coarse)
    reading = read_mask_with_findings(path, source_of(AXIAL))
    assert [f.code for f in reading.findings] == ["mask-resampled"]
    there = mask.sum() * coarse.voxel_volume_mm3
    assert reading.mask.sum() * AXIAL.voxel_volume_mm3 == pytest.approx(there, rel=0.03)


@pytest.mark.parametrize("far_slices", [10_000_000, 500_000_000])
def test_frames_far_apart_are_refused_before_anything_is_built(
    tmp_path: Path, far_slices: int
) -> None:
    mask = nodule()
    frames = [*as_frames(mask), SegFrame(mask[5], far_slices)]
    path = write_raw_seg(tmp_path / "s", frames, AXIAL)
    assert code_of(path, source_of(AXIAL)) == "too-large"


def test_a_header_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    path = write_raw_seg(tmp_path / "s", as_frames(nodule()), AXIAL, Rows=60_000, Columns=60_000)
    assert code_of(path, source_of(AXIAL)) == "too-large"
    assert examine_mask(path, []).codes == ("too-large",)


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ({"SegmentSequence": None}, "truncated"),
        ({"PerFrameFunctionalGroupsSequence": []}, "mask-geometry"),
        ({"SharedFunctionalGroupsSequence": None}, "mask-geometry"),
        ({"PixelData": b"\1\2"}, "truncated"),
        ({"PixelData": None}, "no-pixels"),
        ({"SegmentationType": "NONSENSE"}, "mask-geometry"),
        ({"NumberOfFrames": 40}, "truncated"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, tags: dict[str, Any], code: str) -> None:
    path = write_raw_seg(tmp_path / "s", as_frames(nodule()), AXIAL, **tags)
    assert code_of(path, source_of(AXIAL)) == code
    row = examine_mask(path, [source_of(AXIAL)])
    assert row.status == "refused"
    assert code in row.codes


def test_two_frames_of_one_segment_at_one_place_are_refused(tmp_path: Path) -> None:
    frames = as_frames(nodule())
    path = write_raw_seg(tmp_path / "s", [*frames, frames[0]], AXIAL)
    assert code_of(path, source_of(AXIAL)) == "mask-geometry"


def study(folder: Path) -> tuple[WrittenSeries, MaskSource]:
    series = write_series(folder, np.where(nodule(), 30, -850), AXIAL)
    return series, MaskSource.of(read_ct_with_findings(folder))


def test_a_seg_of_another_series_counts_where_the_frame_of_reference_is_shared(
    tmp_path: Path,
) -> None:
    series, _ = study(tmp_path / "a")
    _, other = study(tmp_path / "b")
    path = write_seg(tmp_path / "seg.dcm", {"nodule": nodule()}, series)
    assert referenced_series(path) == (series.series_uid,)
    assert code_of(path, other) == "mask-other-series"
    shared = MaskSource(other.grid, other.series_uid, series.frame_of_reference)
    found = read_nodules(path, shared, None, limits=LIMITS)
    assert [(f.code, f.severity) for f in found.findings] == [("mask-other-series", "warning")]


def test_a_seg_that_names_no_series_is_told_by_its_frame_of_reference(tmp_path: Path) -> None:
    series, source = study(tmp_path / "ct")
    path = write_raw_seg(tmp_path / "s", as_frames(nodule()), AXIAL, series=series)
    edit(path, ReferencedSeriesSequence=None)
    assert referenced_series(path) == ()
    assert read_nodules(path, source, None, limits=LIMITS).findings == ()
    stranger = MaskSource(source.grid, source.series_uid, "1.2.3")
    assert code_of(path, stranger) == "mask-other-series"


def rows(sources: Sequence[MaskSource], path: Path) -> tuple[str, tuple[str, ...]]:
    row = examine_mask(path, sources)
    return row.status, row.codes


def test_the_row_of_a_seg_tells_its_grid_and_what_it_was_drawn_on(tmp_path: Path) -> None:
    series, source = study(tmp_path / "ct")
    path = write_seg(tmp_path / "seg.dcm", {"nodule": nodule()}, series)
    row = examine_mask(path, [MaskSource(AXIAL, "1.2"), source])
    assert (row.status, row.kind, row.modality, row.orientation) == ("ok", "mask", "SEG", "axial")
    depth = int(nodule().any(axis=(1, 2)).sum())
    assert (row.size, row.slices) == ((21, 19, depth), depth)
    assert row.spacing_mm == pytest.approx(AXIAL.spacing_mm)
    assert row.series_uid
    assert rows([], path) == ("warning", ("mask-other-series",))
    assert rows([MaskSource(AXIAL, "1.2", "3.4")], path) == ("warning", ("mask-other-series",))
