"""PSNR, SSIM, DSC, volume errors and growth AUC, kept as mergeable statistics."""

from nognet.metrics.definitions import (
    DEFINITIONS,
    DEFINITIONS_VERSION,
    METRIC_NAMES,
    PAIR_METRIC_NAMES,
    MetricDefinition,
    definition_texts,
    is_better,
)

__all__ = [
    "DEFINITIONS",
    "DEFINITIONS_VERSION",
    "METRIC_NAMES",
    "PAIR_METRIC_NAMES",
    "MetricDefinition",
    "definition_texts",
    "is_better",
]
