from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from nognet.data.pairs.roi import crop_mask
from nognet.data.pairs.surroundings import LARGEST_REACH_MM, CtWithNodule, surroundings
from nognet.types import Volume
from tests.builders.ct_files import ball, geometry, middle

GRID = geometry((60, 60, 60), (2.0, 2.0, 2.0))


def seen(others: tuple[Volume, ...]) -> int:
    ct = Volume(np.full(GRID.size[::-1], -800, dtype=np.int16), GRID)
    nodule = crop_mask(ball(GRID, middle(GRID), 5.0), GRID)
    side = CtWithNodule(ct, nodule, others)
    image = surroundings(side, side.centre_mm, 30.0).visible
    return int(np.count_nonzero(sitk.GetArrayViewFromImage(image)))


def test_another_nodule_is_not_looked_at_but_a_lung_given_by_mistake_hides_nothing() -> None:
    beside = middle(GRID) + np.array([15.0, 0.0, 0.0])
    other = crop_mask(ball(GRID, beside, 5.0), GRID)
    lung = crop_mask(ball(GRID, middle(GRID), LARGEST_REACH_MM + 15.0), GRID)
    assert seen((other,)) < seen(()) == seen((lung,))
