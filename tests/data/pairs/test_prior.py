from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nognet.data.pairs.outcome import PairOutcome, PatientResult
from nognet.data.pairs.patient import prepare_patient
from nognet.data.pairs.task import PatientTask
from nognet.data.site.pseudonym import Pseudonyms
from nognet.data.site.studies import read_studies
from nognet.data.stored_pair import read_pair
from nognet.types import RoiPair
from tests.builders.ct_files import edit, write_image, write_series
from tests.builders.site_files import (
    GRID,
    Offset,
    Scan,
    nodule,
    site_config,
    write_scan,
    write_table,
)

DATES = ("2019-03-01", "2020-01-01", "2021-01-01")
DAYS_BEFORE = 306
RADII = (4.5, 5.5, 6.5)
LEFT: Offset = (-18.0, 0.0, 0.0)
RIGHT: Offset = (20.0, 5.0, 4.0)
FRONT: Offset = (0.0, -12.0, -15.0)
MOVED = replace(GRID, origin_mm=tuple(np.add(GRID.origin_mm, (9.4, -6.3, 12.7))))


def write_three(folder: Path, radii: Sequence[float] = RADII) -> None:
    """Three dates of a growing ball; at the first one the patient lies elsewhere."""
    for date, radius in zip(DATES, radii, strict=True):
        scan = Scan(date, {"n": (LEFT, radius)})
        grid = MOVED if date == DATES[0] else GRID
        write_series(folder / date / "ct", scan.hounsfield(), grid)
        write_image(folder / date / "n.nrrd", nodule(LEFT, radius), grid)
    table(folder, DATES)


def table(folder: Path, dates: Sequence[str], names: Mapping[str, str] | None = None) -> None:
    """One nodule ``n``; `names` says otherwise what it is called at a date."""
    rows = [
        ["p", (names or {}).get(date, "n"), date, f"{date}/ct", f"{date}/n.nrrd"] for date in dates
    ]
    write_table(folder, rows)


def prepare(folder: Path, **limits: object) -> PatientResult:
    site = site_config(folder, **limits)
    rows = read_studies(site.studies)
    return prepare_patient(
        PatientTask(
            "p", rows, Pseudonyms(bytes(32)), site.roi, site.preparation, site.cache, site.state
        )
    )


def outcome_of(result: PatientResult, lines: tuple[int, int]) -> PairOutcome:
    [found] = [o for o in result.outcomes if o.lines == lines]
    return found


def pair_of(folder: Path, outcome: PairOutcome) -> RoiPair:
    assert outcome.record is not None
    return read_pair(folder / "cache", outcome.record)


def codes(outcome: PairOutcome) -> list[str]:
    return [finding.code for finding in outcome.findings]


def centred_ball(radius_mm: float, size: int = 32) -> NDArray[np.bool_]:
    axis = np.arange(size) - (size - 1) / 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    return np.asarray(x**2 + y**2 + z**2 <= radius_mm**2)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PatientResult]:
    folder = tmp_path_factory.mktemp("three")
    write_three(folder)
    return folder, prepare(folder)


def test_a_baseline_of_the_second_date_carries_the_first_in_its_own_frame(
    three: tuple[Path, PatientResult],
) -> None:
    folder, result = three
    outcome = outcome_of(result, (3, 4))
    pair = pair_of(folder, outcome)
    assert pair.prior is not None
    assert pair.prior.days_before == DAYS_BEFORE
    expected = centred_ball(RADII[0])
    found = pair.prior.mask > 0
    assert found.sum() == pytest.approx(4 / 3 * np.pi * RADII[0] ** 3, rel=0.08)
    assert 2 * (found & expected).sum() / (found.sum() + expected.sum()) > 0.9
    tissue_hu = pair.prior.image * 1424 - 1024
    assert np.median(tissue_hu[centred_ball(RADII[0] - 2)]) == pytest.approx(40, abs=8)
    lung = ~centred_ball(RADII[1] + 3)  # the same patient's, though the CT lies elsewhere
    assert np.corrcoef(pair.prior.image[lung], pair.baseline[lung])[0, 1] > 0.97
    assert outcome.quality["prior_ncc"] > 0.9
    assert outcome.quality["prior_nodule_displacement_mm"] < 0.5
    assert outcome.status == "ok"


def test_a_baseline_of_the_first_date_carries_none_and_nothing_is_said(
    three: tuple[Path, PatientResult],
) -> None:
    folder, result = three
    for lines in ((2, 3), (2, 4)):
        outcome = outcome_of(result, lines)
        assert pair_of(folder, outcome).prior is None
        assert (outcome.status, codes(outcome)) == ("ok", [])
        assert "prior_ncc" not in outcome.quality


