"""Damaged headers: refused by an error of ours, or read exactly as they honestly say."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nognet.data.ct.image import CtReading, read_ct_with_findings
from nognet.errors import NognetError
from nognet.types import Volume
from tests.builders.ct_files import geometry, write_series
from tests.builders.dicom_bytes import Element, changed, put_together, take_apart

GRID = geometry((10, 8, 6), (0.8, 0.7, 2.0), origin=(-50.0, 20.0, -300.0))
PIXELS = 0x7FE00010
TAGS = {
    "SOPClassUID": 0x00080016, "SOPInstanceUID": 0x00080018, "Modality": 0x00080060,
    "ImageType": 0x00080008, "SliceThickness": 0x00180050, "SeriesInstanceUID": 0x0020000E,
    "StudyInstanceUID": 0x0020000D, "PatientID": 0x00100020, "Position": 0x00200032,
    "Orientation": 0x00200037, "FrameOfReference": 0x00200052, "Samples": 0x00280002,
    "Photometric": 0x00280004, "Rows": 0x00280010, "Columns": 0x00280011, "Spacing": 0x00280030,
    "Allocated": 0x00280100, "Stored": 0x00280101, "High": 0x00280102, "Sign": 0x00280103,
    "Intercept": 0x00281052, "Slope": 0x00281053, "Kernel": 0x00181210, "Pixels": PIXELS,
}  # fmt: skip
ABSENT = {0x00280008: b"IS", 0x00280120: b"US", 0x00280121: b"US", 0x00180088: b"DS",
          0x00282110: b"CS", 0x52009230: b"SQ", 0x60000102: b"US", 0x00091001: b"OB",
          0x00283000: b"SQ", 0x00181120: b"DS"}  # fmt: skip
"""Tags that may be there: NumberOfFrames, padding, functional groups, overlays, private ones."""
VRS = [b"DS", b"IS", b"US", b"SS", b"UI", b"LO", b"FD", b"FL", b"OB", b"OW", b"SQ", b"UN", b"AT",
       b"PN", b"DA", b"UL", b"XX", b"\xff\xff"]  # fmt: skip
ODD_VALUES = [
    b"", b" ", b"\0\0", b"NaN ", b"inf ", b"-inf", b"1e400 ", b"-1e9", b"0 ", b"-1", b"1 ", b"0\\0",
    b"1\\2\\3\\4\\5\\6\\7 ", b"0.12345678901234567", b"12345678901234567 ", b"abc ", b"1,5 ",
    b"\\\\\\ ", b"1\\ ", b"\xff\xff", b"\x00\x00", b"\x01\x00", b"\x0c\x00", b"\x08\x00",
    b"\xfe\xff\x00\xe0\xff\xff\xff\xff", b"\x30\xf8", b"2147483648", b"-0", b"0x10", b"1_0 ",
    b"CT\\MR ", b"\xe4\xf6", b"RGB ", b"0\\0\\0\\0\\0\\0 ", b"1\\0\\0\\1\\0\\0 ",
    b"1\\0\\0\\0\\-1\\0", b"-50\\20\\-300", b"LOCALIZER ",
]  # fmt: skip
LENGTHS = [0, 1, 3, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF]


def true_hu() -> np.ndarray:
    rng = np.random.default_rng(5)
    hu = rng.integers(-1000, -700, size=GRID.size[::-1])
    hu[:, 2:6, 3:7] = rng.integers(-50, 900, size=(6, 4, 4))
    return hu


class Original(dict[str, bytes]):
    """Files by name; a failing example shouldn't print them."""

    def __repr__(self) -> str:
        return f"<{len(self)} files>"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Original:
    folder = tmp_path_factory.mktemp("original")
    series = write_series(folder, true_hu(), GRID)
    return Original({file.name: file.read_bytes() for file in series.files})


mutations = st.one_of(
    st.tuples(st.just("value"), st.sampled_from([*TAGS.values()]), st.sampled_from(ODD_VALUES)),
    st.tuples(st.just("vr"), st.sampled_from([*TAGS.values()]), st.sampled_from(VRS)),
    st.tuples(st.just("length"), st.sampled_from([*TAGS.values()]), st.sampled_from(LENGTHS)),
    st.tuples(st.just("delete"), st.sampled_from([*TAGS.values()]), st.none()),
    st.tuples(st.just("twice"), st.sampled_from([*TAGS.values()]), st.sampled_from(ODD_VALUES)),
    st.tuples(st.just("add"), st.sampled_from([*ABSENT]), st.sampled_from(ODD_VALUES)),
    st.tuples(st.just("digit"), st.sampled_from([*TAGS.values()]), st.integers(0, 60)),
    st.tuples(st.just("shuffle"), st.just(0), st.integers(0, 10**6)),
)
damage = st.lists(
    st.tuples(st.one_of(st.just(None), st.integers(0, 5)), mutations), min_size=1, max_size=3
)


