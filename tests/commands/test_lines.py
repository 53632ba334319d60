from __future__ import annotations

import signal
from pathlib import Path

import pytest

from nognet.commands.deidentify import left_out_lines
from nognet.commands.inspect_table import as_table
from nognet.commands.lines import NARROWEST, WIDTH, advice_lines, harmless, text_width
from nognet.commands.pair_table import distinct, pair_lines
from nognet.commands.prepare import findings_table, progress_to_stderr
from nognet.data.deid.export import LeftOut
from nognet.data.findings import Finding
from nognet.data.inspection import Inspected
from nognet.data.pairs.outcome import PairOutcome, PairStatus
from nognet.data.site.examine import SeriesRow

LEAK = Finding("patient-leak", "refused", "rows 2, 9 have the same CT under two patients; " * 2)
EDGE = Finding("roi-coverage", "warning", "11 % of the ROI are outside a field of view")


def outcome(first: int, *findings: Finding) -> PairOutcome:
    status: PairStatus = "refused" if LEAK in findings else "warning" if findings else "ok"
    return PairOutcome(
        patient="p", nodule="n", lines=(first, first + 1), pair_id="0", patient_id="0",
        status=status, record=None,
        interval_days=1, findings=findings,
    )  # fmt: skip


@pytest.mark.parametrize(("columns", "width"), [("40", NARROWEST), ("100", 100), ("300", WIDTH)])
def test_lines_are_as_wide_as_the_terminal_within_bounds(
    columns: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert text_width() == width


@pytest.mark.parametrize("width", [80, 100, 120])
def test_no_line_of_findings_is_wider_than_asked_for(width: int) -> None:
    outcomes = [outcome(2, LEAK, EDGE), outcome(4, LEAK), outcome(6, EDGE)]
    for lines in (pair_lines(outcomes, width=width), findings_table(outcomes, width=width)):
        assert max(map(len, lines)) <= width


def test_what_steers_a_terminal_is_replaced() -> None:
    assert list(harmless(["a\x1b[2Jb"])) == ["a\ufffd[2Jb"]


def test_advice_is_given_once_a_code_and_the_most_frequent_first() -> None:
    lines = list(advice_lines({"roi-coverage": 1, "patient-leak": 3}, "pair", width=120))
    assert lines[0] == "What to do:"
    assert [line.split()[:3] for line in lines[1:]] == [
        ["patient-leak", "3", "pairs"],
        ["roi-coverage", "1", "pair"],
    ]


def test_no_heading_without_advice() -> None:
    assert not list(advice_lines({}, "pair", width=120))


def test_a_long_finding_is_told_once_and_then_named() -> None:
    text = list(pair_lines([outcome(2, LEAK, EDGE), outcome(4, LEAK), outcome(6, EDGE)]))
    assert sum("same CT under two" in line for line in text) == 1
    assert "          patient-leak: as rows 2 and 3" in text
    assert sum("11 % of the ROI" in line for line in text) == 2  # short ones are said again


def test_prepare_tells_equal_refusals_in_one_row_and_what_to_do() -> None:
    text = "\n".join(findings_table([outcome(2, LEAK), outcome(4, LEAK), outcome(6, EDGE)]))
    flat = " ".join(text.split())
    assert flat.count("same CT under two patients") == 2  # one row, the message says it twice
    assert "refused patient-leak 2 pairs" in flat
    assert "(rows 2 and 3, 4 and 5)" in flat
    assert "patient-leak 2 pairs list the CT under one patient" in flat


def test_a_mask_with_several_nodules_is_one_row() -> None:
    mask = Inspected("seg.dcm", "mask", "SEG")
    other = Inspected("seg.dcm", "mask", "SEG", findings=(EDGE,))
    rows = [SeriesRow((3,), "p", mask), SeriesRow((2,), "p", mask), SeriesRow((4,), "p", other)]
    assert [row.lines for row in distinct(rows)] == [(2, 3), (4,)]


def test_series_of_one_folder_are_told_apart_by_their_uid() -> None:
    rows = [Inspected("x", "ct", "CT", series_uid=uid) for uid in ("1.2", "1.3", "1.3")]
    text = [line.strip() for line in as_table([*rows, Inspected("y", "ct", "CT")], Path())]
    assert text.count("series 1.2") == 1
    assert not any(line == "series" for line in text)


def test_ctrl_c_is_answered_at_once_and_the_handler_put_back(
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), progress_to_stderr("prepare x"):
        signal.raise_signal(signal.SIGINT)
    assert "prepare x: interrupted; ends when work in hand is done" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before


def test_files_left_out_for_one_reason_are_one_line_a_folder() -> None:
    mr = [LeftOut(Path(f"x/{name}"), "not-ct", "MR") for name in "ab"]
    lone = LeftOut(Path("y/c"), "localizer", "scout")
    text = [" ".join(line.split()) for line in left_out_lines([*mr, lone], width=100)]
    assert text == ["left out not-ct 2 files in x: MR", "left out localizer y/c: scout"]
