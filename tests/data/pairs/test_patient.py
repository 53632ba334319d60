from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nognet.config import RoiConfig
from nognet.data.site.pseudonym import Pseudonyms
from nognet.data.stored_pair import read_pair
from nognet.errors import SiteDataError
from tests.builders.ct_files import write_image, write_seg, write_series
from tests.builders.site_files import (
    GRID,
    Offset,
    Scan,
    nodule,
    write_scan,
    write_table,
)
from tests.builders.two_dates import (
    BACK,
    DATES,
    FRONT,
    LEFT,
    RIGHT,
    codes,
    only,
    prepare,
    scans,
    table,
)


def test_two_nodules_of_one_ct_are_two_pairs_and_the_ct_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nognet.data.pairs.timepoints as module

    read: list[Path] = []
    examine = module.examine_ct

    def counted(path: Path, *rest: object, **more: object) -> object:
        read.append(path)
        return examine(path, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "examine_ct", counted)
    scans(tmp_path, {"a": (LEFT, 4.0), "b": (RIGHT, 5.0)}, {"a": (LEFT, 5.0), "b": (RIGHT, 5.5)})
    table(tmp_path, ("a", "a", "a"), ("b", "b", "b"))
    result = prepare(tmp_path)
    assert [(o.nodule, o.status) for o in result.outcomes] == [("a", "ok"), ("b", "ok")]
    assert read == [tmp_path / date / "ct" for date in DATES]
    for outcome in result.outcomes:
        assert outcome.record is not None
        assert outcome.interval_days == 366
        assert outcome.volumes_mm3 == (
            outcome.record.baseline_volume_mm3,
            outcome.record.follow_up_volume_mm3,
        )
        assert outcome.quality["nodule_displacement_mm"] < 0.5


def test_swapped_names_are_refused_and_the_message_says_with_which_row(tmp_path: Path) -> None:
    scans(tmp_path, {"a": (LEFT, 4.0), "b": (RIGHT, 5.0)}, {"a": (LEFT, 4.5), "b": (RIGHT, 5.5)})
    table(tmp_path, ("a", "a", "b"), ("b", "b", "a"))
    first, second = prepare(tmp_path).outcomes
    assert [first.status, second.status] == ["refused", "refused"]
    assert codes(first) == ["nodule-mismatch"]
    message = first.findings[0].message
    assert "nodule 'b' of row 5 lies 0." in message
    assert "are the names swapped?" in message
    assert "nodule 'a' of row 3 lies 0." in second.findings[0].message


def test_a_nodule_elsewhere_is_refused_without_blaming_another(tmp_path: Path) -> None:
    scans(tmp_path, {"a": (LEFT, 4.0), "b": (RIGHT, 5.0)}, {"a": (BACK, 4.5), "b": (RIGHT, 5.5)})
    table(tmp_path, ("a", "a", "a"), ("b", "b", "b"))
    outcomes = prepare(tmp_path, keep_cuts=True).outcomes
    moved = only(outcomes, "a")
    assert codes(moved) == ["nodule-mismatch"]
    assert "swapped" not in moved.findings[0].message
    assert moved.cut is not None  # for a human look
    assert moved.record is None
    assert moved.volumes_mm3 is not None
    assert only(outcomes, "b").status == "ok"


def test_every_nodule_of_a_mask_is_matched_by_place_and_not_by_size(tmp_path: Path) -> None:
    first = {"a": (LEFT, 4.0), "b": (RIGHT, 5.0), "gone": (FRONT, 3.0)}
    second = {"a": (LEFT, 6.0), "b": (RIGHT, 5.2), "new": (BACK, 3.5)}  # now a is the largest
    scans(tmp_path, first, second)
    for date, found in zip(DATES, (first, second), strict=True):
        union = sum(nodule(*where) for where in found.values())
        write_image(tmp_path / date / "all.nrrd", np.asarray(union, np.uint8), GRID)
    table(tmp_path, ("*", "all", "all"))
    outcomes = prepare(tmp_path).outcomes
    assert [(o.nodule, o.status) for o in outcomes] == [
        ("*.1", "ok"), ("*.2", "ok"), ("*.3", "skipped"), ("*.new-3", "skipped"),
    ]  # fmt: skip
    largest, second_largest, gone, new = outcomes
    assert largest.volumes_mm3 == pytest.approx((501.1, 587.5), rel=0.1)
    assert second_largest.volumes_mm3 == pytest.approx((276.5, 904.8), rel=0.1)
    assert codes(gone) == codes(new) == ["nodule-unmatched"]
    assert "gone or not marked at the follow-up: row 3" in gone.findings[0].message
    assert "new at the follow-up: row 2" in new.findings[0].message
    assert len({o.pair_id for o in outcomes}) == 4