@settings(max_examples=120)
@given(damage=damage)
def test_damaged_tags_are_refused_or_read_as_they_say(
    tmp_path_factory: pytest.TempPathFactory,
    original: Original,
    damage: list[tuple[int | None, tuple[str, int, Any]]],
) -> None:
    folder = lay_out(tmp_path_factory, original)
    for which, mutation in damage:
        files = sorted(folder.iterdir()) if which is None else [sorted(folder.iterdir())[which]]
        for file in files:
            head, elements = take_apart(file)
            put_together(file, head, mutated(elements, mutation))
    assert_refused_or_honest(folder)


@settings(max_examples=120)
@given(
    which=st.one_of(st.none(), st.integers(0, 5)),
    edits=st.lists(st.tuples(st.floats(0, 0.9999), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.one_of(st.none(), st.floats(0, 1)),
)
def test_damaged_bytes_are_refused_or_read_as_they_say(
    tmp_path_factory: pytest.TempPathFactory,
    original: Original,
    which: int | None,
    edits: list[tuple[float, int]],
    cut: float | None,
) -> None:
    folder = lay_out(tmp_path_factory, original)
    files = sorted(folder.iterdir())
    for file in files if which is None else [files[which]]:
        raw = bytearray(file.read_bytes())
        end = raw.index(b"\xe0\x7f\x10\x00") + 12
        for place, byte in edits:
            raw[int(place * end)] = byte
        file.write_bytes(raw if cut is None else raw[: int(cut * len(raw))])
    assert_refused_or_honest(folder)


def test_a_header_cut_at_any_byte_never_loses_its_slice_unseen(
    tmp_path_factory: pytest.TempPathFactory, original: Original
) -> None:
    folder = lay_out(tmp_path_factory, original)
    file = min(folder.iterdir())
    raw = file.read_bytes()
    for end in range(1, raw.index(b"\xe0\x7f\x10\x00") + 12, 3):
        file.write_bytes(raw[:end])
        assert_refused_or_honest(folder)


def lay_out(factory: pytest.TempPathFactory, original: Original) -> Path:
    folder = factory.mktemp("fuzz")
    for name, content in original.items():
        (folder / name).write_bytes(content)
    return folder


def mutated(elements: list[Element], mutation: tuple[str, int, Any]) -> list[Element]:
    how, tag, what = mutation
    if how == "shuffle":
        order = np.random.default_rng(what).permutation(len(elements))
        return [elements[i] for i in order]
    if how == "delete":
        return [e for e in elements if e.tag != tag]
    if how == "add":
        added = Element(tag, ABSENT[tag], what)
        return sorted([*elements, added], key=lambda e: e.tag)
    if how == "twice":
        return [
            f for e in elements for f in ([e, Element(tag, e.vr, what)] if e.tag == tag else [e])
        ]
    if how == "digit":
        return [_other_digit(e, what) if e.tag == tag != PIXELS else e for e in elements]
    return changed(elements, tag, **{how: what})


def _other_digit(element: Element, at: int) -> Element:
    if not element.value:
        return element
    raw = bytearray(element.value)
    raw[at % len(raw)] ^= 1
    return Element(element.tag, element.vr, bytes(raw))


def assert_refused_or_honest(folder: Path) -> None:
    try:
        reading = read_ct_with_findings(folder)
    except NognetError:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_honest(reading, len(list(folder.iterdir())))


def assert_honest(reading: CtReading, n_files: int) -> None:
    """Every slice is where its file says, and holds what its file says (read by pydicom)."""
    if len(reading.files) != n_files:
        left = {"several-series", "not-ct", "localizer", "truncated"}
        assert left & {f.code for f in reading.findings}
    assert len(reading.files) >= 2
    truth = true_hu()
    for k, (file, plane) in enumerate(zip(reading.files, reading.volume.array, strict=True)):
        data = pydicom.dcmread(file)
        assert_place(reading.volume, k, data)
        if not np.array_equal(plane, truth[int(file.name)]):
            np.testing.assert_array_equal(plane, stated_hu(data, plane))


def assert_place(volume: Volume, k: int, data: pydicom.Dataset) -> None:
    there = volume.geometry.index_to_world(np.array([0.0, 0.0, float(k)]))
    said = np.array([float(v) for v in data.ImagePositionPatient])
    assert np.linalg.norm(there - said) <= 0.1
    spacing = [float(v) for v in data.PixelSpacing]
    np.testing.assert_allclose(volume.geometry.spacing_mm[:2], spacing[::-1], rtol=1e-3)


def stated_hu(data: pydicom.Dataset, plane: np.ndarray) -> np.ndarray:
    stored = data.pixel_array.astype(np.float64)
    hu = stored * float(data.get("RescaleSlope", 1)) + float(data.get("RescaleIntercept", 0))
    if "PixelPaddingValue" in data:  # whatever has its bits
        hu = np.where(plane == -1024, -1024, hu)
    return np.maximum(hu, -1024).astype(np.float32)
