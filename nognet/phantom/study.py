"""Write one phantom patient's studies: CT series, masks, and what is true about them."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nognet.phantom.background import draw_patient_in
from nognet.phantom.dicom import SeriesHeader, write_ct_series, write_rtstruct, write_seg
from nognet.phantom.motion import Motion, draw_motion
from nognet.phantom.patient import SLAB_HALF_MM, PatientPlan, PhantomPatient, draw_patient
from nognet.phantom.render import Scene, draw_noise, render_hu, render_soft_mask
from nognet.phantom.scanner import Scanner, scanner_of_site, site_name
from nognet.randomness import numpy_generator
from nognet.types import Geometry, Volume

FIRST_DATE = dt.date(2015, 1, 5)
STUDY_COLUMNS = ("patient", "nodule", "date", "image", "mask", "segment")


@dataclass(frozen=True)
class PatientJob:
    """What a worker needs to write a patient.

    Attributes:
        plan: The patient.
        seed: Root seed of the cohort.
        folder: The hospital's folder.
        background: A real CT to grow the nodules in, or None for the drawn thorax.
    """

    plan: PatientPlan
    seed: int
    folder: Path
    background: Path | None = None


@dataclass(frozen=True)
class PatientResult:
    """What was written: rows of `studies.csv`, entries of `truth.json`, how many series."""

    rows: tuple[dict[str, str], ...]
    truth: tuple[dict[str, Any], ...]
    series: int


def patient_id(plan: PatientPlan) -> str:
    """PatientID, obviously fake: PHANTOM-A001."""
    letter = site_name(plan.site).removeprefix("hospital_").upper()
    return f"PHANTOM-{letter}{plan.number + 1:03d}"


def write_patient(job: PatientJob) -> PatientResult:
    """Draw a patient and write every date as DICOM; equal jobs write equal bytes."""
    plan = job.plan
    scanner = scanner_of_site(plan.site, job.seed)
    if job.background is None:
        patient = draw_patient(plan, job.seed)
    else:
        patient = draw_patient_in(plan, job.seed, job.background)
    rng = numpy_generator(job.seed, "phantom", "dates", plan.site, plan.number)
    first = FIRST_DATE + dt.timedelta(days=int(rng.integers(0, 700)))
    rows: list[dict[str, str]] = []
    scenes: list[Scene] = []
    for visit, days in enumerate(plan.days):
        date = first + dt.timedelta(days=days)
        scene = _scene(patient, visit, scanner, job)
        scenes.append(scene)
        rows += _write_visit(scene, _header(job, scanner, date), scanner, job, visit)
    return PatientResult(tuple(rows), tuple(_truth(patient, scenes, first)), len(plan.days))


def study_geometry(scanner: Scanner, slab_half_mm: float = SLAB_HALF_MM) -> Geometry:
    """Give the grid of a study: a slab of one half of the chest, centred on the table position."""
    slices = round(2 * slab_half_mm / scanner.slice_spacing_mm)
    size = (scanner.matrix, scanner.matrix, slices)
    spacing = (scanner.pixel_mm, scanner.pixel_mm, scanner.slice_spacing_mm)
    x, y, z = (
        round(middle - (n - 1) / 2 * step, 3)
        for middle, n, step in zip(scanner.table_mm, size, spacing, strict=True)
    )
    return Geometry(size=size, spacing_mm=spacing, origin_mm=(x, y, z))


def _scene(patient: PhantomPatient, visit: int, scanner: Scanner, job: PatientJob) -> Scene:
    """Position the patient so that the middle of what is scanned lies at the table's place."""
    plan = patient.plan
    rng = numpy_generator(job.seed, "phantom", "motion", plan.site, plan.number, visit)
    motion = draw_motion((0.0, 0.0, 0.0), rng)
    place = np.asarray(scanner.table_mm) - motion.rotation.T @ patient.middle_mm
    moved = Motion(
        motion.table_mm + place, motion.rotation, motion.breath_mm, motion.phase, motion.lung_hu
    )
    return patient.scene(visit, moved)


