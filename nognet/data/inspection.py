"""What is known of one series, one mask or one file: the row that `nognet inspect` prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nognet.data.findings import Finding
from nognet.types import Vector3

Kind = Literal["ct", "mask", "image", "file", "archive"]
Status = Literal["ok", "warning", "refused", "skipped"]
_WORST_FIRST = ("refused", "warning", "skipped")


@dataclass(frozen=True)
class Inspected:
    """One row: a CT series, a mask, another image, or a file that is none of them.

    Attributes:
        path: The file, or the folder of a series; inside an archive ``archive.zip!entry``.
        kind: What it is: ``ct``, ``mask``, another ``image``, a ``file`` without a usable image, or
            an ``archive`` that was not opened.
        modality: DICOM's, or the suffix of other files (``NIFTI``, ``NRRD``, ``MHA``).
        series_uid: SeriesInstanceUID; empty where there is none.
        slices: Images (frames) of the series; 0 where there is none.
        size: Voxels along x, y, z; None where the images make no volume.
        spacing_mm: Distance of voxel centres along x, y, z; likewise.
        orientation: ``axial``, ``coronal`` or ``sagittal``, the nearest plane; empty if not known.
        kernel: ConvolutionKernel; empty where not known.
        hu_range: Least and greatest HU as read (padding at -1024); None where nothing was read.
        findings: All that was found, in the order in which it was found.
        note: What is no fault but worth knowing: why `kind` was guessed, which segments a mask has.
    """

    path: str
    kind: Kind
    modality: str
    series_uid: str = ""
    slices: int = 0
    size: tuple[int, int, int] | None = None
    spacing_mm: Vector3 | None = None
    orientation: str = ""
    kernel: str = ""
    hu_range: tuple[float, float] | None = None
    findings: tuple[Finding, ...] = ()
    note: str = ""

    @property
    def status(self) -> Status:
        """The worst of the findings; a row of skips alone is ``skipped``."""
        found = {finding.severity for finding in self.findings}
        return next((severity for severity in _WORST_FIRST if severity in found), "ok")

    @property
    def codes(self) -> tuple[str, ...]:
        """Codes, each once, the worst first."""
        ordered = sorted(self.findings, key=lambda f: _WORST_FIRST.index(f.severity))
        return tuple(dict.fromkeys(finding.code for finding in ordered))

    @property
    def message(self) -> str:
        """All that there is to say, in one sentence."""
        said = [finding.message for finding in self.findings]
        return "; ".join(dict.fromkeys(filter(None, [*said, self.note])))

    def as_json(self) -> dict[str, Any]:
        """Give the row as JSON values; `code` holds all codes, parted by spaces."""
        return {
            "path": self.path,
            "kind": self.kind,
            "modality": self.modality,
            "series_uid": self.series_uid,
            "slices": self.slices,
            "size": list(self.size) if self.size else None,
            "spacing_mm": [round(v, 6) for v in self.spacing_mm] if self.spacing_mm else None,
            "orientation": self.orientation,
            "kernel": self.kernel,
            "hu_range": [round(hu, 3) for hu in self.hu_range] if self.hu_range else None,
            "status": self.status,
            "code": " ".join(self.codes),
            "codes": list(self.codes),
            "message": self.message,
            "findings": [
                {"code": f.code, "severity": f.severity, "message": f.message}
                for f in self.findings
            ],
        }


def nearest_plane(normal: NDArray[np.float64]) -> str:
    """Name the plane that images with this normal lie nearest to.

    >>> nearest_plane(np.array([0.1, -0.2, 0.97]))
    'axial'
    """
    return ("sagittal", "coronal", "axial")[int(np.abs(normal).argmax())]
