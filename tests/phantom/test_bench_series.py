from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk

from nognet.phantom.bench_series import compress_series, write_bench_series


def read(folder: Path) -> np.ndarray:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return sitk.GetArrayFromImage(reader.Execute())


def test_equal_arguments_write_equal_files(tmp_path: Path) -> None:
    first, second = (
        write_bench_series(tmp_path / name, slices=3, seed=2, matrix=32) for name in "ab"
    )
    assert [f.read_bytes() for f in first] == [f.read_bytes() for f in second]


def test_the_series_is_a_chest_with_noise_that_differs_from_slice_to_slice(tmp_path: Path) -> None:
    write_bench_series(tmp_path, slices=20, seed=2, matrix=64)
    hu = read(tmp_path)
    assert hu.shape == (20, 64, 64)
    assert hu[:, 0, 0].mean() < -950
    assert abs(np.median(hu[:, 32, 20]) + 850) < 30
    assert len({slice_.tobytes() for slice_ in hu}) == 20


def test_a_compressed_series_holds_the_same_values(tmp_path: Path) -> None:
    files = write_bench_series(tmp_path / "plain", slices=4, seed=2, matrix=64)
    packed = compress_series(files, tmp_path / "packed")
    header = pydicom.dcmread(packed[0])
    assert header.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.90"
    assert header.SOPInstanceUID == pydicom.dcmread(files[0]).SOPInstanceUID
    np.testing.assert_array_equal(read(tmp_path / "packed"), read(tmp_path / "plain"))
