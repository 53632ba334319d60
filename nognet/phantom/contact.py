"""Growth against an obstacle: a nodule that touches the pleura or a wide vessel grows away from it.

A quarter of the nodules of growing kinds are placed in contact, at most one a patient. The
surface at the obstacle stays where it was and the rest of the growth goes along and away from it;
the image of the first date shows the contact, so that this is foretellable.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nognet.phantom.anatomy import Thorax
from nognet.phantom.growth import RULES, NodulePlan
from nognet.phantom.nodule import Look, NoduleBody, body_at, relative_radius, sphere_directions
from nognet.phantom.tree import Capsules, join

Points = NDArray[np.float64]
Obstacle = Literal["pleura", "vessel"]
NODULE_LEVEL_MM = 3.0
"""Nodules lie within so much of z = 0, the middle of the scan."""
CONTACT_SHARE = 0.25
VESSEL_SHARE = 0.4
NORMAL_SHARE = 0.35
"""What the axis along the obstacle's normal takes of growth, the other axes taking 1."""
WIDE_RADIUS_MM = (1.8, 3.5)
FREE_MM = 1.0
OPEN_MM, OPEN_DEPTH_MM = 15.0, 8.0
"""So far away from the obstacle there is lung of this depth: a nodule lies in no narrow recess."""
FIELD_LOW_MM, FIELD_HIGH_MM = np.array([25.0, -85.0]), np.array([140.0, 85.0])
_CAP_COSINE = 0.8
_STEP_MM = 0.5


@dataclass(frozen=True)
class Contact:
    """Where a nodule touches something that it doesn't grow into.

    Attributes:
        obstacle: What it touches.
        normal: Unit vector x, y, z in tissue coordinates, from the nodule towards the obstacle.
    """

    obstacle: Obstacle
    normal: Points

    def centre_at(self, first_mm: Points, look: Look, plan: NodulePlan, days: float) -> Points:
        """Move the centre so that the surface at the obstacle stays where it was."""
        first, now = body_at(look, plan, 0.0), body_at(look, plan, days)
        gain = extent_mm(now, self.normal) - extent_mm(first, self.normal)
        result: Points = first_mm - self.normal * gain
        return result


@dataclass(frozen=True)
class Place:
    """Where a nodule in contact lies, and its look turned towards what it touches."""

    centre_mm: Points
    contact: Contact
    look: Look


def place_in_contact(
    fates: Sequence[tuple[NodulePlan, Look]],
    last_day: int,
    thorax: Thorax,
    branches: tuple[Capsules, Capsules],
    rng: np.random.Generator,
) -> dict[int, Place]:
    """Find places of the nodules that touch pleura or vessel, at most one a patient.

    Args:
        fates: Fate and look of the patient's nodules.
        last_day: Day of the last visit.
        thorax: The chest.
        branches: Vessels, then airways.
        rng: Draws what is touched, and where.

    Returns:
        Places by the nodule's number; a nodule that finds none is to lie free.
    """
    for number, (plan, look) in enumerate(fates):
        obstacle = draw_obstacle(plan, rng)
        if obstacle is None:
            continue
        if obstacle == "vessel":
            places = find_vessel(branches[0], look, plan, rng)
        else:
            places = find_pleura(thorax, look, plan, rng)
        for place in places:
            if fits(place, plan, last_day, thorax, branches):
                return {number: place}
    return {}


def draw_obstacle(plan: NodulePlan, rng: np.random.Generator) -> Obstacle | None:
    """Decide what the nodule touches; None for most, and for kinds that don't grow."""
    touches, vessel = rng.uniform(size=2)
    if RULES[plan.kind].stratum != "growing" or touches >= CONTACT_SHARE:
        return None
    return "vessel" if vessel < VESSEL_SHARE else "pleura"


def turned_to(look: Look, normal: Points) -> Look:
    """Lay the look's own x axis along the contact's normal and take growth from that axis."""
    helper = np.eye(3)[int(np.argmin(np.abs(normal)))]
    second = np.cross(normal, helper)
    second /= np.linalg.norm(second)
    shares = look.growth_axes * [NORMAL_SHARE, 1.0, 1.0]
    frame = np.stack([normal, second, np.cross(normal, second)])
    return replace(look, growth_axes=shares / shares.sum(), frame=frame)


def extent_mm(body: NoduleBody, direction: Points) -> float:
    """How far the body reaches that way: the median over the cap around the direction.

    The median, so that a spicule digs into the obstacle and doesn't hold the body off.
    """
    rays = sphere_directions()
    surface = relative_radius(body.look, rays)[:, None] * rays * body.axes_mm @ body.look.frame
    length = np.linalg.norm(surface, axis=1)
    along = surface @ direction
    return float(np.median(along[along > _CAP_COSINE * length]))


