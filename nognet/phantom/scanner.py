"""The hospitals' scanners: thickness, spacing, dose, kernel and table differ from site to site."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from nognet.randomness import numpy_generator


@dataclass(frozen=True)
class Scanner:
    """One hospital's CT scanner and protocol.

    Attributes:
        manufacturer: As in the tag of that name.
        model: As in the tag of that name.
        kernel: ConvolutionKernel.
        kvp: Tube voltage.
        tube_current_ma: XRayTubeCurrent.
        thickness_mm: SliceThickness.
        slice_spacing_mm: Distance of neighbouring slices.
        pixel_mm: PixelSpacing.
        matrix: Rows and columns.
        noise_hu: Standard deviation in lung.
        noise_blur: In-plane correlation of the noise: 3-tap smoothing passes; negative sharpens.
        edge_mm: Half width of an edge's rise, the scanner's resolution.
        table_mm: Where the middle of the chest lies in the scan (LPS).
        mask_format: How the hospital stores its masks.
    """

    manufacturer: str
    model: str
    kernel: str
    kvp: int
    tube_current_ma: int
    thickness_mm: float
    slice_spacing_mm: float
    pixel_mm: float
    matrix: int
    noise_hu: float
    noise_blur: int
    edge_mm: float
    table_mm: tuple[float, float, float]
    mask_format: Literal["SEG", "RTSTRUCT"]


SCANNERS: tuple[Scanner, ...] = (
    Scanner(
        manufacturer="PHANTOM MEDICAL A", model="Medium 64", kernel="B40f", kvp=120,
        tube_current_ma=110, thickness_mm=1.5, slice_spacing_mm=1.5, pixel_mm=0.84375, matrix=224,
        noise_hu=28.0, noise_blur=1, edge_mm=0.85, table_mm=(0.0, -160.0, -640.0),
        mask_format="SEG",
    ),
    Scanner(
        manufacturer="PHANTOM MEDICAL B", model="Sharp 128", kernel="LUNG", kvp=120,
        tube_current_ma=80, thickness_mm=1.25, slice_spacing_mm=1.25, pixel_mm=0.78125, matrix=240,
        noise_hu=40.0, noise_blur=-1, edge_mm=0.65, table_mm=(6.0, 12.0, 215.0),
        mask_format="RTSTRUCT",
    ),
    Scanner(
        manufacturer="PHANTOM MEDICAL C", model="Low Dose 16", kernel="STANDARD", kvp=100,
        tube_current_ma=40, thickness_mm=2.0, slice_spacing_mm=2.0, pixel_mm=0.90625, matrix=208,
        noise_hu=34.0, noise_blur=2, edge_mm=1.0, table_mm=(-4.0, 0.0, 1290.0),
        mask_format="SEG",
    ),
)  # fmt: skip


def scanner_of_site(site: int, seed: int) -> Scanner:
    """Give the scanner of hospital 0, 1, 2 ...; from the fourth on, variations of the three."""
    scanner = SCANNERS[site % len(SCANNERS)]
    if site < len(SCANNERS):
        return scanner
    rng = numpy_generator(seed, "phantom", "scanner", site)
    return replace(
        scanner,
        model=f"{scanner.model} v{site // len(SCANNERS) + 1}",
        noise_hu=round(float(scanner.noise_hu * np.exp(rng.normal(0, 0.12))), 1),
        table_mm=(*scanner.table_mm[:2], scanner.table_mm[2] + 10.0 * int(rng.integers(-9, 10))),
    )


def site_name(site: int) -> str:
    """Name hospital 0, 1, ... 25, 26 ...

    >>> site_name(0), site_name(26)
    ('hospital_a', 'hospital_aa')
    """
    letters = ""
    number = site + 1
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("a") + rest) + letters
    return f"hospital_{letters}"
