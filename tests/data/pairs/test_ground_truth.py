"""From DICOM on disk to volumes and a registration, against what the phantom says is true."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from nognet.config import RegistrationConfig
from nognet.data.ct.image import read_ct
from nognet.data.masks.reading import read_mask
from nognet.data.pairs.register import CtWithNodule, Registration, register
from nognet.data.pairs.roi import (
    crop_mask,
    cut_mask,
    map_points,
    nodule_centre_mm,
    nodule_volume_mm3,
    roi_grid,
)
from tests.builders.true_studies import (
    Acquisition,
    Scanned,
    Triple,
    TrueNodule,
    patient,
    scan,
    write_study,
)

VOLUME_TOLERANCE = 0.02
CENTRE_TOLERANCE_MM = 0.5
CONFIG = RegistrationConfig()


def triples(limit: float) -> st.SearchStrategy[Triple]:
    return st.tuples(*[st.floats(-limit, limit)] * 3)


ACQUISITIONS = st.builds(
    Acquisition,
    spacing_mm=st.tuples(st.floats(0.6, 0.9), st.floats(0.6, 0.9), st.just(1.0)),
    oblique_degrees=triples(12.0),
    flipped=st.tuples(*[st.booleans()] * 3),
    turned_degrees=triples(6.0),
    table_mm=triples(30.0),
    aside_mm=triples(8.0),
    rtstruct=st.booleans(),
    scanner=st.integers(0, 2),
)
CASES = {
    "seed": st.integers(1, 3),
    "diameter_mm": st.floats(6.0, 14.0),
    "growth": st.floats(1.0, 2.5),
    "axes": st.tuples(*[st.floats(0.8, 1.25)] * 3),
    "first": ACQUISITIONS,
    "second": ACQUISITIONS,
}


def read_back(scanned: Scanned, how: Acquisition, name: str) -> CtWithNodule:
    """Write a study as DICOM and read it as a hospital's would be read."""
    with tempfile.TemporaryDirectory() as folder:
        ct_path, mask_path = write_study(Path(folder) / name, scanned, how)
        ct = read_ct(ct_path)
        mask = read_mask(mask_path, ct, "nodule")
    return CtWithNodule(ct, crop_mask(mask, ct.geometry))


def check_pair(
    seed: int,
    diameter_mm: float,
    growth: float,
    axes: Triple,
    ways: tuple[Acquisition, Acquisition],
) -> None:
    first_volume = np.pi / 6 * diameter_mm**3
    volumes = (first_volume, first_volume * growth)
    scans, sides = [], []
    for number, (volume, how) in enumerate(zip(volumes, ways, strict=True)):
        nodule = TrueNodule(volume, first_volume, axes)
        scans.append(scan(patient(seed), nodule, how, noise_seed=number))
        sides.append(read_back(scans[-1], how, f"study{number}"))
    for true, volume, side in zip(scans, volumes, sides, strict=True):
        assert nodule_volume_mm3(side.nodule) == pytest.approx(volume, rel=VOLUME_TOLERANCE)
        off = nodule_centre_mm(side.nodule) - true.centre_mm
        assert np.linalg.norm(off) <= CENTRE_TOLERANCE_MM
    found = register(sides[0], sides[1], CONFIG)
    there = map_points(found.transform(), scans[0].centre_mm[None])[0]
    assert np.linalg.norm(there - scans[1].centre_mm) <= CENTRE_TOLERANCE_MM
    assert found.nodule_displacement_mm <= CENTRE_TOLERANCE_MM
    assert np.linalg.det(np.array(found.matrix).reshape(3, 3)) == pytest.approx(1.0, abs=1e-9)
    grid = roi_grid(sides[0].centre_mm, 48)
    maps = (Registration.identity().transform(), found.transform())
    for side, volume, to_side in zip(sides, volumes, maps, strict=True):
        mask, inside = cut_mask(side.nodule, grid, to_side)
        assert inside == 1.0
        assert mask.sum() == pytest.approx(volume, rel=VOLUME_TOLERANCE)


@settings(
    max_examples=5,
    phases=(Phase.explicit, Phase.generate),  # an example takes a second: too long to shrink
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(**CASES)
def test_volumes_to_2_percent_and_centres_to_half_a_millimetre_whatever_the_geometry(
    seed: int,
    diameter_mm: float,
    growth: float,
    axes: Triple,
    first: Acquisition,
    second: Acquisition,
) -> None:
    check_pair(seed, diameter_mm, growth, axes, (first, second))


@pytest.mark.slow
@settings(
    max_examples=150,
    phases=(Phase.explicit, Phase.generate),
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(**CASES)
def test_the_same_over_many_more_geometries(
    seed: int,
    diameter_mm: float,
    growth: float,
    axes: Triple,
    first: Acquisition,
    second: Acquisition,
) -> None:
    check_pair(seed, diameter_mm, growth, axes, (first, second))