def find_pleura(
    thorax: Thorax, look: Look, plan: NodulePlan, rng: np.random.Generator
) -> Iterator[Place]:
    """Find places where the nodule touches the pleura, in random order.

    Args:
        thorax: The chest.
        look: The nodule's look.
        plan: Its fate.
        rng: Draws the candidates.
    """
    low, high = np.append(FIELD_LOW_MM, -NODULE_LEVEL_MM), np.append(FIELD_HIGH_MM, NODULE_LEVEL_MM)
    points = rng.uniform(low, high, (200, 3)) * [thorax.side, 1, 1]
    depth = -pleura_distance(thorax, points)
    points = points[(depth > 3.0) & (depth < 22.0)]
    for _ in range(4):
        slope = _pleura_slope(thorax, points)
        steepness2 = np.sum(slope**2, axis=1, keepdims=True)
        points = points - slope * (pleura_distance(thorax, points)[:, None] / steepness2)
    slope = _pleura_slope(thorax, points)
    normals = slope / np.linalg.norm(slope, axis=1, keepdims=True)
    for foot, normal in zip(points, normals, strict=True):
        yield _place("pleura", foot, normal, look, plan)


def find_vessel(
    vessels: Capsules, look: Look, plan: NodulePlan, rng: np.random.Generator
) -> Iterator[Place]:
    """Find places where the nodule touches a wide vessel's side, in random order.

    Args:
        vessels: All branches.
        look: The nodule's look.
        plan: Its fate.
        rng: Draws branch, place along it and side.
    """
    low, high = WIDE_RADIUS_MM
    wide = vessels.select((vessels.radius_mm >= low) & (vessels.radius_mm <= high))
    if not len(wide.radius_mm):
        return
    chosen = rng.integers(0, len(wide.radius_mm), 200)
    along = (wide.end_mm - wide.start_mm)[chosen]
    middle = wide.start_mm[chosen] + along * rng.uniform(0.3, 0.7, (200, 1))
    side = np.cross(along, rng.standard_normal((200, 3)))
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    feet = middle + side * wide.radius_mm[chosen, None]
    near = np.abs(feet[:, 2]) < NODULE_LEVEL_MM
    for foot, normal in zip(feet[near], -side[near], strict=True):
        yield _place("vessel", foot, normal, look, plan)


def fits(
    place: Place, plan: NodulePlan, last_day: int, thorax: Thorax, branches: Sequence[Capsules]
) -> bool:
    """Say whether at every date there is lung behind the nodule and no other wide branch in it."""
    normal, look = place.contact.normal, place.look
    behind = sphere_directions(256)
    behind = behind[behind @ normal < (0.2 if place.contact.obstacle == "pleura" else 2.0)]
    open_lung = place.centre_mm - normal * OPEN_MM
    if pleura_distance(thorax, open_lung[None])[0] > -OPEN_DEPTH_MM:
        return False
    wide = join(list(branches))
    wide = wide.select(wide.radius_mm > WIDE_RADIUS_MM[0])
    for day in (0, last_day):
        body = body_at(look, plan, day)
        centre = place.contact.centre_at(place.centre_mm, look, plan, day)
        rim = centre + behind * (body.radius_mm + FREE_MM)
        if pleura_distance(thorax, rim).max() > 0:
            return False
        # the branch in contact is as near as the extent; one that is nearer lies inside
        if branch_distance(wide, centre) < extent_mm(body, normal) - FREE_MM:
            return False
    return True


def pleura_distance(thorax: Thorax, points_mm: Points) -> Points:
    """Signed distance ``(N,)`` of points ``(N, 3)`` to the lung's surface, negative in lung."""
    found = thorax.pleura_distance(*(axis.astype(np.float32) for axis in points_mm.T))
    return found.astype(np.float64)


def branch_distance(branches: Capsules, point_mm: Points) -> float:
    """Distance of a point ``(3,)`` to the nearest branch's surface; infinite without branches."""
    along = branches.end_mm - branches.start_mm
    offset = point_mm - branches.start_mm
    share = np.sum(offset * along, axis=1) / np.maximum(np.sum(along**2, axis=1), 1e-6)
    nearest = branches.start_mm + np.clip(share, 0, 1)[:, None] * along
    gap = np.linalg.norm(point_mm - nearest, axis=1) - branches.radius_mm
    return float(gap.min(initial=np.inf))


def _pleura_slope(thorax: Thorax, points: Points) -> Points:
    """Gradient ``(N, 3)`` of the signed distance, by central differences."""
    steps = np.eye(3) * _STEP_MM
    both = [
        pleura_distance(thorax, points + step) - pleura_distance(thorax, points - step)
        for step in steps
    ]
    result: Points = np.stack(both, axis=1) / (2 * _STEP_MM)
    return result


def _place(obstacle: Obstacle, foot: Points, normal: Points, look: Look, plan: NodulePlan) -> Place:
    turned = turned_to(look, normal)
    centre = foot - normal * extent_mm(body_at(turned, plan, 0.0), normal)
    return Place(centre, Contact(obstacle, normal), turned)
