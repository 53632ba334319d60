"""`metrics.json`: the record of a run that programs read, rewritten after every round.

Its schema is `nognet.report.metrics_schema`. A change gives a new value, and a file in one step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import nognet
from nognet.errors import WireError
from nognet.files import write_json_atomic
from nognet.metrics.definitions import definition_texts
from nognet.report.metrics_schema import (
    SCHEMA_VERSION,
    FinalEntry,
    RoundEntry,
    RunMetrics,
    RunStatus,
    SiteEntry,
)

METRICS_FILE_NAME = "metrics.json"


def start_metrics(
    study: Mapping[str, Any], *, started: str, sites: Mapping[str, SiteEntry] | None = None
) -> RunMetrics:
    """Begin the record of a run.

    Args:
        study: The study as run, as JSON values (``StudyConfig.model_dump(mode="json")``).
        started: ISO 8601 time with offset.
        sites: The sites that joined.
    """
    return RunMetrics(
        nognet_version=nognet.__version__,
        study=dict(study),
        status="running",
        started=started,
        definitions=definition_texts(),
        sites=dict(sites or {}),
    )


def append_round(metrics: RunMetrics, entry: RoundEntry) -> RunMetrics:
    """Add a finished round.

    Raises:
        ValueError: its number is not above the last one's.
    """
    last = metrics.rounds[-1].round if metrics.rounds else 0
    if entry.round <= last:
        raise ValueError(f"round {entry.round} can't follow round {last}")
    return metrics.model_copy(update={"rounds": (*metrics.rounds, entry)})


def set_final(metrics: RunMetrics, final: FinalEntry) -> RunMetrics:
    """Set the test results of the chosen model."""
    return metrics.model_copy(update={"final": final})


def end_run(metrics: RunMetrics, status: RunStatus, *, ended: str, seconds: float) -> RunMetrics:
    """Set how and when the run ended, and the seconds it took."""
    return metrics.model_copy(update={"status": status, "ended": ended, "seconds": seconds})


def write_metrics(path: Path, metrics: RunMetrics) -> None:
    """Write the file in one step.

    Raises:
        ValueError: a number in it is not finite.
        OSError: the folder can't be written.
    """
    write_json_atomic(path, metrics.model_dump(mode="json"))


def read_metrics(path: Path) -> RunMetrics:
    """Read and check a file, or the file of a run folder.

    Raises:
        WireError: it is missing, no JSON, of another schema version, or doesn't fit the schema.
    """
    source = path / METRICS_FILE_NAME if path.is_dir() else path
    try:
        values = json.loads(source.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise WireError(
            f"{source}: no such file; give a run folder, which holds a {METRICS_FILE_NAME}",
            code="metrics-file",
        ) from err
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as err:
        found = type(err).__name__
        raise WireError(f"{source}: can't be read as JSON ({found})", code="metrics-file") from err
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version != SCHEMA_VERSION:
        raise WireError(
            f"{source}: schema_version is {version!r}, expected {SCHEMA_VERSION}; "
            "use the nognet version that wrote it",
            code="metrics-file",
        )
    try:
        return RunMetrics.model_validate(values)
    except ValidationError as err:
        faults = [
            f"  {'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
            for fault in err.errors()[:10]
        ]
        raise WireError(
            f"{source}: {err.error_count()} entries don't fit the schema\n" + "\n".join(faults),
            code="metrics-file",
        ) from err
