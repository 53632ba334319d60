"""Whatever is in `studies.csv` and `site.yaml`: a message and an exit code, no traceback."""

from __future__ import annotations

import codecs
import contextlib
import io
import sys
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from unittest import mock

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nognet.commands.main import main

HEADER = "patient,nodule,date,image,mask,segment,series"
TABLE = f"{HEADER}\np,n,2020-01-01,one.nrrd,m.nrrd,,\np,n,2021-01-01,ct,m.nrrd,1,1.2.3\n"
SITE = """\
name: here
studies: studies.csv
cache: cache
state: state
seed: 3
split: {validation: 0.2, test: 0.3}
roi:
  size_vox: 32
  hu_window: [-1000, 400]
preparation:
  workers: 1
  max_interval_days: 900
  registration: {enabled: false}
"""
OURS = {1, 3, 4, 5}
"""Exit codes of NognetError, ConfigError, SiteDataError and GeometryError."""


@contextlib.contextmanager
def hospital(table: bytes = TABLE.encode(), site: bytes = SITE.encode()) -> Iterator[Path]:
    """A folder whose images are no images: what is fuzzed is all before them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "deep" / "down"
        (folder / "ct").mkdir(parents=True)
        (folder / "ct" / "1").write_bytes(b"no DICOM")
        (folder / "one.nrrd").write_bytes(b"no NRRD")
        (folder / "m.nrrd").write_bytes(b"no mask")
        (folder / "studies.csv").write_bytes(table)
        (folder / "site.yaml").write_bytes(site)
        yield folder


def run(command: str, folder: Path) -> tuple[int, str]:
    """Run a command as the umbrella does; give its exit code and its words."""
    words = io.StringIO()
    argv = ["nognet", command, "--site", str(folder / "site.yaml")]
    with (
        mock.patch.object(sys, "argv", argv),
        contextlib.redirect_stderr(words),
        contextlib.redirect_stdout(words),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return int(ended.value.code or 0), words.getvalue()


def fails_with_a_message(folder: Path) -> str:
    """Either command ends by an error of ours, and says something that fits a screen."""
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    code, said = run(("check", "prepare")[size % 2], folder)
    assert code in OURS, said
    assert "nognet: " in said
    assert "Traceback" not in said
    assert len(said) < 20_000
    assert "\x1b" not in said
    assert "\0" not in said
    return said


mutations = st.lists(
    st.tuples(
        st.sampled_from(["insert", "delete", "replace", "repeat"]),
        st.floats(0, 1, exclude_max=True),
        st.binary(min_size=1, max_size=4).filter(lambda b: b"/" not in b and b"\\" not in b)
        | st.sampled_from([b"\0", b'"', b"'", b",", b";", b"\t", b"\r", b"\n", b"\r\n", b"\xff",
                           b"\xef\xbb\xbf", b"\xc3", b"&a ", b"*a", b"!!int ", b"- ", b": ", b"{",
                           b"[", b"}", b"]", b"#", b"|", b">", b"%", b"@", b"`", b"<<: ",
                           b"\xe2\x80\xae", b"\x1b[2J"]),
    ),
    min_size=1,
    max_size=6,
)  # fmt: skip


def mutated(content: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    for kind, where, new in changes:
        at = int(where * len(content))
        if kind == "insert":
            content = content[:at] + new + content[at:]
        elif kind == "delete":
            content = content[:at] + content[at + len(new) :]
        elif kind == "replace":
            content = content[:at] + new + content[at + len(new) :]
        else:
            content = content[:at] + content[at : at + 40] * 3 + content[at:]
    return content


@settings(max_examples=25)
@given(mutations)
@example([("insert", 0.0, codecs.BOM_UTF8)])
@example([("insert", 0.99, b'"')])
@example([("replace", 0.5, b"\0")])
def test_bytes_of_the_table(changes: list[tuple[str, float, bytes]]) -> None:
    with hospital(table=mutated(TABLE.encode(), changes)) as folder:
        fails_with_a_message(folder)


cells = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["", "*", "..", "/", "/dev/null", "/proc/self/mem", "~", ".", "ct", "m.nrrd", "one.nrrd",
         "a" * 300, "ct/" * 2000, "ct\0", "44197", "01/02/2020", "2020-02-30", "2020-1-1", "-1",
         "9999-12-31", "0001-01-01", "2020-01-01T00:00:00", "x" * 140_000, '"', "\u202e", "1.2.3"]
    ),
)  # fmt: skip


@settings(max_examples=25)
@given(st.lists(st.lists(cells, min_size=0, max_size=9), min_size=0, max_size=4))
@example([["p", "n", "2020-01-01", "a" * 300, "m.nrrd"]])
@example([["p", "n", "2020-01-01", "ct\0", "m.nrrd"]])
@example([["p", "*", "2020-01-01", "ct", ""], ["p", "*", "2021-01-01", "one.nrrd", ""]])
def test_any_cells_at_all(rows: list[list[str]]) -> None:
    import csv

    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(HEADER.split(","))
    for row in rows:
        writer.writerow(cell for cell in row)
    with hospital(table=text.getvalue().encode("utf-8", "surrogatepass")) as folder:
        fails_with_a_message(folder)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (TABLE.replace(",", ";").encode(), "cells are parted by semicolons"),
        (TABLE.replace(",", "\t").encode(), "cells are parted by tabs"),
        (TABLE.encode("utf-16"), "UTF-16"),
        (TABLE.replace("p,", "M\u00fcller,").encode("latin-1"), "row 2 is in another encoding"),
        (TABLE.replace("2020-01-01", "43831").encode(), "Excel's number of a day"),
        (TABLE.replace("2020-01-01", "01.01.2020").encode(), "no ISO date"),
        (TABLE.replace("one.nrrd", "x" * 300).encode(), "can't be reached (File name too long)"),
        (TABLE.replace("one.nrrd", "x\0").encode(), "row 2, column 'image': no such file"),
        (TABLE.replace("one.nrrd", '"one.nrrd').encode(), "not a CSV table"),
        (TABLE.replace("p,n", f"{'p' * 200_000},n").encode(), "field larger than field limit"),
        (b"", "row 1: expected"),
        (HEADER.encode(), "the table has no rows"),
        (TABLE.replace("one.nrrd", "gone.nrrd").encode(), "row 2, column 'image': no such file"),
    ],
)
def test_common_mistakes_are_told_by_name(table: bytes, said: str) -> None:
    with hospital(table=table) as folder:
        assert said in fails_with_a_message(folder)


@pytest.mark.parametrize(
    "table",
    [
        codecs.BOM_UTF8 + TABLE.encode(),
        TABLE.replace("\n", "\r\n").encode(),
        TABLE.replace("\n", "\r").encode(),
        TABLE.replace("p,n", '"p","n"').encode(),
        TABLE.replace("p,n", ' p , "n" ').replace(' "n" ', "n ").encode(),
    ],
)
def test_ways_to_write_a_table_that_are_all_right(table: bytes) -> None:
    with hospital(table=table) as folder:
        assert "of 1 pairs 1" in run("check", folder)[1]


@settings(max_examples=30)
@given(mutations)
def test_bytes_of_the_configuration(changes: list[tuple[str, float, bytes]]) -> None:
    with hospital(site=mutated(SITE.encode(), changes)) as folder:
        fails_with_a_message(folder)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8).filter(
        lambda t: "/" not in t
    ) | st.dates() | st.binary(max_size=4)
    | st.sampled_from(["studies.csv", "a" * 300, "\0", "..", ".", "~", -1, 2**70, 1e400]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
keys = st.sampled_from(
    ["name", "studies", "cache", "state", "seed", "device", "threads", "split", "roi",
     "preparation", "privacy", "server", "nmae"]
)  # fmt: skip


@settings(max_examples=25)
@given(st.dictionaries(keys, values, max_size=4))
def test_any_values_at_all(changes: dict[str, object]) -> None:
    content = {**yaml.safe_load(SITE), **changes}
    with hospital(site=yaml.safe_dump(content).encode()) as folder:
        fails_with_a_message(folder)


def bomb() -> str:
    """Ten lines that a naive reader would blow up to 9 ** 10 words."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for before, after in pairwise("abcdefghij"):
        lines.append(f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]")
    return "\n".join(lines)


