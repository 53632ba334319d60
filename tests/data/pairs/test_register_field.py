"""Where the fields of view differ: other origins, padding, a CT that ends near the nodule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nognet.config import RegistrationConfig, RoiConfig
from nognet.data.pairs.register import CtWithNodule, Registration, register
from nognet.data.pairs.roi import (
    crop_mask,
    cut_image,
    cut_mask,
    map_points,
    nodule_volume_mm3,
    roi_grid,
)
from nognet.errors import SiteDataError
from nognet.types import Geometry, Volume
from tests.builders.ct_files import world_of
from tests.builders.true_studies import Acquisition, Scanned, TrueNodule, patient, scan

CONFIG = RegistrationConfig()
FIRST = Acquisition((0.8, 0.8, 1.25))


def side(scanned: Scanned) -> CtWithNodule:
    return CtWithNodule(scanned.ct, crop_mask(scanned.mask, scanned.ct.geometry))


def scanned_at(how: Acquisition, volume_mm3: float = 300.0, field_mm: float = 84.0) -> Scanned:
    who = patient(1)
    return scan(who, TrueNodule(volume_mm3, 300.0), how, noise_seed=3, field_mm=field_mm)


def off_mm(found: Registration, first: Scanned, second: Scanned) -> float:
    there = map_points(found.transform(), first.centre_mm[None])[0]
    return float(np.linalg.norm(there - second.centre_mm))


def test_another_origin_of_the_table_is_no_fault_even_where_the_fields_overlap_in_part() -> None:
    first = scanned_at(replace(FIRST, aside_mm=(10.0, 0.0, -12.0)))
    second = scanned_at(
        Acquisition((0.7, 0.7, 1.0), table_mm=(30.0, -150.0, 400.0), aside_mm=(-8.0, 6.0, 12.0)),
        volume_mm3=450.0,
    )
    found = register(side(first), side(second), CONFIG)
    assert found.shift_mm == pytest.approx(428.0, abs=1.0)
    assert off_mm(found, first, second) <= 0.5
    grid = roi_grid(side(first).centre_mm, 48)
    stay, move = Registration.identity().transform(), found.transform()
    before = cut_image(first.ct, grid, stay, RoiConfig())
    after = cut_image(second.ct, grid, move, RoiConfig())
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.95
    masks = [cut_mask(s.nodule, grid, t)[0] for s, t in ((side(first), stay), (side(second), move))]
    native = nodule_volume_mm3(side(second).nodule) / nodule_volume_mm3(side(first).nodule)
    assert masks[1].sum() / masks[0].sum() == pytest.approx(native, rel=0.02)


def test_a_site_may_still_limit_the_shift() -> None:
    first, second = (scanned_at(replace(FIRST, table_mm=(0, 0, z))) for z in (0.0, 90.0))
    with pytest.raises(SiteDataError, match="by 90 mm, at most 80 are allowed"):
        register(side(first), side(second), RegistrationConfig(max_shift_mm=80))


def padded(scanned: Scanned, radius_mm: float, *, axis_mm: tuple[float, float]) -> Scanned:
    """What a circular field of view leaves: padding beyond a cylinder about an axis along z."""
    away = world_of(scanned.ct.geometry)[..., :2] - (scanned.centre_mm[:2] + np.array(axis_mm))
    outside = np.linalg.norm(away, axis=-1) > radius_mm
    hu = np.where(outside, np.int16(-1024), scanned.ct.array)
    return replace(scanned, ct=Volume(hu, scanned.ct.geometry))


@pytest.mark.parametrize("turned", [(0.0, 0.0, 0.0), (2.0, -3.0, 3.0)])
@pytest.mark.parametrize("edge_mm", [12.0, pytest.param(20.0, marks=pytest.mark.slow)])
def test_padding_near_the_nodule_is_taken_for_what_it_is(
    edge_mm: float, turned: tuple[float, float, float]
) -> None:
    first = scanned_at(FIRST)
    how = Acquisition((0.75, 0.75, 1.0), turned_degrees=turned, table_mm=(9.0, -14.0, 25.0))
    second = padded(scanned_at(how, 450.0), 45.0, axis_mm=(edge_mm - 45.0, 0.0))
    found = register(side(first), side(second), CONFIG)
    assert off_mm(found, first, second) <= 0.5
    assert found.ncc > 0.85
    back = register(side(second), side(first), CONFIG)
    assert off_mm(back, second, first) <= 0.5


@pytest.mark.parametrize("left_mm", [10.0, pytest.param(16.0, marks=pytest.mark.slow)])
def test_a_ct_that_ends_near_the_nodule_is_registered_by_what_it_shows(left_mm: float) -> None:
    first, second = scanned_at(FIRST), scanned_at(replace(FIRST, table_mm=(5.0, -6.0, 130.0)))
    grid = second.ct.geometry
    last = int((second.centre_mm[2] + left_mm - grid.origin_mm[2]) / grid.spacing_mm[2])
    size = (grid.size[0], grid.size[1], last)
    ends = Volume(second.ct.array[:last], Geometry(size, grid.spacing_mm, grid.origin_mm))
    cut = CtWithNodule(ends, side(second).nodule)
    assert off_mm(register(side(first), cut, CONFIG), first, second) <= 0.5
    assert off_mm(register(cut, side(first), CONFIG), second, first) <= 0.5
