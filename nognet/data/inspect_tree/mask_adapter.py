"""Masks by the reader of one segment, until masks can be examined as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nognet.data.ct.header import read_dataset
from nognet.data.ct.image import is_image_file
from nognet.data.findings import Finding
from nognet.data.inspect_tree.examine import DAMAGE, image_format, refusal
from nognet.data.inspection import Inspected
from nognet.data.masks.reading import MaskSource, read_mask_with_findings
from nognet.errors import SiteDataError


def referenced_series(path: Path) -> tuple[str, ...]:
    """List the series that a mask was drawn on."""
    try:
        data, _ = read_dataset(path)
        found = [str(i.SeriesInstanceUID) for i in data.get("ReferencedSeriesSequence") or []]
        for frame in data.get("ReferencedFrameOfReferenceSequence") or []:
            for study in frame.get("RTReferencedStudySequence") or []:
                series = study.get("RTReferencedSeriesSequence") or []
                found += [str(item.SeriesInstanceUID) for item in series]
    except (SiteDataError, *DAMAGE, AttributeError):
        return ()
    return tuple(found)


def examine_mask(path: Path, sources: Sequence[MaskSource]) -> Inspected:
    """Hold a mask against CTs, the first that it fits."""
    modality = image_format(path) if is_image_file(path) else "SEG or RTSTRUCT"
    refused: tuple[Finding, ...] = ()
    for source in sources:
        try:
            reading = read_mask_with_findings(path, source)
        except (SiteDataError, *DAMAGE, AttributeError) as err:
            refused = refused or (refusal(err, path),)
            continue
        return Inspected(str(path), "mask", modality, findings=reading.findings)
    return Inspected(str(path), "mask", modality, findings=refused)
