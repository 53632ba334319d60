"""Names of nodules that make no pair, or the wrong one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from nognet.data.pairs.outcome import PairOutcome
from nognet.data.site.examine import examine_site
from tests.builders.ct_files import write_image
from tests.builders.site_files import (
    GRID,
    Offset,
    Scan,
    nodule,
    site_config,
    write_scan,
    write_table,
)

DATES = ("2020-01-01", "2021-01-01")
LEFT: Offset = (-18.0, 0.0, 0.0)
BESIDE: Offset = (-8.0, 0.0, 0.0)
RIGHT: Offset = (20.0, 5.0, 4.0)
Nodules = Mapping[str, tuple[Offset, float]]


def examined(
    folder: Path, both: tuple[Nodules, Nodules], *rows: tuple[str, int, str]
) -> tuple[PairOutcome, ...]:
    """Examine a patient of two times; rows are name, time and mask, ``all`` for one of them all."""
    for date, nodules in zip(DATES, both, strict=True):
        write_scan(folder / date, Scan(date, nodules))
        every = np.any([nodule(*where) for where in nodules.values()], axis=0)
        write_image(folder / date / "all.nrrd", every.astype(np.uint8), GRID)
    write_table(
        folder,
        [["p", name, DATES[t], f"{DATES[t]}/ct", f"{DATES[t]}/{m}.nrrd"] for name, t, m in rows],
    )
    return examine_site(site_config(folder)).outcomes


def told(outcomes: tuple[PairOutcome, ...]) -> list[tuple[str, str, list[str]]]:
    return [(o.nodule, o.status, [f.code for f in o.findings]) for o in outcomes]


SAME = ({"a": (LEFT, 4.0), "b": (RIGHT, 5.0)}, {"a": (LEFT, 5.0), "b": (RIGHT, 5.5)})


def test_a_star_at_one_time_and_names_at_the_other_are_refused_and_told(tmp_path: Path) -> None:
    outcomes = examined(tmp_path, SAME, ("*", 0, "all"), ("a", 1, "a"), ("b", 1, "b"))
    assert told(outcomes) == [
        ("a", "refused", ["nodule-names"]),
        ("b", "refused", ["nodule-names"]),
    ]
    assert [o.lines for o in outcomes] == [(2, 3), (2, 4)]
    assert outcomes[0].findings[0].message == (
        "row 2 is about every nodule ('*'), row 3 about one by name"
    )
    assert len({o.pair_id for o in outcomes}) == 2


def test_a_name_at_the_baseline_and_a_star_at_the_follow_up_are_told_too(tmp_path: Path) -> None:
    [outcome] = examined(tmp_path, SAME, ("a", 0, "a"), ("*", 1, "all"))
    assert told((outcome,)) == [("a", "refused", ["nodule-names"])]
    assert outcome.lines == (2, 3)
    assert outcome.findings[0].message.startswith("row 3 is about every nodule")


def test_a_star_without_its_like_is_told_beside_names_that_make_a_pair(tmp_path: Path) -> None:
    rows = (("*", 0, "b"), ("a", 0, "a"), ("a", 1, "a"))
    outcomes = examined(tmp_path, SAME, *rows)
    assert sorted(told(outcomes)) == [("a", "ok", []), ("a", "refused", ["nodule-names"])]


def test_a_nodule_named_once_is_told(tmp_path: Path) -> None:
    rows = (("a", 0, "a"), ("a", 1, "a"), ("b", 0, "b"), ("B", 1, "b"))
    outcomes = examined(tmp_path, SAME, *rows)
    assert told(outcomes) == [
        ("a", "ok", []),
        ("b", "skipped", ["nodule-unmatched"]),
        ("B", "skipped", ["nodule-unmatched"]),
    ]
    assert [o.lines for o in outcomes[1:]] == [(4, 4), (5, 5)]
    assert "row 4 alone" in outcomes[1].findings[0].message


def test_a_part_and_a_nodule_of_the_same_full_name_keep_their_own_pairs(tmp_path: Path) -> None:
    rows = (("n", 0, "all"), ("n", 1, "all"), ("n.1", 0, "a"), ("n.1", 1, "a"))
    outcomes = examined(tmp_path, SAME, *rows)
    assert [o.nodule for o in outcomes] == ["n.1", "n.2", "n.1"]
    for outcome in outcomes:
        assert outcome.record is not None
        assert outcome.record.pair_id == outcome.pair_id
        assert outcome.volumes_mm3 == (
            outcome.record.baseline_volume_mm3,
            outcome.record.follow_up_volume_mm3,
        )


TWO: Nodules = {"a": (LEFT, 3.0), "b": (BESIDE, 3.0)}
GROWN_TOGETHER: Nodules = {"a": (LEFT, 4.2), "b": (BESIDE, 4.2)}


@pytest.mark.parametrize("name", ["*", "n"])
def test_two_nodules_drawn_as_one_later_are_no_growth_of_either(tmp_path: Path, name: str) -> None:
    outcomes = examined(tmp_path, (TWO, GROWN_TOGETHER), (name, 0, "all"), (name, 1, "all"))
    assert sorted(status for _, status, _ in told(outcomes)) == ["refused", "skipped"]
    [one] = [o for o in outcomes if o.status == "refused"]
    assert [f.code for f in one.findings] == ["nodule-mismatch"]
    assert one.findings[0].message.startswith("row 3 has one nodule where row 2 has 2")


def test_one_nodule_drawn_as_two_later_is_no_shrinking(tmp_path: Path) -> None:
    outcomes = examined(tmp_path, (GROWN_TOGETHER, TWO), ("*", 0, "all"), ("*", 1, "all"))
    assert sorted(status for _, status, _ in told(outcomes)) == ["refused", "skipped"]
    [one] = [o for o in outcomes if o.status == "refused"]
    assert one.findings[0].message.startswith("row 2 has one nodule where row 3 has 2")


def test_small_neighbours_swapped_are_refused_although_they_lie_close(tmp_path: Path) -> None:
    near: Nodules = {"a": (LEFT, 2.5), "b": ((-10.0, 0.0, 0.0), 2.5)}
    rows = (("a", 0, "a"), ("b", 0, "b"), ("a", 1, "b"), ("b", 1, "a"))
    outcomes = examined(tmp_path, (near, near), *rows)
    assert [code for _, _, codes in told(outcomes) for code in codes] == ["nodule-mismatch"] * 2


def test_small_nodules_that_do_not_touch_are_warned_of_even_alone(tmp_path: Path) -> None:
    near: Nodules = {"a": (LEFT, 2.5), "b": ((-10.0, 0.0, 0.0), 2.5)}
    outcomes = examined(tmp_path, (near, near), ("n", 0, "a"), ("n", 1, "b"))
    assert told(outcomes) == [("n", "warning", ["nodule-displaced"])]


def test_rows_that_mark_one_nodule_twice_are_warned_of(tmp_path: Path) -> None:
    rows = (("a", 0, "a"), ("a", 1, "a"), ("b", 0, "a"), ("b", 1, "b"))
    first, second = examined(tmp_path, SAME, *rows)
    assert told((first,)) == [("a", "warning", ["nodule-twice"])]
    assert first.findings[0].message == "rows 2 and 4 mark the same nodule"
    assert {f.code for f in second.findings} == {"nodule-twice", "nodule-mismatch"}


def test_a_solid_core_within_a_nodule_is_not_the_same_nodule(tmp_path: Path) -> None:
    both: Nodules = {"whole": (LEFT, 5.0), "core": (LEFT, 3.0)}
    rows = [(name, t, name) for name in both for t in (0, 1)]
    outcomes = examined(tmp_path, (both, both), *rows)
    assert told(outcomes) == [("whole", "ok", []), ("core", "ok", [])]
