from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from nognet.commands.main import app
from nognet.data.ct.image import read_ct_with_findings
from nognet.data.deid.dataset import Identities
from nognet.data.deid.export import Export, export_deidentified
from nognet.data.deid.rules import plain_name
from nognet.data.masks.opening import open_mask
from nognet.data.site.pseudonym import Pseudonyms
from nognet.data.site.scan import scan_folder
from nognet.errors import SiteDataError
from tests.builders.ct_files import (
    WrittenSeries,
    ball,
    edit,
    geometry,
    middle,
    outline,
    rotation,
    write_rtstruct,
    write_seg,
    write_series,
)
from tests.builders.identified import PEOPLE, identify

KEY = Pseudonyms(bytes(range(32)))
GRID = geometry((40, 40, 20), (1.0, 1.0, 2.0), origin=(-20.0, -10.0, -100.5))
TURNED = geometry((40, 40, 20), (1.0, 1.25, 2.0), origin=(3.0, 4.0, 5.0), axes=rotation((6, -8, 4)))
DATES = ("20170309", "20180915")
WORDS = ("geheim", "erika", "vertraulich", "otto", "mrn-", "acc4455", "klinik am", "dr. arzt",
         "kommentar", "geheimnis", "st-kopf", "19511224", "overlay-text", "prüfer",
         "778812", "990045")  # fmt: skip


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two patients with two dates; one with SEG and one with RTSTRUCT."""
    root = tmp_path_factory.mktemp("source")
    rng = np.random.default_rng(0)
    for number, patient in enumerate(PEOPLE):
        grid = (GRID, TURNED)[number]
        lung = rng.normal(-850, 30, grid.size[::-1])
        for visit, date in enumerate(DATES):
            place = root / patient / f"{PEOPLE[patient]} {date}"
            nodule = ball(grid, middle(grid), 4.0 + visit)
            hu = np.where(nodule, 40, lung + visit)
            series = write_series(place / "ct", hu, grid, rng=rng)
            for file in (*series.files, draw(number, place, nodule, grid, series)):
                identify(file, patient, date)
    return root


def draw(number: int, place: Path, nodule: Any, grid: Any, series: WrittenSeries) -> Path:
    if number == 0:
        return write_seg(place / "seg", {"nodule Geheim": nodule, "Heart": 1 - nodule}, series)
    loops = [loop for k in range(len(nodule)) for loop in outline(nodule[k], grid, k)]
    return write_rtstruct(place / "rt", {"GTV Otto 15.09.2018": loops}, series)


@pytest.fixture(scope="module")
def exported(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Export]:
    out = tmp_path_factory.mktemp("out") / "new"
    return out, export_deidentified(cohort, out, KEY)


def files_of(root: Path) -> list[Path]:
    return sorted(p for p in root.rglob("*") if p.is_file())


def original_texts(cohort: Path) -> Iterator[str]:
    for path in files_of(cohort):
        data = pydicom.dcmread(path)
        for element in data.iterall():
            if element.VR == "UI" and not element.keyword.endswith("ClassUID"):
                yield from ([element.value] if element.VM == 1 else element.value)
        yield data.file_meta.MediaStorageSOPInstanceUID


def test_nothing_that_identifies_is_left_in_any_byte_or_path(
    cohort: Path, exported: tuple[Path, Export]
) -> None:
    out, _ = exported
    uids = {str(uid).encode() for uid in original_texts(cohort)}
    assert len(uids) > 80
    for path in files_of(out):
        content = path.read_bytes()
        folded = content.lower() + str(path.relative_to(out)).lower().encode()
        found = [w for w in (*WORDS, *DATES, "1.2.3.4.5.6.7.8.9") if w.encode() in folded]
        assert found == []
        assert not any(uid in content for uid in uids)


def test_every_file_is_exported_and_every_tag_is_a_public_one(
    cohort: Path, exported: tuple[Path, Export]
) -> None:
    out, export = exported
    assert export.written == len(files_of(out)) == len(files_of(cohort))
    assert (export.patients, export.left_out) == (2, ())
    for path in files_of(out):
        data = pydicom.dcmread(path)
        tags = [element.tag for element in data.iterall()]
        assert not any(tag.is_private or tag.group >> 8 in (0x50, 0x60) for tag in tags)
        assert data.preamble == bytes(128)
        assert data.PatientIdentityRemoved == "YES"
        assert data.get("ContrastBolusAgent") == "CONTRAST"


def test_image_and_geometry_survive_bit_by_bit(cohort: Path, exported: tuple[Path, Export]) -> None:
    before = {row.image: row for row in scan_folder(cohort).rows}
    after = {row.image: row for row in scan_folder(exported[0]).rows}
    volumes = [sorted(map(_digest, side)) for side in (before, after)]
    assert len(volumes[0]) == 4
    assert volumes[0] == volumes[1]


def _digest(path: Path) -> tuple[Any, ...]:
    reading = read_ct_with_findings(path)
    return (repr(reading.volume.geometry), reading.volume.array.tobytes(), reading.kernel,
            reading.thickness_mm, reading.contrast)  # fmt: skip


def test_intervals_are_exact_dates_are_not_and_shifts_differ(
    exported: tuple[Path, Export],
) -> None:
    days: dict[str, list[Any]] = {}
    for row in scan_folder(exported[0]).rows:
        days.setdefault(row.patient, []).append(row.date)
    assert [(b - a).days for a, b in days.values()] == [555, 555]
    assert len({a for a, _ in days.values()}) == 2
    assert all(2007 <= a.year <= 2016 for a, _ in days.values())


def test_all_dates_of_a_file_move_by_one_shift(exported: tuple[Path, Export]) -> None:
    for path in files_of(exported[0]):
        data = pydicom.dcmread(path)
        assert data.StudyDate == data.SeriesDate == data.AcquisitionDate
        assert data.StudyTime == "000000"


def test_masks_point_to_the_mapped_series_and_keep_plain_names(
    exported: tuple[Path, Export],
) -> None:
    found = scan_folder(exported[0])
    assert [row.segment for row in found.rows] in (
        ["nodule", "nodule", "GTV", "GTV"],
        ["GTV", "GTV", "nodule", "nodule"],
    )
    assert {a.code for p in found.patients for a in p.left_aside} == {"segment"}  # the heart
    assert found.left_aside == ()


def test_equal_keys_give_equal_files_and_another_key_gives_others(
    cohort: Path, exported: tuple[Path, Export], tmp_path: Path
) -> None:
    export_deidentified(cohort, tmp_path / "again", KEY)
    export_deidentified(cohort, tmp_path / "other", Pseudonyms(bytes(32)))
    first = {p.relative_to(exported[0]): p.read_bytes() for p in files_of(exported[0])}
    assert {p.relative_to(tmp_path / "again"): p.read_bytes()
            for p in files_of(tmp_path / "again")} == first  # fmt: skip
    others = {p.relative_to(tmp_path / "other") for p in files_of(tmp_path / "other")}
    assert not others & set(first)


def test_a_patient_met_again_later_gets_the_same_identity(cohort: Path, tmp_path: Path) -> None:
    patient = next(iter(PEOPLE))
    one_date = min((cohort / patient).iterdir())
    shutil.copytree(one_date, tmp_path / "part" / "x")
    export_deidentified(cohort, tmp_path / "whole", KEY)
    export_deidentified(tmp_path / "part", tmp_path / "again", KEY)
    part = {p.read_bytes() for p in files_of(tmp_path / "again")}
    assert part < {p.read_bytes() for p in files_of(tmp_path / "whole")}


def test_the_source_is_only_read(cohort: Path, tmp_path: Path) -> None:
    before = {p: p.read_bytes() for p in files_of(cohort)}
    export_deidentified(cohort, tmp_path / "out", KEY)
    assert {p: p.read_bytes() for p in files_of(cohort)} == before


@pytest.mark.parametrize("place", ["{source}/below", "{source}", "{source}/..", "{full}"])
def test_a_destination_in_the_source_or_not_empty_is_refused(tmp_path: Path, place: str) -> None:
    source = tmp_path / "a" / "source"
    write_series(source / "ct", np.zeros((2, 4, 4)), geometry((4, 4, 2), (1, 1, 1)))
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("x")
    with pytest.raises(SiteDataError, match=r"empty folder|within"):
        export_deidentified(source, Path(place.format(source=source, full=full)), KEY)
    assert (full / "mine").read_text() == "x"
    assert not (source / "below").exists()


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ({"BurnedInAnnotation": "YES"}, "burned-in"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "not-ct"),
        ({"Modality": "MR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, "not-ct"),
        ({"ImageType": ["DERIVED", "SECONDARY", "LOCALIZER"]}, "localizer"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "not-ct"),
        ({"PixelData": None}, "no-pixels"),
    ],
)
def test_what_may_show_text_is_left_out_with_a_reason(
    tmp_path: Path, tags: dict[str, Any], code: str
) -> None:
    first, *_ = write_series(
        tmp_path / "in", np.zeros((3, 4, 4)), geometry((4, 4, 3), (1, 1, 1))
    ).files
    edit(first, **tags)
    export = export_deidentified(tmp_path / "in", tmp_path / "out", KEY)
    assert export.written == 2
    assert [(left.path, left.code) for left in export.left_out] == [(first, code)]


def test_an_overlay_in_the_bits_of_the_pixels_is_left_out(tmp_path: Path) -> None:
    files = write_series(tmp_path / "in", np.zeros((2, 4, 4)), geometry((4, 4, 2), (1, 1, 1))).files
    data = pydicom.dcmread(files[0])
    data.add_new(0x60000102, "US", 15)
    data.save_as(files[0])
    (tmp_path / "in" / "words.txt").write_text("no DICOM")
    (tmp_path / "in" / "cut").write_bytes(files[1].read_bytes()[:300])
    export = export_deidentified(tmp_path / "in", tmp_path / "out", KEY)
    assert {left.code for left in export.left_out} >= {"burned-in", "not-dicom"}
    assert len(export.left_out) == 3


def test_a_name_in_a_comment_of_compressed_pixels_is_left_out(tmp_path: Path) -> None:
    from pydicom.encaps import encapsulate

    [file] = write_series(
        tmp_path / "in", np.zeros((1, 4, 4)), geometry((4, 4, 1), (1, 1, 1))
    ).files
    data = pydicom.dcmread(file)
    data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.70"
    data.PixelData = encapsulate([b"\xff\xd8\xff\xfe\x00\x0eSecret^Name.\xff\xd9"])
    data["PixelData"].is_undefined_length = True
    data["PixelData"].VR = "OB"
    data.save_as(file)
    export = export_deidentified(tmp_path / "in", tmp_path / "out", KEY)
    assert [left.code for left in export.left_out] == ["text-in-pixels"]


def test_text_under_the_vr_of_a_number_is_not_taken_for_one(tmp_path: Path) -> None:
    [file] = write_series(
        tmp_path / "in", np.zeros((1, 4, 4)), geometry((4, 4, 1), (1, 1, 1))
    ).files
    edit(file, SeriesDescription="GEHEIMNIS!", SliceThickness="1.5")
    tag = b"\x08\x00\x3e\x10"
    content = file.read_bytes()
    assert tag + b"LO" in content
    file.write_bytes(content.replace(tag + b"LO", tag + b"US"))
    assert export_deidentified(tmp_path / "in", tmp_path / "out", KEY).written == 1
    [copy] = files_of(tmp_path / "out")
    assert b"GEHEIM" not in copy.read_bytes()
    assert pydicom.dcmread(copy).SliceThickness == 1.5


def test_a_patient_without_id_goes_by_the_folder(tmp_path: Path) -> None:
    for name in ("one", "two"):
        for file in write_series(
            tmp_path / "in" / name, np.zeros((2, 4, 4)), geometry((4, 4, 2), (1, 1, 1))
        ).files:
            edit(file, PatientID="")
    assert export_deidentified(tmp_path / "in", tmp_path / "out", KEY).patients == 2


def test_a_mask_that_names_its_algorithm_can_be_read_in_the_copy(tmp_path: Path) -> None:
    grid = geometry((16, 16, 8), (1.0, 1.0, 2.0))
    series = write_series(tmp_path / "in" / "ct", np.zeros((8, 16, 16)), grid)
    mask = ball(grid, middle(grid), 4.0)
    path = write_seg(tmp_path / "in" / "seg", {"nodule": mask}, series)
    data = pydicom.dcmread(path)
    family, algorithm = Dataset(), Dataset()
    family.CodeValue, family.CodingSchemeDesignator = "123109", "DCM"
    family.CodeMeaning = "Artificial Intelligence"
    algorithm.AlgorithmFamilyCodeSequence = [family]
    algorithm.AlgorithmName, algorithm.AlgorithmVersion = "of Dr. Geheim", "1"
    data.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence = [algorithm]
    data.save_as(path)
    export_deidentified(tmp_path / "in", tmp_path / "out", KEY)
    [copy] = [file for file in files_of(tmp_path / "out") if is_seg(file)]
    opened = open_mask(copy, max_voxels=10**6)
    assert list(opened.names.values()) == ["nodule"]
    assert b"Geheim" not in copy.read_bytes()


def is_seg(file: Path) -> bool:
    return str(pydicom.dcmread(file, stop_before_pixels=True).Modality) == "SEG"


def test_a_name_typed_by_a_person_keeps_known_words_only() -> None:
    assert plain_name("nodule_1", 1) == "nodule_1"
    assert plain_name("Tumour Müller 12", 1) == "Tumour 12"
    assert plain_name("ERIKA", 7) == "structure 7"
    assert plain_name("nodule 09/03/17", 1) == "nodule"


def test_without_dicognito_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "dicognito.anonymizer", None)
    with pytest.raises(SiteDataError, match=re.escape("deploy/setup_venv.sh .venv deid")):
        Identities.of(KEY).anonymizer()


@given(
    cuts=st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=3), st.integers(0, 4)), max_size=8),
    number=st.integers(0, 5),
)
@settings(max_examples=60)
def test_damaged_files_are_left_out_or_exported_clean_and_never_raise(
    cohort: Path,
    tmp_path_factory: pytest.TempPathFactory,
    cuts: list[tuple[float, bytes, int]],
    number: int,
) -> None:
    """Bytes of the header are replaced, put in and cut out; scan reads the same files."""
    files = files_of(cohort)
    masks = [file for file in files if file.name in ("seg", "rt")]
    content = bytearray([*masks, files[0], files[-1]][number % 6].read_bytes())
    for place, new, removed in cuts:
        at = 132 + int(place * min(len(content) - 132, 3000))
        content[at : at + removed] = new
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "in").mkdir()
    (folder / "in" / "x").write_bytes(content)
    scan_folder(folder / "in")
    export = export_deidentified(folder / "in", folder / "out", KEY)
    assert export.written + len(export.left_out) == 1
    written = b"".join(p.read_bytes() for p in files_of(folder / "out"))
    assert not any(
        word.encode() in written.lower() for word in ("klinik am", "kommentar", "geheimnis")
    )
    shutil.rmtree(folder)


def test_check_makes_the_same_pairs_of_the_copies(cohort: Path, tmp_path: Path) -> None:
    """The command's own way: deidentify, scan, check on both sides."""
    site = tmp_path / "site.yaml"
    preparation = {"workers": 1, "registration": {"enabled": False}}
    content = {"name": "here", "studies": "a.csv", "roi": {"size_vox": 32},
               "preparation": preparation}  # fmt: skip
    site.write_text(yaml.safe_dump(content))
    run("deidentify", str(cohort), str(tmp_path / "out"), "--site", str(site))
    outcomes = []
    for folder, table in ((cohort, "a.csv"), (tmp_path / "out", "b.csv")):
        run("scan", str(folder), "--out", str(tmp_path / table))
        site.write_text(yaml.safe_dump({**content, "studies": table}))
        pairs = json.loads(run("check", "--site", str(site), "--json"))["pairs"]
        keys = ("status", "quality")
        codes = [[f["code"] for f in pair["findings"]] for pair in pairs]
        outcomes.append(
            sorted(
                repr([pair[k] for k in keys] + [c]) for pair, c in zip(pairs, codes, strict=True)
            )
        )
    assert len(outcomes[0]) == 2
    assert "ncc" in outcomes[0][0]
    assert outcomes[0] == outcomes[1]


def run(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, (done.exception, done.output)
    return done.stdout
