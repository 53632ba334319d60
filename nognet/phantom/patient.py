"""A phantom patient: chest, vessels, nodules and their fate, drawn once from a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nognet.phantom.anatomy import Texture, Thorax, Tissue, draw_thorax
from nognet.phantom.contact import NODULE_LEVEL_MM, Contact, Place, place_in_contact
from nognet.phantom.growth import Kind, NodulePlan, deal_kinds, draw_nodule, draw_visit_days
from nognet.phantom.motion import Motion
from nognet.phantom.nodule import Look, body_at, draw_look
from nognet.phantom.render import PlacedNodule, Scene
from nognet.phantom.tree import Capsules, grow_tree, join
from nognet.randomness import derived_seed, numpy_generator

SLAB_HALF_MM = 37.0
FIELD_MIDDLE_MM = 78.0


@dataclass(frozen=True)
class PatientPlan:
    """What is decided for a patient before anything is drawn.

    Attributes:
        site: Number of the hospital.
        number: Number of the patient, from 0.
        days: Days of the visits since the first, ascending from 0.
        kinds: The kind of each nodule.
    """

    site: int
    number: int
    days: tuple[int, ...]
    kinds: tuple[Kind, ...]

    @property
    def pairs_a_nodule(self) -> int:
        """Ordered pairs of dates."""
        return len(self.days) * (len(self.days) - 1) // 2


@dataclass(frozen=True)
class PhantomNodule:
    """A nodule of a patient: its fate, its look and its place (tissue coordinates x, y, z).

    Attributes:
        plan: Its fate.
        look: Its look.
        centre_mm: Where its centre is at the first date.
        contact: What it touches; None for most.
    """

    plan: NodulePlan
    look: Look
    centre_mm: NDArray[np.float64]
    contact: Contact | None = None

    def at(self, days: float) -> PlacedNodule:
        """Show the nodule as it is that many days after the first visit."""
        centre, normal = self.centre_mm, None
        if self.contact is not None:
            normal = self.contact.normal
            centre = self.contact.centre_at(centre, self.look, self.plan, days)
        body = body_at(self.look, self.plan, days)
        return PlacedNodule(centre, body, self.plan.diameter_mm / 2, normal)


@dataclass(frozen=True)
class PhantomPatient:
    """A patient's tissue and nodules; `scene` shows them at a date.

    Attributes:
        plan: Dates and kinds.
        tissue: Chest wall and lung.
        texture: Texture that shows through the nodules.
        middle_mm: Tissue coordinates that the scan is centred on.
        vessels: Branches of arteries and veins.
        airways: Lumina of bronchi.
        nodules: The nodules.
    """

    plan: PatientPlan
    tissue: Tissue
    texture: Texture
    middle_mm: NDArray[np.float64]
    vessels: Capsules
    airways: Capsules
    nodules: tuple[PhantomNodule, ...]

    def scene(self, visit: int, motion: Motion) -> Scene:
        """Show the patient at visit 0, 1, 2 as positioned by `motion`."""
        return Scene(
            tissue=self.tissue,
            texture=self.texture,
            vessels=self.vessels,
            airways=self.airways,
            nodules=tuple(nodule.at(self.plan.days[visit]) for nodule in self.nodules),
            motion=motion,
        )


def plan_patients(site: int, patients: int, seed: int) -> tuple[PatientPlan, ...]:
    """Decide visits, nodules and kinds of a hospital's patients.

    Half of the patients have three visits, a third two nodules; kinds are dealt so that every run
    of patients holds the mix of pairs.
    """
    rng = numpy_generator(seed, "phantom", "plan", site)
    shift = int(rng.integers(0, 6))
    visits = [3 if (number + shift) % 2 == 0 else 2 for number in range(patients)]
    counts = [2 if (number + shift) % 3 == 0 else 1 for number in range(patients)]
    weights = [
        v * (v - 1) // 2 for v, count in zip(visits, counts, strict=True) for _ in range(count)
    ]
    kinds = iter(deal_kinds(weights, rng))
    return tuple(
        PatientPlan(
            site=site,
            number=number,
            days=draw_visit_days(visits[number], rng),
            kinds=tuple(next(kinds) for _ in range(counts[number])),
        )
        for number in range(patients)
    )


def draw_patient(plan: PatientPlan, seed: int) -> PhantomPatient:
    """Draw the patient of a plan; equal seeds give equal patients."""
    rng = numpy_generator(seed, "phantom", "patient", plan.site, plan.number)
    side = 1 if rng.uniform() < 0.45 else -1
    thorax = draw_thorax(derived_seed(seed, "phantom", "site", plan.site), side, rng)
    drawn = draw_nodules(plan, rng)
    vessels, airways = _draw_trees(thorax, rng)
    # drawn apart, so that patients without a contact are what they were without contacts
    apart = numpy_generator(seed, "phantom", "contact", plan.site, plan.number)
    fates = [(fate, look) for fate, look, _ in drawn]
    contacts = place_in_contact(fates, plan.days[-1], thorax, (vessels, airways), apart)
    centres = _place(thorax, vessels, [reach for _, _, reach in drawn], contacts, rng)
    nodules = tuple(
        PhantomNodule(fate, place.look, place.centre_mm, place.contact)
        if (place := contacts.get(number))
        else PhantomNodule(fate, look, centres[number])
        for number, (fate, look, _) in enumerate(drawn)
    )
    feeders = [_feeder(vessels, nodule) for nodule in nodules if nodule.plan.kind != "smooth"]
    return PhantomPatient(
        plan=plan,
        tissue=thorax,
        texture=thorax.texture,
        middle_mm=np.array([side * FIELD_MIDDLE_MM, 0.0, 0.0]),
        vessels=join([vessels, *feeders]),
        airways=airways,
        nodules=nodules,
    )


def draw_nodules(
    plan: PatientPlan, rng: np.random.Generator
) -> list[tuple[NodulePlan, Look, float]]:
    """Draw fate and look of a patient's nodules, and how far (mm) each ever reaches."""
    fates = [draw_nodule(kind, rng) for kind in plan.kinds]
    looks = [draw_look(fate, rng) for fate in fates]
    return [
        (fate, look, max(body_at(look, fate, day).reach_mm for day in plan.days))
        for fate, look in zip(fates, looks, strict=True)
    ]


