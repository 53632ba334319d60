"""A hospital whose every input carries a patient's identity, and a search that would find it."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tests.builders.ct_files import ball, geometry, middle, write_image, write_series

GRID = geometry((44, 44, 24), (1.0, 1.0, 2.0), origin=(-20.0, -20.0, -100.0))
SURNAME, FIRST_NAME, RECORD_NUMBER = "Qwirtelstein", "Annegreth", "MRN47110815"
FOLDER, NODULE, INSTITUTION = "wardsecret77", "nodulesecret5", "Klinik Sankt Qwirtel"
DATES = ("2020-01-17", "2021-02-18", "1950-03-29")
IDENTITY = f"{SURNAME}^{FIRST_NAME} {RECORD_NUMBER} born {DATES[2]} in /data/{FOLDER}"
"""What an exception's message holds at its worst."""
WORDS = (SURNAME, FIRST_NAME, RECORD_NUMBER, FOLDER, NODULE, INSTITUTION)
PATIENTS = 4


def write_planted_site(root: Path, name: str, **settings: Any) -> Path:
    """Write DICOM, masks, table and `site.yaml`, all with names, ids, dates and paths in them."""
    home = root / FOLDER / name
    lines = ["patient,nodule,date,image,mask"]
    for number in range(PATIENTS):
        patient = f"{SURNAME}_{FIRST_NAME}_{RECORD_NUMBER}_{number}"
        lines += [_write_visit(home, patient, number, visit) for visit in (0, 1)]
    (home / f"studies_{SURNAME}.csv").write_text("\n".join(lines), encoding="utf-8")
    values = {
        "name": name,
        "studies": f"studies_{SURNAME}.csv",
        "cache": f"cache_{SURNAME}",
        "state": f"state_{SURNAME}",
        "device": "cpu",
        "threads": 1,
        "roi": {"size_vox": 32},
        "split": {"validation": 0.3, "test": 0.3},
        "preparation": {"workers": 1, "registration": {"enabled": False}},
        "egress": {"min_patients": 1},  # four patients: at 5 there would be little to search
    }
    path = home / f"site_{SURNAME}.yaml"
    path.write_text(yaml.safe_dump({**values, **settings}), encoding="utf-8")
    return path


def _write_visit(home: Path, patient: str, number: int, visit: int) -> str:
    rng = np.random.default_rng(number)
    hu = rng.normal(-850, 30, GRID.size[::-1])
    mask = ball(GRID, middle(GRID), 4.0 + visit * (0.3 + 0.2 * number))
    day = DATES[visit]
    place = home / patient / day
    tags = {
        "PatientName": f"{SURNAME}^{FIRST_NAME}",
        "PatientID": f"{RECORD_NUMBER}_{number}",
        "PatientBirthDate": DATES[2].replace("-", ""),
        "StudyDate": day.replace("-", ""),
        "InstitutionName": INSTITUTION,
    }
    write_series(place / f"ct_{FIRST_NAME}", np.where(mask, 40, hu + visit), GRID, **tags)
    write_image(place / f"mask_{SURNAME}.nrrd", mask, GRID)
    where = place.relative_to(home)
    return f"{patient},{NODULE},{day},{where}/ct_{FIRST_NAME},{where}/mask_{SURNAME}.nrrd"


def needles() -> Mapping[str, bytes]:
    """Give every spelling of the identity that is searched for, by what it is."""
    return {f"{text!r} in {code}": data for text in _texts() for code, data in _encoded(text)}


def find_identity(data: bytes) -> list[str]:
    """Say what of the identity some bytes hold, in which spelling."""
    return [what for what, needle in needles().items() if needle in data]


def _texts() -> Iterator[str]:
    for word in WORDS:
        yield from dict.fromkeys((word, word.lower(), word.upper(), word.replace(" ", "_")))
    for date in DATES:
        year, month, day = date.split("-")
        yield from (date, year + month + day, f"{day}.{month}.{year}", f"{month}/{day}/{year}")
        yield from (f"{day}/{month}/{year}", f"{year}.{month}.{day}", f"{year}/{month}/{day}")


def _encoded(text: str) -> Iterator[tuple[str, bytes]]:
    for code in ("utf-8", "utf-16-le", "utf-16-be"):
        yield code, text.encode(code)
    raw = text.encode()
    yield "hex", raw.hex().encode()
    for shift in range(3):  # a text inside a longer one can start at any third of base64's bytes
        padded = base64.b64encode(b"\0" * shift + raw)
        yield f"base64 + {shift}", padded[4 if shift else 0 : 4 * ((shift + len(raw)) // 3)]