def test_several_parts_under_a_name_are_followed_one_by_one(tmp_path: Path) -> None:
    scans(tmp_path, {"a": (LEFT, 4.0), "b": (RIGHT, 5.0)}, {"a": (LEFT, 5.0), "b": (RIGHT, 5.5)})
    for date in DATES:
        radii = (4.0, 5.0) if date == DATES[0] else (5.0, 5.5)
        both = nodule(LEFT, radii[0]) | nodule(RIGHT, radii[1])
        write_image(tmp_path / date / "both.nrrd", both, GRID)
    table(tmp_path, ("n", "both", "both"))
    outcomes = prepare(tmp_path).outcomes
    assert [(o.nodule, o.status) for o in outcomes] == [("n.1", "ok"), ("n.2", "ok")]


def test_a_single_nodule_keeps_the_plain_name_and_the_pseudonym_it_always_had(
    tmp_path: Path,
) -> None:
    scans(tmp_path, {"a": (LEFT, 4.0)}, {"a": (LEFT, 5.0)})
    table(tmp_path, ("a", "a", "a"))
    [outcome] = prepare(tmp_path).outcomes
    assert outcome.pair_id == Pseudonyms(bytes(32)).of_pair("p", "a", *DATES)
    assert outcome.nodule == "a"


def test_a_row_without_a_mask_is_told_and_stops_no_other(tmp_path: Path) -> None:
    scans(tmp_path, {"a": (LEFT, 4.0), "b": (RIGHT, 5.0)}, {"a": (LEFT, 5.0), "b": (RIGHT, 5.5)})
    table(tmp_path, ("a", "a", "a"), ("b", "b", ""))
    outcomes = prepare(tmp_path).outcomes
    assert only(outcomes, "a").status == "ok"
    absent = only(outcomes, "b")
    assert codes(absent) == ["mask-absent"]
    assert absent.findings[0].message == "row 5: the table names no mask"


def test_one_ct_under_two_dates_is_found_by_its_values(tmp_path: Path) -> None:
    nodules = {"a": (LEFT, 4.0)}
    scan = Scan(DATES[0], nodules)
    write_scan(tmp_path / DATES[0], scan)
    write_scan(tmp_path / DATES[1], scan)  # other UIDs, so other bytes
    table(tmp_path, ("a", "a", "a"))
    [outcome] = prepare(tmp_path).outcomes
    assert codes(outcome) == ["duplicate-study"]


def test_headers_of_two_people_under_one_patient_are_warned_of(tmp_path: Path) -> None:
    for date, who in zip(DATES, ("X1", "X2"), strict=True):
        write_scan(tmp_path / date, Scan(date, {"a": (LEFT, 4.0)}, tags={"PatientID": who}))
    table(tmp_path, ("a", "a", "a"))
    [outcome] = prepare(tmp_path).outcomes
    assert codes(outcome) == ["patients-differ"]
    assert outcome.status == "warning"
    assert outcome.record is not None


def test_contrast_and_kernel_and_thickness_are_compared(tmp_path: Path) -> None:
    tags = (
        {"ConvolutionKernel": "B30f", "SliceThickness": 2.0, "ContrastBolusAgent": "agent"},
        {"ConvolutionKernel": "B60f", "SliceThickness": 1.0},
    )
    for date, given in zip(DATES, tags, strict=True):
        write_scan(tmp_path / date, Scan(date, {"a": (LEFT, 4.0)}, tags=given))
    table(tmp_path, ("a", "a", "a"))
    [outcome] = prepare(tmp_path).outcomes
    assert {"kernels-differ", "contrast-differs", "thickness-differs"} <= set(codes(outcome))