def test_two_dates_give_no_prior(tmp_path: Path) -> None:
    write_three(tmp_path)
    table(tmp_path, DATES[1:])
    [outcome] = prepare(tmp_path).outcomes
    assert pair_of(tmp_path, outcome).prior is None
    assert outcome.status == "ok"


def test_the_date_right_before_is_taken_and_is_made_once_for_all_follow_ups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nognet.data.pairs import prior as module

    calls: list[object] = []
    usual = module.follow

    def counted(*arguments: object) -> object:
        calls.append(arguments)
        return usual(*arguments)  # type: ignore[arg-type]  # passed on as they come

    monkeypatch.setattr(module, "follow", counted)
    dates = (*DATES, "2021-12-01")
    for date, radius in zip(dates, (4.0, 5.0, 5.5, 6.0), strict=True):
        write_scan(tmp_path / date, Scan(date, {"n": (LEFT, radius)}))
    table(tmp_path, dates)
    result = prepare(tmp_path)
    days = {o.lines: pair.prior.days_before if (pair := pair_of(tmp_path, o)).prior else None
            for o in result.outcomes}  # fmt: skip
    assert days == {
        (2, 3): None, (2, 4): None, (2, 5): None,
        (3, 4): DAYS_BEFORE, (3, 5): DAYS_BEFORE, (4, 5): 366.0,
    }  # fmt: skip
    assert len(calls) == 2


def test_a_nodule_that_is_not_in_the_earlier_scan_leaves_the_pair_without_prior(
    tmp_path: Path,
) -> None:
    write_three(tmp_path)
    table(tmp_path, DATES, {DATES[0]: "other"})
    outcome = outcome_of(prepare(tmp_path), (3, 4))
    assert pair_of(tmp_path, outcome).prior is None
    assert (outcome.status, codes(outcome)) == ("warning", ["prior-absent"])
    assert "the CT 306 days before the baseline" in outcome.findings[0].message


def test_a_row_without_a_mask_before_leaves_the_pair_without_prior(tmp_path: Path) -> None:
    write_three(tmp_path)
    rows = [
        ["p", "n", date, f"{date}/ct", "" if date == DATES[0] else f"{date}/n.nrrd"]
        for date in DATES
    ]
    write_table(tmp_path, rows)
    outcome = outcome_of(prepare(tmp_path), (3, 4))
    assert pair_of(tmp_path, outcome).prior is None
    assert codes(outcome) == ["prior-absent"]
    assert outcome.findings[0].message.startswith("row 2, 306 days before: this nodule is not")


def test_an_earlier_scan_that_fails_the_geometry_checks_costs_the_prior_alone(
    tmp_path: Path,
) -> None:
    write_three(tmp_path)
    for k, file in enumerate(sorted((tmp_path / DATES[0] / "ct").iterdir())):
        x, y, z = MOVED.origin_mm
        edit(file, ImagePositionPatient=[x, y + 0.5 * k, z + 2 * k])
    result = prepare(tmp_path)
    assert outcome_of(result, (2, 3)).status == "refused"
    outcome = outcome_of(result, (3, 4))
    assert pair_of(tmp_path, outcome).prior is None
    assert (outcome.status, codes(outcome)) == ("warning", ["prior-unusable"])
    message = outcome.findings[0].message
    assert message.startswith("row 2, 306 days before: not used as prior scan: sheared: slices")


def test_an_earlier_scan_of_somebody_else_costs_the_prior_alone(tmp_path: Path) -> None:
    write_three(tmp_path)
    stranger = Scan(DATES[0], {"n": (LEFT, 4.0)}, seed=7)
    for file in (tmp_path / DATES[0] / "ct").iterdir():
        file.unlink()
    write_scan(tmp_path / DATES[0], stranger)
    outcome = outcome_of(prepare(tmp_path), (3, 4))
    assert pair_of(tmp_path, outcome).prior is None
    assert codes(outcome) == ["prior-unusable"]
    assert "registration failed" in outcome.findings[0].message


def test_a_prior_of_another_nodule_is_not_taken(tmp_path: Path) -> None:
    places: tuple[Offset, ...] = (RIGHT, LEFT, LEFT)
    for date, place in zip(DATES, places, strict=True):
        write_scan(tmp_path / date, Scan(date, {"n": (place, 5.0)}))
    table(tmp_path, DATES)
    outcome = outcome_of(prepare(tmp_path), (3, 4))
    assert pair_of(tmp_path, outcome).prior is None
    assert codes(outcome) == ["prior-unusable"]
    assert "nodule-mismatch: after registration" in outcome.findings[0].message


