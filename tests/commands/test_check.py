from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from nognet.commands.main import app
from nognet.errors import NognetError, SiteDataError
from tests.builders.site_files import Offset, Scan, write_scan, write_table

DATES = ("2020-01-01", "2021-01-01")
LEFT: Offset = (-18.0, 0.0, 0.0)
BACK: Offset = (0.0, 18.0, 14.0)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Patient a is fine, b's nodule is another one at the follow-up, c has one date only."""
    folder = tmp_path_factory.mktemp("site")
    places = {"a": (LEFT, LEFT), "b": (LEFT, BACK), "c": (LEFT,)}
    rows = []
    for seed, (patient, offsets) in enumerate(places.items()):
        for date, offset in zip(DATES, offsets, strict=False):
            scan = Scan(date, {"n": (offset, 4.0 + int(date > "2020-06"))}, seed)
            write_scan(folder / patient / date, scan)
            where = f"{patient}/{date}"
            rows.append([patient, "n", date, f"{where}/ct", f"{where}/n.nrrd"])
    write_table(folder, rows)
    values = {
        "name": "here", "studies": "studies.csv", "roi": {"size_vox": 32},
        "preparation": {"workers": 1, "registration": {"region_margin_mm": 20.0}},
    }  # fmt: skip
    (folder / "site.yaml").write_text(yaml.safe_dump(values))
    return folder / "site.yaml"


def check(site: Path, *words: str) -> Any:
    return CliRunner().invoke(app, ["check", "--site", str(site), *words])


def test_json_gives_each_series_and_each_pair_with_what_to_do(site: Path) -> None:
    done = check(site, "--json")
    assert isinstance(done.exception, NognetError)
    assert done.exception.exit_code == 4
    content = json.loads(done.stdout)
    assert set(content) == {"site", "series", "pairs", "counts"}
    assert [(row["kind"], row["lines"], row["status"]) for row in content["series"]][:4] == [
        ("ct", [2], "ok"), ("mask", [2], "ok"), ("ct", [3], "ok"), ("mask", [3], "ok"),
    ]  # fmt: skip
    assert len(content["series"]) == 10  # c's CT too, though it makes no pair
    first, second = content["pairs"]
    assert (first["patient"], first["status"], first["lines"]) == ("a", "ok", [2, 3])
    assert first["interval_days"] == 366
    assert first["volumes_mm3"] == pytest.approx([276, 484], rel=0.1)
    assert first["quality"]["ncc"] > 0.8
    assert second["status"] == "refused"
    [finding] = second["findings"]
    assert (finding["code"], finding["severity"]) == ("nodule-mismatch", "refused")
    assert finding["advice"] == "check the nodule's name at both times"
    assert content["counts"] == {
        "rows": 5, "patients": 3, "patients_without_pair": 1,
        "series": {"ok": 10, "warning": 0, "refused": 0, "skipped": 0},
        "pairs": {"ok": 1, "warning": 0, "refused": 1, "skipped": 0},
        "codes": {"nodule-mismatch": 1},
    }  # fmt: skip


def test_the_table_gives_series_pairs_findings_and_advice(site: Path) -> None:
    text = check(site).stdout
    lines = text.splitlines()
    [row] = [line for line in lines if line.startswith("refused")]
    assert row.split()[:6] == ["refused", "4", "and", "5", "b", "n"]
    assert row.endswith("nodule-mismatch")
    found = " ".join(text.split())
    assert "nodule-mismatch: after registration the nodules lie" in found
    assert "nodule-mismatch 1 pair check the nodule's name at both times" in found
    assert lines[-1].startswith("here: 2 pairs, 1 ok, 0 warning, 1 refused")
    assert sum("/ct" in line for line in lines) == 5
    assert max(map(len, lines)) <= 130


def test_a_second_check_says_the_same_and_reads_nothing(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = json.loads(check(site, "--json").stdout)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr("nognet.data.pairs.times.read_time", never)
    after = json.loads(check(site, "--json").stdout)
    assert all(pair.pop("reused") for pair in after["pairs"])
    for pair in before["pairs"]:
        pair.pop("reused")
    assert after == before


def test_the_sheet_shows_stored_pairs_and_those_refused_after_cutting(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(site)
    shown: list[Any] = []
    monkeypatch.setattr(
        "nognet.report.sheet.write_sheet",
        lambda path, _, tiles: (shown.extend(tiles), (path,))[1],
    )
    check(site, "--sheet", str(tmp_path / "sheet.html"))
    assert [tile.status for tile in shown] == ["ok", "refused"]
    assert shown[0].baseline.shape == (32, 32, 32)
    assert "366 days" in shown[0].caption
    assert "nodule-mismatch" in shown[1].caption


def test_the_sheet_is_written_where_it_was_asked_for(site: Path, tmp_path: Path) -> None:
    done = check(site, "--sheet", str(tmp_path / "sheet.html"))
    assert (tmp_path / "sheet.html").stat().st_size > 10_000
    assert "contact sheet written to" in done.stderr


@pytest.mark.parametrize("name", ["sheet.pdf", "sheet", "."])
def test_a_sheet_that_can_not_be_written_is_refused_before_anything_is_read(
    site: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("examined")

    monkeypatch.setattr("nognet.data.site.examine.examine_site", never)
    done = check(site, "--sheet", str(site.parent / name))
    assert isinstance(done.exception, SiteDataError)
    assert ".html or .png" in str(done.exception)


def test_a_table_without_a_pair_says_what_a_pair_is(site: Path) -> None:
    rows = (site.parent / "studies.csv").read_text().splitlines()
    (site.parent / "one.csv").write_text("\n".join(rows[:2]))
    lone = site.parent / "one.yaml"
    lone.write_text(site.read_text().replace("studies: studies.csv", "studies: one.csv"))
    done = check(lone)
    assert isinstance(done.exception, SiteDataError)
    assert "there is no pair; a pair is one nodule of one patient at two dates" in str(
        done.exception
    )
    assert "1 patient without a pair" in done.stdout


def test_check_leaves_no_index_and_no_splits(site: Path) -> None:
    check(site)
    assert not (site.parent / "cache" / "index.json").exists()
    assert not (site.parent / "state" / "splits.json").exists()


def test_words_of_the_table_can_not_steer_the_terminal(tmp_path: Path) -> None:
    scan = Scan(DATES[0], {"n": (LEFT, 4.0)})
    write_scan(tmp_path / "x", scan)
    name = "\x1b[2J\x1b]0;owned\x07"
    write_table(
        tmp_path,
        [[name, "n", date, "x/ct", "x/n.nrrd"] for date in DATES],
    )
    (tmp_path / "site.yaml").write_text("name: here\nstudies: studies.csv\n")
    done = check(tmp_path / "site.yaml")
    assert "\x1b" not in done.stdout
    assert "duplicate-study" in done.stdout
