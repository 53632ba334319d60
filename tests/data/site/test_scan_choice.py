from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nognet.data.findings import Finding
from nognet.data.site.scan import Proposal, propose
from nognet.data.site.scan_choice import DEFAULT_SEGMENTS
from nognet.data.site.scan_masks import ScannedMask, Segment
from nognet.data.site.scan_values import FolderScan, ScannedSeries, Who

DAY_1, DAY_2, DAY_3 = dt.date(2020, 1, 5), dt.date(2021, 2, 6), dt.date(2022, 3, 7)


def series(name: str, date: dt.date | None = DAY_1, **changes: Any) -> ScannedSeries:
    values: dict[str, Any] = {
        "who": Who("p", from_folder=False, person="", dates=(date,)),
        "date": date,
        "study_uid": f"study {date}",
        "series_uid": name,
        "key": name,
        "frame_of_reference": f"frame {name}",
        "path": Path("/x") / name,
        "shares_folder": False,
        "slices": 100,
        "slice_mm": 1.0,
        "gap_mm": 1.0,
        "kernel": "B30f",
        "plane": "axial",
        "usable": True,
        "findings": (),
    }
    return ScannedSeries(**{**values, **changes})


def mask(on: str, *labels: str, **changes: Any) -> ScannedMask:
    values: dict[str, Any] = {
        "path": Path("/x") / f"{on}.seg",
        "modality": "SEG",
        "patient": "p",
        "sop_uid": f"seg of {on}",
        "study_uid": "",
        "series_uids": (on,),
        "image_uids": (),
        "frame_of_reference": "",
        "segments": tuple(Segment(k, label) for k, label in enumerate(labels or ("nodule",), 1)),
        "made": "",
    }
    return ScannedMask(**{**values, **changes})


def proposal(
    *found: ScannedSeries, masks: list[ScannedMask], pattern: str = DEFAULT_SEGMENTS
) -> Proposal:
    scan = FolderScan(found, tuple(masks), (), files=1, dicom_files=1)
    return propose(scan, re.compile(pattern, re.IGNORECASE), max_slice_mm=2.5)


def images(proposed: Proposal) -> list[str]:
    return [row.image.name for row in proposed.rows]


def codes(proposed: Proposal) -> set[str]:
    return {a.code for p in proposed.patients for a in p.left_aside} | {
        a.code for a in proposed.left_aside
    }


def on_all(*names: str) -> list[ScannedMask]:
    return [mask(name) for name in names]


def test_the_kernel_that_all_dates_have_is_chosen_though_another_is_thinner_at_one() -> None:
    found = proposal(
        series("a sharp", kernel="B70f", slice_mm=0.6),
        series("a soft"),
        series("b soft", DAY_2),
        masks=on_all("a sharp", "a soft", "b soft"),
    )
    assert images(found) == ["a soft", "b soft"]
    [(other, why)] = found.patients[0].choices[0].instead_of
    assert other.series_uid == "a sharp"
    assert why == "kernel B70f, not B30f as at most dates"
    assert "kernel" in found.patients[0].choices[0].why


def test_of_kernels_at_all_dates_the_one_with_the_thinnest_slices_is_chosen() -> None:
    both = [
        series(f"{day} {kernel}", day, kernel=kernel, slice_mm=slice_mm)
        for day in (DAY_1, DAY_2)
        for kernel, slice_mm in (("B30f", 2.0), ("B50f", 1.0))
    ]
    found = proposal(*both, masks=on_all(*(s.series_uid for s in both)))
    assert {choice.series.kernel for choice in found.patients[0].choices} == {"B50f"}


def test_a_date_without_the_common_kernel_takes_what_it_has() -> None:
    found = proposal(
        series("a"), series("b", DAY_2), series("c", DAY_3, kernel="LUNG"), masks=on_all(*"abc")
    )
    assert images(found) == ["a", "b", "c"]


def test_the_thinnest_then_the_most_slices_win() -> None:
    found = proposal(
        series("thick", slice_mm=5.0),
        series("short", slices=40),
        series("a"),
        series("b", DAY_2),
        masks=on_all("thick", "short", "a", "b"),
    )
    assert images(found) == ["a", "b"]
    against = {s.series_uid: why for s, why in found.patients[0].choices[0].instead_of}
    assert against == {"thick": "thicker: 5 mm", "short": "fewer slices: 40"}


