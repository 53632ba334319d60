from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nognet.config import PreparationConfig, RegistrationConfig, RoiConfig, SiteConfig
from nognet.data import ingest_cost
from nognet.data.ct.image import read_ct_with_findings
from nognet.data.ingest_cost import PHASES, measure_preparation, measure_reading
from nognet.errors import SiteDataError
from tests.builders.ct_files import ball, edit, geometry, middle, write_image, write_series

GRID = geometry((40, 36, 10), (1.2, 1.2, 2.0))


@pytest.fixture
def series(tmp_path: Path) -> Path:
    hu = np.random.default_rng(3).integers(-1000, 300, GRID.size[::-1]).astype(np.float32)
    write_series(tmp_path / "ct", hu, GRID)
    return tmp_path / "ct"


def test_both_readers_read_the_same_series_to_the_same_values(series: Path) -> None:
    turns: list[int] = []
    cost = measure_reading(series, repeats=3, progress=turns.append)
    assert turns == [1, 2, 3]
    assert (cost.slices, cost.matrix) == (10, (36, 40))
    assert cost.differing_voxels == 0
    assert 0 < cost.ratio_range[0] <= cost.ratio <= cost.ratio_range[1]
    assert cost.headers_s > 0
    assert cost.slices_per_s == pytest.approx(10 / cost.seconds)
    assert cost.transfer_syntax.startswith("1.2.840.10008.1.2")


@pytest.mark.parametrize("slowed", ["read_ct_with_findings", "_bare"])
def test_a_slower_reader_shows_in_the_ratio(
    series: Path, slowed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = getattr(ingest_cost, slowed)

    def slow(*arguments: Any) -> Any:
        time.sleep(0.3)
        return usual(*arguments)

    monkeypatch.setattr(ingest_cost, slowed, slow)
    ratio = measure_reading(series, repeats=1).ratio
    assert ratio > 3 if slowed == "read_ct_with_findings" else ratio < 1 / 3


def test_values_that_differ_are_counted(series: Path) -> None:
    reading = read_ct_with_findings(series)
    image = ingest_cost._bare(series, reading.series_uid)
    assert ingest_cost._differing(reading, image) == 0
    assert ingest_cost._differing(reading, image + 1) == reading.volume.array.size
    assert ingest_cost._differing(reading, image[:, :, 1:]) == reading.volume.array.size


def test_a_series_in_several_folders_or_of_another_kind_is_refused(series: Path) -> None:
    (series / "more").mkdir()
    one = next(p for p in sorted(series.iterdir()) if p.is_file())
    shutil.move(one, series / "more" / one.name)
    with pytest.raises(SiteDataError, match="found 10 files in 2 folders"):
        measure_reading(series, repeats=1)
    image = write_image(series.parent / "ct.nrrd", np.full(GRID.size[::-1], -500.0), GRID)
    with pytest.raises(SiteDataError, match="found 1 files"):
        measure_reading(image, repeats=1)


def test_a_series_that_is_refused_is_not_measured(series: Path) -> None:
    edit(sorted(series.iterdir())[3], ImagePositionPatient=[0, 0, 400])
    with pytest.raises(SiteDataError):
        measure_reading(series, repeats=1)


def site_of(folder: Path) -> SiteConfig:
    """Write a patient with two dates whose bumps and nodule can be registered."""
    grid = geometry((56, 52, 30), (1.2, 1.2, 2.0), origin=(-30.0, -30.0, -100.0))
    z, y, x = np.indices(grid.size[::-1])
    hu = -850 + 300 * (np.sin(x / 4) * np.sin(y / 5) * np.sin(z / 3) > 0.4)
    hu[:, :6] = 40
    lines = ["patient,nodule,date,image,mask"]
    for patient in ("P1", "P2", "P3"):
        for date, radius in (("2020-01-01", 4.0), ("2021-01-01", 5.0)):
            mask = ball(grid, middle(grid), radius)
            values = np.where(mask, 40, np.roll(hu, ord(patient[1]), 2))
            write_series(folder / patient / date / "ct", values, grid)
            write_image(folder / patient / date / "mask.nrrd", mask, grid)
            lines.append(f"{patient},n1,{date},{patient}/{date}/ct,{patient}/{date}/mask.nrrd")
    (folder / "studies.csv").write_text("\n".join(lines) + "\n")
    registration = RegistrationConfig(region_margin_mm=20.0)
    return SiteConfig(
        name="here",
        studies=folder / "studies.csv",
        cache=folder / "cache",
        state=folder / "state",
        roi=RoiConfig(size_vox=32),
        preparation=PreparationConfig(workers=1, registration=registration),
    )


def test_preparing_tells_pairs_a_minute_and_where_the_time_went(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    cost = measure_preparation(site)
    assert (cost.pairs, cost.refused, cost.workers) == (3, 0, 1)
    assert cost.pairs_per_minute == pytest.approx(180 / cost.wall_s)
    assert set(PHASES) <= set(cost.shares)
    assert sum(cost.shares.values()) == pytest.approx(1)
    assert all(cost.phase_s[name] > 0 for name in PHASES)
    assert 0 < sum(cost.phase_s.values()) <= cost.wall_s
    with pytest.raises(SiteDataError, match="what is reused costs nothing"):
        measure_preparation(site)
