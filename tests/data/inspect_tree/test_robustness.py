"""Whatever lies below the path: a row for it, and never an error."""

from __future__ import annotations

import os
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nognet.data.inspect_tree import inspect
from tests.builders.ct_files import write_image, write_rtstruct, write_seg
from tests.builders.inspect_cases import GRID, MASK, contours, hu, series

Mutate = Callable[[bytes], bytes]


def intact(folder: Path) -> list[Path]:
    """One file of every kind that is read, all of one study."""
    written = series(folder)
    write_seg(folder / "seg", {"nodule": MASK}, written)
    write_rtstruct(folder / "rt", {"nodule": contours()}, written)
    write_image(folder / "ct.nii.gz", hu(), GRID)
    write_image(folder / "ct.nii", hu(), GRID)
    write_image(folder / "mask.nrrd", MASK, GRID)
    write_image(folder / "mask.mha", MASK, GRID)
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.write(written.files[0], "ct/1")
    return [written.files[3], *(p for p in folder.iterdir() if p.is_file())]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("study")
    return {file.name: file.read_bytes() for file in sorted(intact(folder))}


def changed(place: int, byte: int) -> Mutate:
    return lambda raw: raw[: place % len(raw)] + bytes([byte]) + raw[place % len(raw) + 1 :]


def cut(place: int) -> Mutate:
    return lambda raw: raw[: place % len(raw)]


def grown(place: int, extra: bytes) -> Mutate:
    return lambda raw: raw[: place % len(raw)] + extra + raw[place % len(raw) :]


places = st.integers(0, 4000) | st.integers(0, 10**6)
mutations = st.lists(
    st.builds(changed, places, st.integers(0, 255))
    | st.builds(cut, places)
    | st.builds(grown, places, st.binary(min_size=1, max_size=40)),
    min_size=1,
    max_size=4,
)


@settings(max_examples=150)
@given(data=st.data(), mutate=mutations)
def test_no_damage_to_a_file_is_an_error(
    study: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject,
    mutate: list[Mutate],
) -> None:  # fmt: skip
    name = data.draw(st.sampled_from(sorted(study)))
    raw = study[name]
    for change in mutate:
        raw = change(raw) or b"\0"
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / name).write_bytes(raw)
    rows = inspect(folder)
    assert rows
    assert all(row.codes or row.status == "ok" for row in rows)
    assert all(row.message for row in rows if row.status != "ok")
    assert not {finding.code for row in rows for finding in row.findings} & {"unexpected"}


@given(
    content=st.binary(max_size=400),
    suffix=st.sampled_from(["", ".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".dcm", ".zip"]),
)
def test_no_content_is_an_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / f"file{suffix}").write_bytes(content)
    (row,) = inspect(folder)
    assert row.status in ("refused", "skipped")


def test_names_that_are_no_text_are_no_error(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path)
    for name in (b"\xff\xfe", b"a\nb", b"\x1b[31mred", b"two  blanks ", b"!", b"-x"):
        (Path(os.fsdecode(folder)) / os.fsdecode(name)).write_bytes(b"nothing")
    assert [row.codes for row in inspect(tmp_path)] == [("not-dicom",)] * 6


def test_links_pipes_sockets_and_hidden_files_have_rows(tmp_path: Path) -> None:
    series(tmp_path / "real")
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "dead").symlink_to(tmp_path / "nothing")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "DICOMDIR").write_bytes(b"x")
    here = Path.cwd()
    os.chdir(tmp_path)  # a socket's name has to be short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        rows = {Path(row.path).name: (row.status, row.codes) for row in inspect(tmp_path)}
    os.chdir(here)
    assert rows == {
        "ct": ("ok", ()),
        "linked": ("skipped", ("unreadable",)),
        "dead": ("refused", ("unreadable",)),
        "loop": ("refused", ("unreadable",)),
        "pipe": ("skipped", ("not-dicom",)),
        "socket": ("skipped", ("not-dicom",)),
        ".DS_Store": ("skipped", ("not-dicom",)),
        "DICOMDIR": ("skipped", ("not-ct",)),
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_has_a_row(tmp_path: Path) -> None:
    written = series(tmp_path)
    written.files[0].chmod(0)
    (tmp_path / "closed").mkdir(mode=0)
    rows = {Path(row.path).name: (row.status, row.codes) for row in inspect(tmp_path)}
    assert rows["closed"] == ("refused", ("unreadable",))
    assert rows["000"] == ("refused", ("unreadable",))
    assert rows["ct"][0] == "refused"


def test_files_are_read_only(tmp_path: Path) -> None:
    files = intact(tmp_path)
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}
    inspect(tmp_path)
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files} == before


def test_values_of_any_number_type_are_told_apart(tmp_path: Path) -> None:
    types = (np.uint8, np.int8, np.int16, np.uint16, np.int32, np.float32, np.float64)
    for kind in types:
        write_image(tmp_path / f"{kind.__name__}.nrrd", MASK.astype(kind), GRID)
    assert {row.kind for row in inspect(tmp_path)} == {"mask"}
