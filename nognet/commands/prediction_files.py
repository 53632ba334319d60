"""The images of a prediction as files; what an earlier one left is removed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nognet.types import Geometry

FILE_NAME = "prediction.json"
FIELD_NAME = "displacement_lps_mm.mha"


def forget_earlier(out: Path) -> None:
    """Remove an earlier prediction's files, so that no horizon of another model stays among new."""
    for name in (FILE_NAME, "prior_hu.nii.gz", "prior_mask.nii.gz"):
        (out / name).unlink(missing_ok=True)
    for name in ("follow_up_hu.nii.gz", "follow_up_mask.nii.gz", FIELD_NAME):
        for file in out.glob(f"days_*/{name}"):
            file.unlink()


def write_images(
    folder: Path, name: str, grid: Geometry, *, hu: NDArray[np.float32], mask: NDArray[np.uint8]
) -> None:
    """Write an ROI in HU and its mask."""
    from nognet.data.sitk_bridge import to_sitk

    _write(folder / f"{name}_hu.nii.gz", to_sitk(hu, grid))
    _write(folder / f"{name}_mask.nii.gz", to_sitk(mask, grid))


def write_field(folder: Path, grid: Geometry, field: NDArray[np.float32]) -> None:
    """Write as MHA: NIfTI readers differ in whether they turn a vector's components to RAS."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(field, isVector=True)
    image.SetSpacing(grid.spacing_mm)
    image.SetOrigin(grid.origin_mm)
    _write(folder / FIELD_NAME, image)


def _write(path: Path, image: Any) -> None:  # noqa: ANN401  SimpleITK has no types
    import SimpleITK as sitk

    from nognet.errors import NognetError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(image, str(path), useCompression=True)
    except (RuntimeError, OSError) as err:
        raise NognetError(f"{path}: can't be written ({type(err).__name__})", code="write") from err