BOMB = bomb()


@pytest.mark.parametrize(
    "site",
    [
        BOMB,
        f"{BOMB}\nname: *j",
        f"{SITE}{BOMB}",
        "name: &n [*n]\nstudies: studies.csv",
        "&a [*a]",
        "&a {a: *a}",
        f"{SITE}\nroi: &r {{size_vox: *r}}",
        "name: " + "[" * 20_000,
        "{" * 20_000,
        "- " * 20_000,
        "name: here\nstudies: 2020-13-45",
        "name: here\nseed: 2020-99-99T99:99:99Z",
        f"name: here\nseed: {'9' * 5000}",
        "seed: 1:2:3:4:5:6:7:8",
        "name: !!python/object/apply:os.system [true]",
        "name: !!binary '%%%'",
        "name: !!float x",
        "name: !!int x",
        "name: !!set {a, b}",
        "? [a, b]\n: c",
        "? {a: b}\n: c",
        "<<: [1, 2]",
        "<<: *none",
        "name: *none",
        "%YAML 9.9\n---\nname: here",
        "name: here\n---\nname: there",
        "name: 'here",
        "\tname: here",
        "name: here\x07",
        "name: here\nname: here",
        "name: .nan\nseed: .inf",
        "",
        "null",
        "[]",
        "3",
        'name: here\nstudies: "a\\0b"',
        'name: here\nstudies: studies.csv\ncache: "a\\0b"',
        'name: here\nstudies: studies.csv\nstate: "a\\0b"',
        f"name: here\nstudies: studies.csv\nstate: {'s' * 300}",
        f"name: here\nstudies: studies.csv\ncache: {'s' * 300}",
        "name: here\nstudies: .",
        "name: here\nstudies: studies.csv\ncache: studies.csv",
        "name: here\nstudies: studies.csv\nstate: studies.csv",
        "name: here\nstudies: studies.csv\nstate: /proc",
        "name: here\nstudies: studies.csv\ncache: /dev/null",
    ],
)  # fmt: skip
def test_absurd_configurations(site: str) -> None:
    with hospital(site=site.encode()) as folder:
        fails_with_a_message(folder)
