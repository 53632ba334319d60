from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from nognet.config import RoiConfig
from nognet.phantom.anatomy import Thorax
from nognet.phantom.contact import (
    CONTACT_SHARE,
    Contact,
    branch_distance,
    extent_mm,
    pleura_distance,
    turned_to,
)
from nognet.phantom.growth import RULES
from nognet.phantom.nodule import body_at
from nognet.phantom.patient import PhantomNodule, PhantomPatient, draw_patient, plan_patients
from nognet.phantom.render import render_hu, render_mask
from nognet.phantom.roi import roi_geometry
from nognet.phantom.study import nodule_truth
from tests.builders.phantom_scene import ball_look, drawn_look, nodule_plan, still

OBLIQUE = np.array([2.0, -1.0, 2.0]) / 3


@cache
def patients() -> tuple[PhantomPatient, ...]:
    return tuple(draw_patient(plan, 1) for s in range(3) for plan in plan_patients(s, 24, 1))


def in_contact(obstacle: str) -> list[tuple[PhantomPatient, PhantomNodule, Contact]]:
    return [
        (patient, nodule, nodule.contact)
        for patient in patients()
        for nodule in patient.nodules
        if nodule.contact is not None and nodule.contact.obstacle == obstacle
    ]


def test_a_quarter_of_the_growing_kinds_touch_something_and_no_other_kind() -> None:
    nodules = [nodule for patient in patients() for nodule in patient.nodules]
    growing = [n for n in nodules if RULES[n.plan.kind].stratum == "growing"]
    touching = [n for n in nodules if n.contact is not None]
    assert {RULES[n.plan.kind].stratum for n in touching} == {"growing"}
    assert len(touching) / len(growing) == pytest.approx(CONTACT_SHARE, abs=0.12)
    assert in_contact("pleura")
    assert in_contact("vessel")


def test_a_ball_grows_along_and_away_from_what_it_touches() -> None:
    plan = nodule_plan("lobulated", 10.0, rate=math.log(2))
    look = turned_to(ball_look(), OBLIQUE)
    first, later = body_at(look, plan, 0.0), body_at(look, plan, 730.5)
    gain = np.log(later.axes_mm / first.axes_mm)
    assert later.volume_mm3 == pytest.approx(4 * first.volume_mm3)
    assert gain.sum() == pytest.approx(math.log(4))
    assert gain[0] == pytest.approx(0.35 * gain[1])
    assert gain[1] == pytest.approx(gain[2])
    assert look.frame @ OBLIQUE == pytest.approx([1.0, 0.0, 0.0])
    # the cap's median of a ball is 0.9 of its radius
    assert extent_mm(first, OBLIQUE) == pytest.approx(0.9 * 5.0, rel=0.01)


@pytest.mark.parametrize("kind", ["spiculated", "lobulated", "part_solid"])
def test_the_surface_at_the_obstacle_stays_in_place(kind: str) -> None:
    plan = nodule_plan(kind, 9.0, rate=0.9)  # type: ignore[arg-type]  # one of the kinds
    look = turned_to(drawn_look(plan.kind, 5), OBLIQUE)
    nodule = PhantomNodule(plan, look, np.zeros(3), Contact("pleura", OBLIQUE))
    first, later = nodule.at(0.0), nodule.at(700.0)
    rims = [n.centre_mm @ OBLIQUE + extent_mm(n.body, OBLIQUE) for n in (first, later)]
    assert rims[1] == pytest.approx(rims[0])
    far = [n.centre_mm @ OBLIQUE - extent_mm(n.body, -OBLIQUE) for n in (first, later)]
    assert far[1] < far[0] - 0.4
    assert later.body.volume_mm3 == pytest.approx(plan.volume_mm3(700.0))


def test_nodules_lie_at_the_pleura_or_at_a_vessels_side() -> None:
    for obstacle in ("pleura", "vessel"):
        for patient, nodule, contact in in_contact(obstacle):
            assert isinstance(patient.tissue, Thorax)
            body = body_at(nodule.look, nodule.plan, 0.0)
            foot = nodule.centre_mm + contact.normal * extent_mm(body, contact.normal)
            if obstacle == "pleura":
                assert pleura_distance(patient.tissue, foot[None])[0] == pytest.approx(0, abs=0.3)
            else:
                assert abs(branch_distance(patient.vessels, foot)) < 1.5
                assert pleura_distance(patient.tissue, nodule.centre_mm[None])[0] < -3


def test_the_image_shows_the_contact_at_every_date_and_the_wall_stays() -> None:
    for patient, nodule, contact in in_contact("pleura"):
        body = body_at(nodule.look, nodule.plan, 0.0)
        reach = extent_mm(body, contact.normal)
        grid = roi_geometry(nodule.centre_mm, RoiConfig())
        behind = nodule.centre_mm + contact.normal * (reach + 2.0)
        z, y, x = np.rint(grid.world_to_index(behind)).astype(int)[::-1]
        beside = np.abs(np.indices((48,) * 3) - 23.5).max(axis=0) > 20
        number = next(i for i, other in enumerate(patient.nodules) if other is nodule)
        images = []
        for visit in range(len(patient.plan.days)):
            scene = patient.scene(visit, still())
            images.append(render_hu(scene, grid, 0.8))
            mask = render_mask(scene, scene.nodules[number], grid)
            assert images[-1][z, y, x] > -200
            volume = nodule.plan.volume_mm3(patient.plan.days[visit])
            assert mask.sum() == pytest.approx(volume, rel=0.02)
        wall = beside & (images[0] > -200)
        assert float(np.mean(images[-1][wall] > -300)) > 0.97


def test_ground_that_is_denser_shows_through_a_nodule_in_contact() -> None:
    [*_, (patient, nodule, contact)] = [
        found for found in in_contact("pleura") if found[1].plan.kind == "part_solid"
    ]
    grid = roi_geometry(nodule.centre_mm, RoiConfig())
    scene = patient.scene(0, still())
    empty = replace(scene, nodules=())
    with_nodule, without = render_hu(scene, grid, 0.8), render_hu(empty, grid, 0.8)
    assert (with_nodule >= without - 1.0).all()
    assert contact.normal @ contact.normal == pytest.approx(1.0)


def test_the_truth_names_what_a_nodule_touches() -> None:
    for patient in patients():
        named = [entry["contact"] for entry in nodule_truth(patient)]
        assert named == [n.contact and n.contact.obstacle for n in patient.nodules]