def test_two_cts_of_one_day_make_no_pair_but_each_makes_one_with_later_ones(
    tmp_path: Path,
) -> None:
    for name, date in (("thin", DATES[0]), ("soft", DATES[0]), ("later", DATES[1])):
        scan = Scan(date, {"a": (LEFT, 4.0)}, dirt=5.0 if name == "soft" else 3.0)
        write_scan(tmp_path / name, scan)
    rows = [
        ["p", "a", DATES[0], "thin/ct", "thin/a.nrrd"],
        ["p", "a", DATES[0], "soft/ct", "soft/a.nrrd"],
        ["p", "a", DATES[1], "later/ct", "later/a.nrrd"],
    ]
    write_table(tmp_path, rows)
    outcomes = prepare(tmp_path).outcomes
    assert sorted((o.interval_days, o.status) for o in outcomes) == [
        (0, "refused"), (366, "ok"), (366, "ok"),
    ]  # fmt: skip
    assert [codes(o) for o in outcomes if o.status == "refused"] == [["interval"]]
    assert len({o.pair_id for o in outcomes}) == 3


def test_what_became_of_refused_and_skipped_nodules_is_remembered_with_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans(tmp_path, {"a": (LEFT, 4.0), "b": (RIGHT, 5.0)}, {"a": (BACK, 4.5), "b": (RIGHT, 5.5)})
    table(tmp_path, ("a", "a", "a"), ("b", "b", "b"))
    before = prepare(tmp_path)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr("nognet.data.pairs.times.read_time", never)
    after = prepare(tmp_path)
    assert [replace(o, reused=True) for o in before.outcomes] == list(after.outcomes)
    assert before.times == after.times
    lines = (tmp_path / "studies.csv").read_text().splitlines()
    (tmp_path / "studies.csv").write_text("\n".join([lines[0], "", *lines[:0:-1]]) + "\n")
    turned = prepare(tmp_path)
    assert {o.lines for o in turned.outcomes} == {(6, 5), (4, 3)}  # and messages follow
    assert [o.findings for o in turned.outcomes] == [o.findings for o in after.outcomes]


def test_a_cut_that_was_not_kept_is_made_again_for_the_sheet(tmp_path: Path) -> None:
    scans(tmp_path, {"a": (LEFT, 4.0)}, {"a": (BACK, 4.5)})
    table(tmp_path, ("a", "a", "a"))
    assert prepare(tmp_path).outcomes[0].cut is None
    assert prepare(tmp_path, keep_cuts=True).outcomes[0].cut is not None


def test_another_nodule_growing_beside_leaves_the_registration_alone(tmp_path: Path) -> None:
    near: Offset = (-4.0, 0.0, 0.0)
    scans(
        tmp_path, {"a": (LEFT, 4.0), "b": (near, 3.0)}, {"a": (LEFT, 4.2), "b": (near, 7.0)}
    )  # fmt: skip
    table(tmp_path, ("a", "a", "a"), ("b", "b", "b"))
    outcomes = prepare(tmp_path, registration={"region_margin_mm": 20.0}).outcomes
    assert only(outcomes, "a").quality["nodule_displacement_mm"] < 0.6


def test_a_cache_that_can_not_be_written_ends_the_work(tmp_path: Path) -> None:
    scans(tmp_path, {"a": (LEFT, 4.0)}, {"a": (LEFT, 5.0)})
    table(tmp_path, ("a", "a", "a"))
    (tmp_path / "cache").write_text("no folder")
    with pytest.raises(SiteDataError) as caught:
        prepare(tmp_path)
    assert caught.value.code == "cache-write"