def test_the_series_that_the_mask_was_drawn_on_wins_over_a_better_one() -> None:
    found = proposal(
        series("thin"),
        series("drawn on", slice_mm=3.0, kernel="B70f"),
        series("b", DAY_2),
        masks=on_all("drawn on", "b"),
    )
    assert images(found) == ["drawn on", "b"]
    choice = found.patients[0].choices[0]
    assert choice.why == "a mask was drawn on it"
    assert choice.instead_of[0][1] == "no mask was drawn on it"
    assert choice.notes == ("slices of 3 mm are thick; check will warn",)


def test_a_kernel_counts_only_where_a_mask_was_drawn_on_it() -> None:
    found = proposal(
        series("a1", kernel="X"),
        series("a2", kernel="Y"),
        series("b1", DAY_2, kernel="X", slice_mm=0.5),
        series("b2", DAY_2, kernel="Y"),
        masks=on_all("a1", "a2", "b2"),
    )
    assert images(found) == ["a2", "b2"]


def test_a_mask_without_a_series_goes_by_its_frame_of_reference() -> None:
    loose = mask("a", series_uids=(), frame_of_reference="frame a")
    found = proposal(series("a"), series("b", DAY_2), masks=[loose, mask("b")])
    assert images(found) == ["a", "b"]


def test_a_frame_shared_by_two_dates_gives_a_mask_to_neither() -> None:
    loose = mask("a", series_uids=(), frame_of_reference="f")
    both = [series("a", frame_of_reference="f"), series("b", DAY_2, frame_of_reference="f")]
    found = proposal(*both, masks=[loose])
    assert not found.rows
    assert "several dates" in found.left_aside[0].reason


def test_a_mask_of_a_series_that_is_not_there_is_left_aside() -> None:
    found = proposal(series("a"), series("b", DAY_2), masks=on_all("a", "b", "gone"))
    assert [(a.code, a.path.name) for a in found.left_aside] == [("mask-other-series", "gone.seg")]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"plane": "sagittal"}, "not-axial"),
        ({"date": None}, "no-date"),
        (
            {"usable": False, "findings": (Finding("sheared", "refused", "by 14 degrees"),)},
            "sheared",
        ),
        ({"series_uid": "", "key": "", "shares_folder": True}, "empty-uids"),
    ],
)
def test_what_can_not_be_used_is_left_aside_with_its_code(
    changes: dict[str, Any], code: str
) -> None:
    found = proposal(
        series("a"), series("b", DAY_2), series("x", **changes), masks=on_all("a", "b")
    )
    assert images(found) == ["a", "b"]
    assert code in codes(found)


def test_one_date_makes_no_rows_and_says_why() -> None:
    found = proposal(series("a"), masks=on_all("a"))
    assert not found.rows
    assert codes(found) == {"one-date"}


def test_two_studies_of_one_date_hint_at_dates_set_alike() -> None:
    found = proposal(series("a"), series("b", study_uid="another"), masks=on_all("a", "b"))
    assert not found.rows
    assert any("2 studies" in a.reason for a in found.patients[0].left_aside)


def test_a_date_without_mask_is_not_in_the_table_and_the_others_are() -> None:
    found = proposal(series("a"), series("b", DAY_2), series("c", DAY_3), masks=on_all("a", "c"))
    assert images(found) == ["a", "c"]
    assert codes(proposal(series("a"), series("b", DAY_2), masks=on_all("a"))) == {"mask-absent"}


def test_two_people_under_one_patient_id_are_not_paired() -> None:
    people = [
        series(name, day, who=Who("ANON", from_folder=False, person=person, dates=(day,)))
        for name, day, person in (("a", DAY_1, "one"), ("b", DAY_2, "two"))
    ]
    found = proposal(*people, masks=on_all("a", "b"))
    assert not found.rows
    assert codes(found) == {"mixed-patients"}


def test_one_nodule_at_each_time_is_nodule_1_whatever_its_segment_is_called() -> None:
    found = proposal(
        series("a"), series("b", DAY_2), masks=[mask("a", "Lung", "Tumor 1"), mask("b", "GTV-1")]
    )
    assert [(r.nodule, r.segment) for r in found.rows] == [("1", "Tumor 1"), ("1", "GTV-1")]
    assert [a.code for a in found.patients[0].left_aside] == ["segment"]