def _header(job: PatientJob, scanner: Scanner, date: dt.date) -> SeriesHeader:
    identity = patient_id(job.plan)
    return SeriesHeader(
        patient_id=identity,
        patient_name=identity.replace("-", "^"),
        study_date=date,
        uid_source=f"{job.seed}/{job.plan.site}/{job.plan.number}/{date.isoformat()}",
        thickness_mm=scanner.thickness_mm,
        description=f"CHEST {scanner.thickness_mm:g} {scanner.kernel}",
        equipment={
            "Manufacturer": scanner.manufacturer,
            "ManufacturerModelName": scanner.model,
            "InstitutionName": f"PHANTOM {site_name(job.plan.site)}",
            "ConvolutionKernel": scanner.kernel,
            "KVP": str(scanner.kvp),
            "XRayTubeCurrent": scanner.tube_current_ma,
            "Exposure": scanner.tube_current_ma // 2,
            "ExposureTime": 500,
            "ReconstructionDiameter": f"{scanner.matrix * scanner.pixel_mm:g}",
            "GantryDetectorTilt": "0",
            "TableHeight": f"{abs(scanner.table_mm[1]):g}",
        },
    )


def _write_visit(
    scene: Scene, header: SeriesHeader, scanner: Scanner, job: PatientJob, visit: int
) -> list[dict[str, str]]:
    """Write a date's CT and masks; give its rows of `studies.csv`."""
    geometry = study_geometry(scanner)
    rng = numpy_generator(job.seed, "phantom", "noise", job.plan.site, job.plan.number, visit)
    image = render_hu(scene, geometry, scanner.edge_mm)
    image += draw_noise(image.shape, scanner, rng)
    folder = Path("dicom") / header.patient_id / header.date_text
    files = write_ct_series(Volume(image, geometry), job.folder / folder / "ct", header)
    labels = [f"nodule_{number + 1}" for number in range(len(scene.nodules))]
    fields = {
        label: render_soft_mask(scene, nodule, geometry)
        for label, nodule in zip(labels, scene.nodules, strict=True)
    }
    if scanner.mask_format == "RTSTRUCT":
        mask = folder / "rtstruct.dcm"
        write_rtstruct(fields, geometry, header, job.folder / mask)
    else:
        mask = folder / "seg.dcm"
        binary = {label: (field > 0.5).astype(np.uint8) for label, field in fields.items()}
        write_seg(binary, geometry, header, job.folder / mask, ct_files=files)
    return [
        {
            "patient": header.patient_id,
            "nodule": label,
            "date": header.study_date.isoformat(),
            "image": (folder / "ct").as_posix(),
            "mask": mask.as_posix(),
            "segment": label,
        }
        for label in labels
    ]


def _truth(patient: PhantomPatient, scenes: list[Scene], first: dt.date) -> list[dict[str, Any]]:
    """Add to the patient's truth the dates, and where each nodule lies in each scan."""
    entries = nodule_truth(patient)
    for number, entry in enumerate(entries):
        for visit, scene in zip(entry["visits"], scenes, strict=True):
            centre = scene.motion.to_scan(scene.nodules[number].centre_mm[None])[0]
            visit["date"] = (first + dt.timedelta(days=visit["days"])).isoformat()
            visit["centre_mm"] = [round(float(value), 3) for value in centre]
    return entries


def nodule_truth(patient: PhantomPatient) -> list[dict[str, Any]]:
    """Tell what is known of each nodule and no measurement: its fate and its volumes."""
    return [
        {
            "patient": patient_id(patient.plan),
            "nodule": f"nodule_{number + 1}",
            **asdict(nodule.plan),
            "contact": nodule.contact.obstacle if nodule.contact else None,
            "visits": [
                {"days": days, "volume_mm3": round(nodule.plan.volume_mm3(days), 3)}
                for days in patient.plan.days
            ],
        }
        for number, nodule in enumerate(patient.nodules)
    ]