def test_a_change_of_one_mask_remakes_its_neighbours_too(tmp_path: Path) -> None:
    # the others' registrations are blind to it
    scans(tmp_path, {"a": (LEFT, 4.0), "b": (RIGHT, 5.0)}, {"a": (LEFT, 5.0), "b": (RIGHT, 5.5)})
    table(tmp_path, ("a", "a", "a"), ("b", "b", "b"))
    assert not any(o.reused for o in prepare(tmp_path).outcomes)
    assert all(o.reused for o in prepare(tmp_path).outcomes)
    write_image(tmp_path / DATES[1] / "b.nrrd", nodule(RIGHT, 6.0), GRID)
    assert not any(o.reused for o in prepare(tmp_path).outcomes)


def test_a_pair_read_back_lies_on_the_roi_with_both_masks(tmp_path: Path) -> None:
    scans(tmp_path, {"a": (LEFT, 4.0)}, {"a": (LEFT, 5.0)})
    table(tmp_path, ("a", "a", "a"))
    [outcome] = prepare(tmp_path).outcomes
    assert outcome.record is not None
    pair = read_pair(tmp_path / "cache", outcome.record)
    assert pair.baseline.shape == (RoiConfig(size_vox=32).size_vox,) * 3
    assert pair.baseline_mask.sum() == pytest.approx(pair.baseline_volume_mm3, rel=0.02)
    assert pair.follow_up_mask.sum() == pytest.approx(pair.follow_up_volume_mm3, rel=0.02)


def test_of_two_series_the_one_the_mask_was_drawn_on_is_taken(tmp_path: Path) -> None:
    for date, radius in zip(DATES, (4.0, 5.0), strict=True):
        place = tmp_path / date
        soft = Scan(date, {"a": (LEFT, radius)}, dirt=3.0)
        sharp = replace(soft, dirt=40.0)
        written = [
            write_series(place / "ct" / name, scan.hounsfield(), GRID, ConvolutionKernel=name)
            for name, scan in (("sharp", sharp), ("soft", soft))
        ]
        write_seg(place / "a.dcm", {"a": nodule(LEFT, radius)}, written[1])
    write_table(tmp_path, [["p", "a", date, f"{date}/ct", f"{date}/a.dcm"] for date in DATES])
    result = prepare(tmp_path)
    assert [time.facts.ct.kernel for time in result.times] == ["soft", "soft"]
    [outcome] = result.outcomes
    assert outcome.record is not None
    assert set(codes(outcome)) <= {"several-series"}


def test_a_named_series_is_taken_whatever_else_lies_there(tmp_path: Path) -> None:
    uids = []
    for date in DATES:
        scan = Scan(date, {"a": (LEFT, 4.0)})
        for name in ("one", "two"):
            written = write_series(
                tmp_path / date / "ct" / name, scan.hounsfield(), GRID, ConvolutionKernel=name
            )
        uids.append(written.series_uid)
        write_image(tmp_path / date / "a.nrrd", nodule(LEFT, 4.0), GRID)
    rows = [
        ["p", "a", date, f"{date}/ct", f"{date}/a.nrrd", "", uid]
        for date, uid in zip(DATES, uids, strict=True)
    ]
    write_table(tmp_path, rows)
    result = prepare(tmp_path)
    assert [time.facts.ct.series_uid for time in result.times] == uids
    assert result.outcomes[0].status == "ok"


@pytest.mark.parametrize(
    "where", ["nognet.data.pairs.follow.distances_mm", "nognet.data.pairs.patient.cut_pair"]
)
def test_what_nobody_foresaw_refuses_the_pair_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    scans(tmp_path, {"a": (LEFT, 4.0)}, {"a": (LEFT, 5.0)})
    table(tmp_path, ("a", "a", "a"))

    def broken(*_: object, **__: object) -> None:
        raise ValueError("odd")

    with monkeypatch.context() as patched:
        patched.setattr(where, broken)
        [outcome] = prepare(tmp_path).outcomes
        assert (outcome.status, codes(outcome)) == ("refused", ["unexpected"])
        assert "ValueError: odd" in outcome.findings[0].message
    [outcome] = prepare(tmp_path).outcomes
    assert (outcome.status, outcome.reused) == ("ok", False)
