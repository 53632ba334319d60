"""A contest of networks as files: JSON with every pair's figures, CSV, and a picture."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nognet.files import atomic_path, write_json_atomic, write_text_atomic
from nognet.fit.contest.contestants import MODEL
from nognet.fit.contest.intervals import Difference, compare
from nognet.fit.contest.run import Outcome
from nognet.fit.contest.table import compared_names, is_ablation, table, title_of
from nognet.report.style import PREDICTOR_INKS, figure_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SCHEMA_VERSION = 1
JSON_NAME, CSV_NAME, PICTURE_NAME = "networks.json", "networks.csv", "networks.png"
_PANELS = (
    ("psnr", None, "PSNR, dB"),
    ("ssim", None, "SSIM"),
    ("dsc", None, "DSC"),
    ("dsc", "growing", "DSC, growing"),
    ("dsc", "stable", "DSC, stable"),
)


def differences_of(outcome: Outcome) -> list[Difference]:
    """Compare MT-NoGNet with each other predictor; nothing where it doesn't compete."""
    if all(row.predictor != MODEL for row in outcome.rows):
        return []
    others = compared_names(outcome)
    return [found for other in others for found in compare(outcome.rows, MODEL, other)]


def write_contest(
    out: Path, outcome: Outcome, differences: Sequence[Difference], about: Mapping[str, Any]
) -> None:
    """Write the three files.

    Args:
        out: The folder; made where it doesn't exist.
        outcome: Of the contest.
        differences: By `differences_of`.
        about: Command, versions, machine, cohort, budget.

    Raises:
        OSError: the folder can't be written.
    """
    rows = table(outcome)
    document = {
        "schema_version": SCHEMA_VERSION,
        **about,
        "table": rows,
        "differences": [asdict(found) for found in differences],
        "trainings": [asdict(entry) for entry in outcome.entries],
        "pairs": [_finite(asdict(row)) for row in outcome.rows],
    }
    write_json_atomic(out / JSON_NAME, document)
    write_text_atomic(out / CSV_NAME, _csv(rows))
    if differences:
        with atomic_path(out / PICTURE_NAME) as temporary:
            draw_differences(temporary, differences)


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no NaN: an undefined metric is null."""
    metrics = {k: None if math.isnan(v) else v for k, v in row["metrics"].items()}
    return {**row, "metrics": metrics}


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    columns = list(rows[0]["columns"])
    writer = csv.writer(text, lineterminator="\n")
    heads = [head for column in columns for head in (column, f"{column} sd over seeds")]
    writer.writerow(["predictor", "title", "parameters", "steps", *heads])
    for row in rows:
        cells = [row["columns"][column] for column in columns]
        numbers = [value for cell in cells for value in (cell["mean"], cell["sd"])]
        writer.writerow([row["predictor"], row["title"], row["parameters"], row["steps"], *numbers])
    return text.getvalue()


def draw_differences(path: Path, differences: Sequence[Difference]) -> None:
    """Draw MT-NoGNet's gain over every other predictor, with intervals of 95 %, as PNG."""
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(found.against for found in differences))
    with figure_style():
        canvas, axes = plt.subplots(
            1, len(_PANELS), figsize=(11, 1.3 + 0.32 * len(names)), sharey=True, dpi=130
        )
        for axis, (metric, stratum, title) in zip(axes, _PANELS, strict=True):
            chosen = {
                found.against: found
                for found in differences
                if (found.metric, found.stratum) == (metric, stratum)
            }
            _panel(axis, [chosen[name] for name in names], title)
        axes[0].set_yticks(range(len(names)), [title_of(name) for name in names])
        axes[0].invert_yaxis()
        canvas.supxlabel("MT-NoGNet's mean minus the other's, 95 % interval over patients")
        canvas.tight_layout()
        canvas.savefig(path, format="png")
        plt.close(canvas)


def _panel(axis: Axes, found: Sequence[Difference], title: str) -> None:
    axis.axvline(0.0, color="#999999", linewidth=0.8)
    for place, difference in enumerate(found):
        if difference.mean is None:
            continue
        ink = PREDICTOR_INKS["isotropic" if is_ablation(difference.against) else "federated"]
        if difference.low is not None and difference.high is not None:
            axis.plot([difference.low, difference.high], [place, place], color=ink, linewidth=2.0)
        axis.plot(difference.mean, place, "o", color=ink, markersize=4.5)
    axis.set_title(title, fontsize=9)
    axis.grid(axis="x", linewidth=0.4)