def test_several_nodules_go_by_name_where_all_times_have_the_same() -> None:
    found = proposal(
        series("a"), series("b", DAY_2), masks=[mask("a", "nodule x", "nodule y"),
                                                mask("b", "nodule y", "nodule x")],
    )  # fmt: skip
    assert [(r.nodule, r.segment, r.image.name) for r in found.rows] == [
        ("nodule x", "nodule x", "a"), ("nodule x", "nodule x", "b"),
        ("nodule y", "nodule y", "a"), ("nodule y", "nodule y", "b"),
    ]  # fmt: skip


def test_several_nodules_of_unlike_names_are_left_to_registration() -> None:
    masks = [mask("a", "nodule x", "nodule y"), mask("b", "lesion")]
    found = proposal(series("a"), series("b", DAY_2), masks=masks)
    assert [(r.nodule, r.segment) for r in found.rows] == [("*", ""), ("*", "")]


def test_unlike_names_in_a_mask_that_holds_other_things_too_are_not_read_as_a_whole() -> None:
    found = proposal(
        series("a"),
        series("b", DAY_2),
        masks=[mask("a", "nodule x", "nodule y", "Heart"), mask("b", "nodule x")],
    )
    assert [r.nodule for r in found.rows] == ["nodule x", "nodule x"]
    assert codes(found) == {"segment", "one-date"}


def test_segments_are_chosen_by_the_pattern_given() -> None:
    found = proposal(
        series("a"), series("b", DAY_2), masks=[mask("a", "Spot"), mask("b", "spot")],
        pattern="spot",
    )  # fmt: skip
    assert [r.segment for r in found.rows] == ["Spot", "spot"]


def test_two_segments_of_one_label_are_two_nodules_found_by_number() -> None:
    masks = [mask(name, "nodule", "nodule", "Heart") for name in ("a", "b")]
    found = proposal(series("a"), series("b", DAY_2), masks=masks)
    assert [(r.nodule, r.segment, r.image.name) for r in found.rows] == [
        ("nodule 1", "1", "a"), ("nodule 1", "1", "b"),
        ("nodule 2", "2", "a"), ("nodule 2", "2", "b"),
    ]  # fmt: skip


def test_a_label_that_a_cell_can_not_hold_gives_way_to_the_number() -> None:
    masks = [mask("a", " nodule "), mask("b", "line\nnodule")]
    found = proposal(series("a"), series("b", DAY_2), masks=masks)
    assert [r.segment for r in found.rows] == ["1", "1"]


def test_of_two_masks_of_one_name_seg_is_taken_then_the_later_and_it_is_said() -> None:
    old, new = mask("a", made="2020", sop_uid="1"), mask("a", made="2021", sop_uid="2")
    structure = mask("a", modality="RTSTRUCT", made="2022", sop_uid="3")
    new, structure = (
        ScannedMask(**{**m.__dict__, "path": Path("/x") / name})
        for m, name in ((new, "new"), (structure, "rt"))
    )
    found = proposal(series("a"), series("b", DAY_2), masks=[old, new, structure, mask("b")])
    assert [r.mask.name for r in found.rows] == ["new", "b.seg"]
    assert sum(a.code == "mask-repeated" for a in found.patients[0].left_aside) == 2


def test_one_mask_exported_twice_is_taken_once() -> None:
    copy = mask("a", path=Path("/x/copy.seg"))
    found = proposal(series("a"), series("b", DAY_2), masks=[mask("a"), copy, mask("b")])
    assert len(found.rows) == 2
    assert [a.code for a in found.left_aside] == ["duplicate-study"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([DAY_1, DAY_2, DAY_3]),
            st.sampled_from(["B30f", "B70f", ""]),
            st.sampled_from([1.0, 2.0, 5.0]),
            st.booleans(),
        ),
        max_size=8,
    ),
    st.randoms(use_true_random=False),
)
def test_the_proposal_does_not_depend_on_the_order_of_files(
    drawn: list[tuple[dt.date, str, float, bool]], random: Any
) -> None:
    found = [
        series(str(k), date, kernel=kernel, slice_mm=slice_mm)
        for k, (date, kernel, slice_mm, _) in enumerate(drawn)
    ]
    masks = [mask(str(k)) for k, (*_, masked) in enumerate(drawn) if masked]
    first = proposal(*found, masks=masks).rows
    random.shuffle(found)
    random.shuffle(masks)
    assert proposal(*found, masks=masks).rows == first
    assert len({row.date for row in first}) in {0, 2, 3}
    assert all(row.mask.stem == row.image.name for row in first)
