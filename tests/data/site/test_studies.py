from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from nognet.data.site.studies import by_patient, read_studies
from nognet.errors import SiteDataError


def table(folder: Path, text: str) -> Path:
    for name in ("ct1", "ct2"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "m.nrrd").touch()
    path = folder / "studies.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_rows_are_read_with_paths_from_the_tables_folder(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "\ufeffpatient,nodule,date,image,mask,segment,note\n"
        'p1,n1,2020-01-02,ct1,m.nrrd,2,"a, b"\np0,n1,2019-05-06,ct2,m.nrrd,,\n',
    )
    first, second = read_studies(path)
    assert (first.line, first.patient, first.nodule, first.segment) == (2, "p1", "n1", "2")
    assert first.date == dt.date(2020, 1, 2)
    assert first.image == tmp_path / "ct1"
    assert second.segment is None
    assert list(by_patient([first, second])) == ["p0", "p1"]


def test_every_fault_is_listed_with_row_and_column(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "patient,nodule,date,image,mask\n"
        "p1,n1,2020-01-02,ct1,m.nrrd\n"
        "p1,n1,02.01.2021,ct9,m.nrrd\n"
        ",n1,2020-13-02,ct1,gone.nrrd\n"
        "p1,n1,2020-01-02,ct1,m.nrrd\n"
        "p1,n1,20200105,ct2,m.nrrd,x,y\n",
    )
    with pytest.raises(SiteDataError) as caught:
        read_studies(path)
    message = str(caught.value)
    assert message.splitlines()[0].endswith("8 faults")
    for fault in (
        "row 3, column 'date': '02.01.2021' is no ISO date",
        "row 3, column 'image': no such file or folder",
        "row 4, column 'patient': empty",
        "row 4, column 'date': '2020-13-02' is no ISO date",
        "row 4, column 'mask': no such file",
        "row 5, column 'date': the same patient, nodule, date and image as in row 2",
        "row 6: more cells than columns",
        "row 6, column 'date': '20200105' is no ISO date",
    ):
        assert fault in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "row 1: expected"),
        ("patient;nodule;date;image;mask\n", "row 1: expected"),
        ("patient,nodule,dat,image,mask\n", "did you mean 'date'"),
        ("patient,nodule,date,image,mask,segement\n", "did you mean 'segment'"),
        ("patient,nodule,date,image\n", "column 'mask': missing"),
        ("patient,patient,nodule,date,image,mask\n", "given 2 times"),
        ("patient,nodule,date,image,mask\n", "no rows"),
    ],
)
def test_a_wrong_header_or_an_empty_table_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(SiteDataError, match=message):
        read_studies(table(tmp_path, text))


def test_a_missing_or_binary_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SiteDataError, match="no such file"):
        read_studies(tmp_path / "studies.csv")
    (tmp_path / "studies.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(SiteDataError, match="UTF-8"):
        read_studies(tmp_path / "studies.csv")


def test_a_row_may_name_no_mask_and_every_nodule(tmp_path: Path) -> None:
    path = table(tmp_path, "patient,nodule,date,image,mask\np,*,2020-01-02,ct1,\n")
    [row] = read_studies(path)
    assert row.mask is None
    assert row.nodule == "*"


def test_several_cts_of_one_day_are_no_fault_but_one_ct_twice_is(tmp_path: Path) -> None:
    text = "patient,nodule,date,image,mask,series\np,n,2020-01-02,ct1,m.nrrd,1.2\n"
    assert len(read_studies(table(tmp_path, f"{text}p,n,2020-01-02,ct2,m.nrrd,1.2\n"))) == 2
    assert len(read_studies(table(tmp_path, f"{text}p,n,2020-01-02,ct1,m.nrrd,1.3\n"))) == 2
    with pytest.raises(SiteDataError, match=r"row 3.*the same patient, nodule, date and image"):
        read_studies(table(tmp_path, f"{text}p,n,2020-01-02,ct1,m.nrrd,1.2\n"))


def test_a_line_break_in_quotes_belongs_to_its_cell(tmp_path: Path) -> None:
    text = 'patient,nodule,date,image,mask,note\n"a\nb","n\u2028",2020-01-02,ct1,m.nrrd,"x\r\ny"\n'
    [row] = read_studies(table(tmp_path, text))
    assert row.patient == "a\nb"
    assert row.line == 4  # the line on which the row ends


def test_a_long_or_unprintable_cell_is_cut_short_in_the_message(tmp_path: Path) -> None:
    text = f"patient,nodule,date,image,mask\np,n,{'9' * 5000}\x1b[2J,ct1,m.nrrd\n"
    with pytest.raises(SiteDataError) as caught:
        read_studies(table(tmp_path, text))
    assert len(str(caught.value)) < 500
    assert "\x1b" not in str(caught.value)
