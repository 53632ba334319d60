"""Headers of NIfTI, NRRD and MHA that ITK reads in one way and others in another."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from nognet.data.ct.image import read_ct_with_findings
from nognet.errors import SiteDataError

SIZE = (16, 12, 8)
META = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n{}"
    "DimSize = 16 12 8\nElementType = MET_SHORT\nElementDataFile = {}\n"
)
SPACED = "ElementSpacing = .7 .8 1.5\n"


def hu() -> np.ndarray:
    rng = np.random.default_rng(3)
    values = rng.normal(-850, 15, SIZE[::-1])
    values[:, :, 8:] += 900
    return np.rint(values).astype("<i2")


def nifti(path: Path, *, q: int = 1, s: int = 1, **fields: tuple[float, ...]) -> Path:
    """Write a NIfTI whose qform and sform agree, unless `pixdim` or `sform` say otherwise."""
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, 3, *SIZE, 1, 1, 1, 1)
    struct.pack_into("<hh", head, 70, 4, 16)
    struct.pack_into("<8f", head, 76, *fields.get("pixdim", (1, 0.7, 0.8, 1.5)), 0, 0, 0, 0)
    struct.pack_into("<3f", head, 108, 352, 1, 0)
    head[123] = int(fields.get("units", (2,))[0])
    struct.pack_into("<hh", head, 252, q, s)
    struct.pack_into("<6f", head, 256, 0, 0, 1, 10, -20, -300)  # a half turn about z
    rows = fields.get("sform", (-0.7, 0, 0, 10, 0, -0.8, 0, -20, 0, 0, 1.5, -300))
    struct.pack_into("<12f", head, 280, *rows)
    head[344:348] = b"n+1\0"
    content = bytes(head) + hu().tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def nrrd(path: Path, fields: str) -> Path:
    head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 16 12 8\nencoding: raw\nendian: little\n"
    path.write_bytes(f"{head}{fields}\n".encode() + hu().tobytes())
    return path


def refusal_of(path: Path) -> tuple[str, str]:
    with pytest.raises(SiteDataError) as caught:
        read_ct_with_findings(path)
    return caught.value.code, str(caught.value)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize(("q", "s"), [(1, 1), (1, 0), (0, 1)])
def test_nifti_placed_in_one_way_passes(tmp_path: Path, name: str, q: int, s: int) -> None:
    reading = read_ct_with_findings(nifti(tmp_path / name, q=q, s=s))
    np.testing.assert_array_equal(reading.volume.array, hu())
    assert not reading.findings
    corner = reading.volume.geometry.index_to_world(np.array([15.0, 11.0, 7.0]))
    np.testing.assert_allclose(corner, [-10 + 15 * 0.7, 20 + 11 * 0.8, -300 + 7 * 1.5], atol=1e-4)


@pytest.mark.parametrize(
    "sform",
    [
        (-0.7, 0, 0, 40, 0, -0.8, 0, -20, 0, 0, 1.5, -300),
        (0.7, 0, 0, 10, 0, 0.8, 0, -20, 0, 0, 1.5, -300),
        (-0.7, 0, 0, 10, 0, -0.8, 0, -20, 0, 0, 3.0, -300),
        (-0.7, 0, 0, 10, 0, -0.8, 0.3, -20, 0, 0, 1.5, -300),
    ],
    ids=["shifted", "flipped", "stretched", "sheared"],
)
def test_nifti_whose_qform_and_sform_differ_is_refused(
    tmp_path: Path, sform: tuple[float, ...]
) -> None:
    code, message = refusal_of(nifti(tmp_path / "a.nii", sform=sform))
    assert code == "bad-tags"
    assert "qform and sform differ" in message


def test_nifti_whose_only_form_contradicts_the_spacing_is_refused(tmp_path: Path) -> None:
    stretched = (-0.7, 0, 0, 10, 0, -0.8, 0, -20, 0, 0, 3.0, -300)
    assert refusal_of(nifti(tmp_path / "a.nii", q=0, sform=stretched))[0] == "bad-tags"


@pytest.mark.parametrize("units", [1, 3])
def test_nifti_in_metres_or_micrometres_is_no_ct(tmp_path: Path, units: int) -> None:
    assert refusal_of(nifti(tmp_path / "a.nii", units=(units,)))[0] == "bad-tags"


PLACED = "space directions: (.7,0,0) (0,.8,0) (0,0,1.5)\nspace origin: (1,2,3)\n"
LPS = f"space: left-posterior-superior\n{PLACED}"


def test_nrrd_with_space_and_directions_passes(tmp_path: Path) -> None:
    reading = read_ct_with_findings(
        nrrd(tmp_path / "a.nrrd", LPS + 'space units: "mm" "mm" "mm"\n')
    )
    np.testing.assert_array_equal(reading.volume.array, hu())
    assert not reading.findings


@pytest.mark.parametrize("fields", ["spacings: .7 .8 1.5\n", f"space dimension: 3\n{PLACED}"])
def test_nrrd_without_a_space_is_warned_of(tmp_path: Path, fields: str) -> None:
    reading = read_ct_with_findings(nrrd(tmp_path / "a.nrrd", fields))
    assert [f.code for f in reading.findings] == ["no-position"]


@pytest.mark.parametrize(
    ("fields", "code"),
    [("", "no-position"), (LPS + 'space units: "cm" "cm" "cm"\n', "bad-tags")],
)
def test_nrrd_of_unknown_size_is_refused(tmp_path: Path, fields: str, code: str) -> None:
    assert refusal_of(nrrd(tmp_path / "a.nrrd", fields))[0] == code


def compressed(path: Path, packed: bytes, claim: int | None = None) -> Path:
    size = "" if claim is None else f"CompressedDataSize = {claim}\n"
    head = META.format(f"CompressedData = True\n{size}{SPACED}", "LOCAL")
    path.write_bytes(head.encode() + packed)
    return path


def test_compressed_mha_comes_back(tmp_path: Path) -> None:
    packed = zlib.compress(hu().tobytes())
    reading = read_ct_with_findings(compressed(tmp_path / "a.mha", packed, len(packed)))
    np.testing.assert_array_equal(reading.volume.array, hu())


def test_compressed_mha_cut_short_is_refused_and_not_filled_with_what_lies_in_memory(
    tmp_path: Path,
) -> None:
    packed = zlib.compress(hu().tobytes())
    broken = [
        compressed(tmp_path / "cut.mha", packed[:-50], len(packed)),
        compressed(tmp_path / "claim.mha", packed, len(packed) - 60),
        compressed(tmp_path / "none.mha", packed),
        compressed(tmp_path / "less.mha", zlib.compress(hu()[:4].tobytes()), 10_000),
        compressed(tmp_path / "damaged.mha", packed[:40] + b"\xff" * 40 + packed[80:], len(packed)),
    ]
    assert [refusal_of(path)[0] for path in broken] == ["truncated"] * 5


@pytest.mark.parametrize("name", ["/etc/passwd", "../a.raw", "sub/../../a.raw", "C:\\a.raw"])
def test_values_outside_of_the_folder_are_not_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.mhd"
    path.write_text(META.format(SPACED, name), encoding="ascii")
    assert refusal_of(path)[0] == "bad-tags"
    other = tmp_path / "a.nhdr"
    head = f"NRRD0004\ntype: short\ndimension: 3\nsizes: 16 12 8\n{LPS}"
    fields = f"encoding: raw\nendian: little\ndata file: {name}\n"
    other.write_text(head + fields, encoding="ascii")
    assert refusal_of(other)[0] in ("bad-tags", "truncated")


def test_mha_without_spacing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mha"
    path.write_bytes(META.format("", "LOCAL").encode() + hu().tobytes())
    assert refusal_of(path)[0] == "no-position"
