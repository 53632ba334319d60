"""Exports with one fault each, and what `nognet inspect` has to say of them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import generate_uid

from tests.builders.ct_files import (
    WrittenSeries,
    ball,
    edit,
    geometry,
    middle,
    outline,
    rotation,
    write_image,
    write_rtstruct,
    write_seg,
    write_series,
)

GRID = geometry((16, 14, 8), (0.8, 0.7, 2.0), origin=(-5.0, 20.0, -300.0))
MASK = ball(GRID, middle(GRID), 3.5)
SC_CLASS = "1.2.840.10008.5.1.4.1.1.7"

Expected = dict[str, tuple[str, str, set[str]]]
"""Path below the folder -> (kind, status, codes)."""


def hu(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 400, GRID.size[::-1])


def series(folder: Path, **tags: object) -> WrittenSeries:
    """A series without fault, in a folder of its own."""
    return write_series(folder / "ct", hu(), GRID, **tags)


def place(written: WrittenSeries, offsets_mm: np.ndarray) -> None:
    """Move each slice by ``(N, 3)``."""
    for k, (file, offset) in enumerate(zip(written.files, offsets_mm, strict=True)):
        position = GRID.index_to_world(np.array([0.0, 0.0, float(k)])) + offset
        edit(file, ImagePositionPatient=[f"{v:.6f}" for v in position])


def along_z(steps: object) -> np.ndarray:
    return np.array([[0.0, 0.0, z] for z in np.asarray(steps, dtype=float)])


@dataclass(frozen=True)
class Case:
    """One export."""

    name: str
    build: Callable[[Path], None]
    expected: Expected


def sheared(folder: Path) -> None:
    rise = 2.0 * np.arange(8)
    place(series(folder), np.stack([0 * rise, np.tan(np.radians(14)) * rise, 0 * rise], axis=1))


def sheared_unevenly(folder: Path) -> None:
    rise = np.array([0, 2, 4, 6, 9, 12, 15, 18.0])
    shift = np.tan(np.radians(20)) * rise
    place(series(folder), np.stack([0 * rise, shift, rise - 2.0 * np.arange(8)], axis=1))


def missing_slice(folder: Path) -> None:
    series(folder).files[4].unlink()


def same_position(folder: Path) -> None:
    place(series(folder), along_z(-2.0 * np.arange(8)))


def scattered(folder: Path) -> None:
    place(series(folder), np.random.default_rng(1).normal(0, 3, (8, 3)))


def contradicting_spacing(folder: Path) -> None:
    series(folder, SpacingBetweenSlices="5.0")


def mixed_export(folder: Path) -> None:
    """Localizer, screen capture and dose page share the UID of the slices."""
    written = series(folder)
    for name, tags in {
        "scout": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
        "dose": {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB",
                 "PlanarConfiguration": 0, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7},
        "capture": {"SOPClassUID": SC_CLASS, "ImagePositionPatient": None},
    }.items():  # fmt: skip
        (folder / name).write_bytes(written.files[0].read_bytes())
        edit(folder / name, SOPInstanceUID=generate_uid(), **tags)


def mixed_series(folder: Path) -> None:
    """As above, but all in one folder: whoever reads that folder is told of what is left out."""
    mixed_export(folder)
    (folder / "scout").rename(folder / "ct" / "scout")
    (folder / "dose").rename(folder / "ct" / "dose")
    (folder / "capture").unlink()


def copy_that_broke_off(folder: Path) -> None:
    (series(folder).folder / "008").write_bytes(b"")


def empty_uids(folder: Path) -> None:
    for file in series(folder).files:
        edit(file, SOPInstanceUID="", SOPClassUID="")


def duplicates(folder: Path) -> None:
    written = series(folder)
    copy = folder / "ct" / "again"
    copy.write_bytes(written.files[2].read_bytes())
    edit(copy, SOPInstanceUID=generate_uid())


def eight_bit(folder: Path) -> None:
    for file in series(folder).files:
        data = pydicom.dcmread(file)
        data.BitsAllocated = data.BitsStored = 8
        data.HighBit, data.PixelRepresentation = 7, 0
        data.PixelData = bytes(16 * 14)
        data.save_as(file)


def lossy(folder: Path) -> None:
    series(folder, LossyImageCompression="01")


def _with_corner(folder: Path, stored: int, **tags: object) -> None:
    for file in series(folder).files:
        data = pydicom.dcmread(file)
        words = np.frombuffer(data.PixelData, dtype="<u2").copy()
        words[:5] = stored & 0xFFFF
        data.PixelData = words.tobytes()
        for tag, value in tags.items():
            setattr(data, tag, value)
        data.save_as(file)


def padded(folder: Path) -> None:
    _with_corner(folder, -1024)  # -2048 HU


def padded_unsigned(folder: Path) -> None:
    _with_corner(folder, 63536, PixelRepresentation=0)


def missing_tags(folder: Path) -> None:
    for file in series(folder).files:
        edit(file, Modality=None, InstanceNumber=None, FrameOfReferenceUID=None)


def contours() -> list[np.ndarray]:
    drawn = [k for k in range(8) if MASK[k].any()]
    return [points for k in drawn for points in outline(MASK[k], GRID, k)]


def contours_without_slice(folder: Path) -> None:
    written = series(folder)
    write_rtstruct(folder / "rt", {"nodule": contours()}, written)
    for file in written.files[4:]:
        file.unlink()


def contours_of_another_series(folder: Path) -> None:
    written = series(folder)
    other = WrittenSeries(written.folder, written.files, generate_uid(), generate_uid())
    write_rtstruct(folder / "rt", {"nodule": contours()}, other)


def masks_that_fit(folder: Path) -> None:
    written = series(folder)
    write_rtstruct(folder / "rt", {"nodule": contours()}, written)
    write_seg(folder / "seg", {"nodule": MASK}, written)
    write_image(folder / "mask.nii.gz", MASK, GRID)
    flipped = geometry(
        GRID.size, GRID.spacing_mm, origin=tuple(GRID.index_to_world(np.array([15.0, 13, 0]))),
        axes=np.diag([-1.0, -1.0, 1.0]),
    )  # fmt: skip
    write_image(folder / "flipped.nrrd", MASK[:, ::-1, ::-1], flipped)


def mask_of_two_segments(folder: Path) -> None:
    written = series(folder)
    smaller = ball(GRID, middle(GRID), 2.6)
    write_seg(folder / "seg", {"whole": MASK, "solid": smaller}, written)


def mask_without_header(folder: Path) -> None:
    series(folder)
    write_image(folder / "mask.mha", MASK, geometry(GRID.size, (1.0, 1.0, 1.0)))


def grey_mask(folder: Path) -> None:
    series(folder)
    away = np.linalg.norm(np.argwhere(np.ones(MASK.shape)) - [4, 7, 8], axis=1)
    grey = np.clip(255 - 60 * away, 0, 255).reshape(MASK.shape)
    write_image(folder / "mask.nrrd", grey.astype(np.uint8), GRID)


def empty_mask(folder: Path) -> None:
    series(folder)
    write_image(folder / "mask.nrrd", np.zeros_like(MASK), GRID)


def lonely_mask(folder: Path) -> None:
    written = series(folder)
    write_seg(folder / "seg", {"nodule": MASK}, written)
    for file in written.files:
        file.unlink()


def two_kernels(folder: Path) -> None:
    written = series(folder)
    sharp = write_series(folder / "other", hu(), GRID, ConvolutionKernel="B70f")
    for file in sharp.files:
        edit(file, SeriesInstanceUID=written.series_uid,
             StudyInstanceUID=pydicom.dcmread(written.files[0]).StudyInstanceUID,
             FrameOfReferenceUID=written.frame_of_reference)  # fmt: skip


def thick(folder: Path) -> None:
    wide = geometry((16, 14, 8), (0.8, 0.7, 8.0))
    write_series(folder / "ct", hu(), wide)


def magnetic_resonance(folder: Path) -> None:
    series(folder, Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4")


def without_pixels(folder: Path) -> None:
    for file in series(folder).files:
        edit(file, PixelData=None)


def cut_in_the_pixels(folder: Path) -> None:
    file = series(folder).files[3]
    file.write_bytes(file.read_bytes()[:-40])


def cut_in_the_header(folder: Path) -> None:
    file = series(folder).files[7]
    file.write_bytes(file.read_bytes()[:300])


def other_files(folder: Path) -> None:
    series(folder)
    (folder / "notes.txt").write_text("seen by me")
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(200)))
    (folder / "empty").write_bytes(b"")


def jitter(folder: Path) -> None:
    place(series(folder), along_z(0.0007 * np.random.default_rng(2).uniform(-1, 1, 8)))


def oblique(folder: Path) -> None:
    turned = geometry((16, 14, 8), (3.5, 2.5, 2.0), axes=rotation((20.0, 5.0, 0.0)))
    write_series(folder / "ct", hu(), turned)


def coronal(folder: Path) -> None:
    turned = geometry((16, 14, 8), (0.8, 0.7, 2.0), axes=rotation((90.0, 0.0, 0.0)))
    write_series(folder / "ct", hu(), turned)


def mixed_orientation(folder: Path) -> None:
    edit(series(folder).files[2], ImageOrientationPatient=["1", "0", "0", "0", "0.98", "0.199"])


def mixed_matrix(folder: Path) -> None:
    edit(series(folder).files[2], PixelSpacing=["0.9", "0.9"])


def no_volume(folder: Path) -> None:
    for file in series(folder).files[1:]:
        file.unlink()


def zipped(folder: Path) -> None:
    written = series(folder)
    write_seg(folder / "seg", {"nodule": MASK}, written)
    with zipfile.ZipFile(folder / "export.zip", "w") as archive:
        for number, file in enumerate(written.files):
            archive.write(file, f"study/CT/IM{number}")
        archive.write(folder / "seg", "study/SEG/1")
        archive.writestr("study/readme.txt", "exported")
    for file in (*written.files, folder / "seg"):
        file.unlink()
    written.folder.rmdir()


def unsafe_zip(folder: Path) -> None:
    with zipfile.ZipFile(folder / "export.zip", "w") as archive:
        archive.writestr("../../outside", "x")


def bomb(folder: Path) -> None:
    with zipfile.ZipFile(folder / "export.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(3_000_000))


def huge_image(folder: Path) -> None:
    (folder / "ct.mha").write_bytes(
        b"ObjectType = Image\nNDims = 3\nBinaryData = True\nDimSize = 60000 60000 60000\n"
        b"ElementSpacing = 1 1 1\nElementType = MET_SHORT\nElementDataFile = LOCAL\n" + bytes(99)
    )


def ct(status: str, *codes: str) -> tuple[str, str, set[str]]:
    return "ct", status, set(codes)


def mask(status: str, *codes: str) -> tuple[str, str, set[str]]:
    return "mask", status, set(codes)


def aside(kind: str, *codes: str) -> tuple[str, str, set[str]]:
    return kind, "skipped", set(codes)


OK = ct("ok")
CASES = [
    Case("sheared", sheared, {"ct": ct("refused", "sheared")}),
    Case("sheared unevenly", sheared_unevenly,
         {"ct": ct("refused", "sheared", "irregular-spacing")}),
    Case("missing slice", missing_slice, {"ct": ct("refused", "missing-slice")}),
    Case("same position", same_position, {"ct": ct("refused", "same-position")}),
    Case("scattered", scattered, {"ct": ct("refused", "irregular-spacing", "sheared")}),
    Case("contradicting spacing", contradicting_spacing,
         {"ct": ct("warning", "irregular-spacing")}),
    Case("mixed export", mixed_export, {
        "ct": OK, "scout": aside("image", "localizer"), "dose": aside("image", "not-ct"),
        "capture": aside("image", "not-ct")}),
    Case("mixed series", mixed_series, {
        "ct": ct("warning", "localizer", "not-ct"), "ct/scout": aside("image", "localizer"),
        "ct/dose": aside("image", "not-ct")}),
    Case("copy that broke off", copy_that_broke_off, {
        "ct": ct("warning", "truncated"), "ct/008": aside("file", "not-dicom")}),
    Case("empty UIDs", empty_uids, {"ct": ct("warning", "empty-uids")}),
    Case("duplicates", duplicates, {"ct": ct("refused", "duplicate-position")}),
    Case("eight bit", eight_bit, {"ct": ct("refused", "eight-bit")}),
    Case("lossy", lossy, {"ct": ct("refused", "lossy")}),
    Case("padding", padded, {"ct": ct("warning", "padding")}),
    Case("unsigned padding", padded_unsigned, {"ct": ct("warning", "unsigned-padding")}),
    Case("missing tags", missing_tags, {"ct": ct("warning", "missing-tags")}),
    Case("contours without slice", contours_without_slice,
         {"ct": OK, "rt": mask("refused", "mask-incomplete")}),
    Case("contours of another series", contours_of_another_series,
         {"ct": OK, "rt": mask("refused", "mask-other-series")}),
    Case("masks that fit", masks_that_fit, {
        "ct": OK, "rt": mask("ok"), "seg": mask("ok"), "mask.nii.gz": mask("ok"),
        "flipped.nrrd": mask("ok")}),
    Case("two segments", mask_of_two_segments,
         {"ct": OK, "seg": mask("ok")}),
    Case("mask without header", mask_without_header,
         {"ct": OK, "mask.mha": mask("refused", "mask-geometry")}),
    Case("grey mask", grey_mask, {"ct": OK, "mask.nrrd": mask("refused", "mask-not-binary")}),
    Case("empty mask", empty_mask, {"ct": OK, "mask.nrrd": mask("refused", "mask-empty")}),
    Case("lonely mask", lonely_mask, {"seg": mask("warning", "mask-other-series")}),
    Case("two kernels", two_kernels, {"ct": OK, "other": OK}),
    Case("thick slices", thick, {"ct": ct("warning", "thick-slices")}),
    Case("MR", magnetic_resonance, {"ct": aside("image", "not-ct")}),
    Case("no pixels", without_pixels, {"ct": ct("refused", "no-pixels")}),
    Case("cut in the pixels", cut_in_the_pixels, {"ct": ct("refused", "truncated")}),
    Case("cut in the header", cut_in_the_header,
         {"ct": ct("refused", "truncated"), "ct/007": ("file", "refused", {"truncated"})}),
    Case("other files", other_files, {
        "ct": OK, "notes.txt": aside("file", "not-dicom"),
        "picture.png": aside("file", "not-dicom"), "empty": aside("file", "not-dicom")}),
    Case("jitter", jitter, {"ct": OK}),
    Case("oblique", oblique, {"ct": ct("warning", "oblique")}),
    Case("coronal", coronal, {"ct": ct("warning", "not-axial")}),
    Case("mixed orientation", mixed_orientation, {"ct": ct("refused", "mixed-orientation")}),
    Case("mixed matrix", mixed_matrix, {"ct": ct("refused", "mixed-matrix")}),
    Case("single slice", no_volume, {"ct/000": ct("refused", "single-slice")}),
    Case("zipped", zipped, {
        "export.zip!study/CT": OK, "export.zip!study/SEG/1": mask("ok"),
        "export.zip!study/readme.txt": aside("file", "not-dicom")}),
    Case("unsafe zip", unsafe_zip, {"export.zip": ("archive", "refused", {"zip-unsafe"})}),
    Case("bomb", bomb, {"export.zip": ("archive", "refused", {"too-large"})}),
    Case("huge image", huge_image, {"ct.mha": ("image", "refused", {"too-large"})}),
]  # fmt: skip
