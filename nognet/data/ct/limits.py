"""How large an image may claim to be before any of it is read."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nognet.errors import SiteDataError

DEFAULT_MAX_VOXELS = 1_200_000_000
"""As `nognet.config.PreparationConfig.max_volume_voxels`: 4 500 slices of 512 x 512."""


def check_voxels(where: str, size: Sequence[int], max_voxels: int) -> None:
    """Refuse an image that claims more voxels than allowed.

    Raises:
        SiteDataError: code ``too-large``.
    """
    voxels = math.prod(size)
    if voxels > max_voxels:
        shown = " x ".join(str(n) for n in size)
        raise SiteDataError(
            f"{where}: {shown} voxels; at most {max_voxels} are allowed "
            "(preparation.max_volume_voxels)",
            code="too-large",
        )