@pytest.mark.parametrize("copied", [DATES[1], DATES[2]])
def test_a_prior_that_is_the_baseline_or_the_answer_is_not_taken(
    tmp_path: Path, copied: str
) -> None:
    write_three(tmp_path)
    scan = Scan(copied, {"n": (LEFT, RADII[DATES.index(copied)])})
    for file in (tmp_path / DATES[0] / "ct").iterdir():
        file.unlink()
    write_scan(tmp_path / DATES[0], scan)
    outcome = outcome_of(prepare(tmp_path), (3, 4))
    assert pair_of(tmp_path, outcome).prior is None
    assert codes(outcome) == ["prior-unusable"]
    which = "baseline" if copied == DATES[1] else "follow-up"
    assert outcome.findings[0].message.endswith(f"the same CT as the {which}")


def test_a_prior_too_long_ago_is_not_taken(tmp_path: Path) -> None:
    write_three(tmp_path)
    dates = ("2010-01-01", *DATES[1:])
    (tmp_path / DATES[0]).rename(tmp_path / dates[0])
    table(tmp_path, dates)
    outcome = outcome_of(prepare(tmp_path), (3, 4))
    assert codes(outcome) == ["prior-unusable"]
    assert "interval: 3652 days apart" in outcome.findings[0].message


def test_every_nodule_of_a_mask_finds_its_own_prior_by_its_place(tmp_path: Path) -> None:
    radii = {"a": (4.0, 5.0, 6.0), "b": (6.0, 5.5, 5.0)}
    for k, date in enumerate(DATES):
        found = {"a": (LEFT, radii["a"][k]), "b": (RIGHT, radii["b"][k])}
        if k:
            found["late"] = (FRONT, 4.0)
        write_scan(tmp_path / date, Scan(date, found))
        union = sum(nodule(*where) for where in found.values())
        write_image(tmp_path / date / "n.nrrd", np.asarray(union, np.uint8), GRID)
    table(tmp_path, DATES, dict.fromkeys(DATES, "*"))
    outcomes = [o for o in prepare(tmp_path).outcomes if o.lines == (3, 4) and o.record]
    pairs = sorted((pair_of(tmp_path, o) for o in outcomes), key=lambda p: p.baseline_volume_mm3)
    late, small, large = (pair.prior for pair in pairs)
    assert late is None
    assert small is not None
    assert large is not None
    assert small.mask.sum() == pytest.approx(4 / 3 * np.pi * 4.0**3, rel=0.1)
    assert large.mask.sum() == pytest.approx(4 / 3 * np.pi * 6.0**3, rel=0.1)
    assert sorted(codes(o) for o in outcomes) == [[], [], ["prior-absent"]]


def test_a_changed_prior_remakes_the_pairs_that_carry_it(tmp_path: Path) -> None:
    write_three(tmp_path)
    before = outcome_of(prepare(tmp_path), (3, 4))
    assert outcome_of(prepare(tmp_path), (3, 4)).reused
    write_image(tmp_path / DATES[0] / "n.nrrd", nodule(LEFT, 3.5), MOVED)
    after = outcome_of(prepare(tmp_path), (3, 4))
    assert not after.reused
    assert before.record is not None
    assert after.record is not None
    assert after.record.inputs != before.record.inputs
    prior = pair_of(tmp_path, after).prior
    assert prior is not None
    assert prior.mask.sum() < 0.7 * 4 / 3 * np.pi * RADII[0] ** 3


def test_a_pair_that_loses_its_earlier_date_is_another_pair(tmp_path: Path) -> None:
    write_three(tmp_path)
    prepare(tmp_path)
    table(tmp_path, DATES[1:])
    [outcome] = prepare(tmp_path).outcomes
    assert not outcome.reused
    assert pair_of(tmp_path, outcome).prior is None


def test_what_nobody_foresaw_costs_the_prior_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_three(tmp_path)

    def broken(*_: object, **__: object) -> None:
        raise ValueError("odd")

    with monkeypatch.context() as patched:
        patched.setattr("nognet.data.pairs.prior.follow", broken)
        outcome = outcome_of(prepare(tmp_path), (3, 4))
        assert (outcome.status, codes(outcome)) == ("warning", ["prior-unread"])
        assert pair_of(tmp_path, outcome).prior is None
    outcome = outcome_of(prepare(tmp_path), (3, 4))
    assert (outcome.status, outcome.reused) == ("ok", False)
    assert pair_of(tmp_path, outcome).prior is not None


def test_a_doubtful_alignment_is_used_and_told(tmp_path: Path) -> None:
    write_three(tmp_path)
    registration = {"region_margin_mm": 20.0, "warn_ncc": 1.0}
    outcome = outcome_of(prepare(tmp_path, registration=registration), (3, 4))
    assert pair_of(tmp_path, outcome).prior is not None
    assert codes(outcome) == ["weak-registration", "prior-doubtful"]