def _place(
    thorax: Thorax,
    vessels: Capsules,
    reaches_mm: Sequence[float],
    taken: Mapping[int, Place],
    rng: np.random.Generator,
) -> list[NDArray[np.float64]]:
    """Find places in the lung, away from its walls, from wide vessels and from one another.

    The places of nodules that are `taken` stay; they are told by number.
    """
    low = np.array([25.0, -80.0, -NODULE_LEVEL_MM])
    high = np.array([125.0, 80.0, NODULE_LEVEL_MM])
    candidates = rng.uniform(low, high, (900, 3)) * [thorax.side, 1, 1]
    depth = -thorax.pleura_distance(*(axis.astype(np.float32) for axis in candidates.T))
    wide = vessels.select(vessels.radius_mm > 2.2)
    middles = (wide.start_mm + wide.end_mm) / 2
    to_vessel = np.linalg.norm(candidates[:, None] - middles, axis=2).min(axis=1) - 6.0
    depth = np.minimum(depth, to_vessel)
    chosen = {number: place.centre_mm for number, place in taken.items()}
    for number, reach in enumerate(reaches_mm):
        if number in chosen:
            continue
        room = depth - reach - 3.0
        for other, centre in chosen.items():
            gap = np.linalg.norm(candidates - centre, axis=1) - reach - reaches_mm[other]
            room = np.minimum(room, gap - 16.0)
        fitting = np.flatnonzero(room > 0)
        index = int(fitting[0]) if len(fitting) else int(np.argmax(room))
        chosen[number] = candidates[index]
    return [chosen[number] for number in range(len(reaches_mm))]


def _draw_trees(thorax: Thorax, rng: np.random.Generator) -> tuple[Capsules, Capsules]:
    """Grow arteries with their bronchi, and veins apart."""
    side = np.array([thorax.side, 1, 1])
    targets = [_lung_points(thorax, count, rng) for count in (190, 160)]
    arteries = grow_tree(np.array([30.0, 0.0, 4.0]) * side, targets[0], 5.5, rng)
    veins = grow_tree(np.array([30.0, 14.0, -10.0]) * side, targets[1], 5.0, rng)
    bronchi = arteries.select(arteries.radius_mm > 1.7)
    beside = np.array([0.2, 0.75, 0.63]) * side * 1.9 * bronchi.radius_mm[:, None]
    airways = Capsules(bronchi.start_mm + beside, bronchi.end_mm + beside, bronchi.radius_mm * 0.7)
    return join([arteries, veins]), airways


def _lung_points(thorax: Thorax, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw points of lung a few millimetres inside the pleura, in the slab and a little beyond."""
    reach = SLAB_HALF_MM + 12.0
    points = rng.uniform([12.0, -90.0, -reach], [135.0, 90.0, reach], (count * 4, 3))
    points *= [thorax.side, 1, 1]
    depth = -thorax.pleura_distance(*(axis.astype(np.float32) for axis in points.T))
    inside: NDArray[np.float64] = points[depth > 4.0][:count]
    return inside


def _feeder(vessels: Capsules, nodule: PhantomNodule) -> Capsules:
    """Lead a thin branch from the nearest vessel to the nodule's centre."""
    distance = np.linalg.norm(vessels.end_mm - nodule.centre_mm, axis=1)
    nearest = int(np.argmin(distance))
    start = vessels.end_mm[nearest]
    radius = float(np.clip(vessels.radius_mm[nearest], 0.7, 1.3))
    return Capsules(start[None], nodule.centre_mm[None], np.array([radius]))
