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
from nognet.report.style import OTHER_INK, PREDICTOR_INKS, TEXT_INK, figure_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SCHEMA_VERSION = 1
JSON_NAME, CSV_NAME, PICTURE_NAME = "networks.json", "networks.csv", "networks.png"
_LABELS = {
    "predictor": "predictor",
    "title": "title",
    "parameters": "parameters",
    "median steps": "steps",
    "median CPU seconds": "cpu_s",
    "median seconds": "wall_s",
}
_TOOK = {"steps": "steps", "cpu_s": "CPU seconds", "wall_s": "seconds"}
_PANELS = (
    ("psnr", None, "PSNR, dB"),
    ("ssim", None, "SSIM"),
    ("dsc", None, "DSC"),
    ("dsc", "growing", "DSC, growing"),
    ("dsc", "stable", "DSC, stable"),
)
_CAPTION = (
    "MT-NoGNet's mean minus the other's: bar, 95 % interval over patients; small points, each seed"
)
_SEEDS_BELOW = 0.27
"""Of the distance between two rows."""


def differences_of(outcome: Outcome) -> list[Difference]:
    """Compare MT-NoGNet with each other predictor; nothing where it doesn't compete."""
    if all(row.predictor != MODEL for row in outcome.rows):
        return []
    others = compared_names(outcome)
    return [found for other in others for found in compare(outcome.rows, MODEL, other)]


def document_of(
    outcome: Outcome, differences: Sequence[Difference], about: Mapping[str, Any]
) -> dict[str, Any]:
    """Make the document of `networks.json`.

    Args:
        outcome: Of the contest.
        differences: By `differences_of`.
        about: Command, versions, machine, cohort, budget.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        **about,
        "table": table(outcome),
        "differences": [_as_json(found) for found in differences],
        "trainings": [asdict(entry) for entry in outcome.entries],
        "pairs": [_finite(asdict(row)) for row in outcome.rows],
    }


def write_contest(
    out: Path, document: Mapping[str, Any], differences: Sequence[Difference]
) -> None:
    """Write the three files.

    Args:
        out: The folder; made where it doesn't exist.
        document: By `document_of`.
        differences: By `differences_of`; without any there is no picture.

    Raises:
        OSError: the folder can't be written.
    """
    write_json_atomic(out / JSON_NAME, document)
    write_text_atomic(out / CSV_NAME, _csv(document["table"], document["trainings"]))
    if differences:
        with atomic_path(out / PICTURE_NAME) as temporary:
            draw_differences(temporary, differences)


def _as_json(found: Difference) -> dict[str, Any]:
    """JSON's keys are texts."""
    return {**asdict(found), "of_seeds": {str(k): v for k, v in found.of_seeds.items()}}


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no NaN: an undefined metric is null."""
    metrics = {k: None if math.isnan(v) else v for k, v in row["metrics"].items()}
    return {**row, "metrics": metrics}


def _csv(rows: Sequence[Mapping[str, Any]], trainings: Sequence[Mapping[str, Any]]) -> str:
    """Write a row a predictor; what each seed's training took stands in columns of its own."""
    text = io.StringIO()
    columns = list(rows[0]["columns"])
    seeds = list(dict.fromkeys(entry["seed"] for entry in trainings))
    took = {(entry["name"], entry["seed"]): entry["training"] for entry in trainings}
    writer = csv.writer(text, lineterminator="\n")
    heads = [head for column in columns for head in (column, f"{column} sd over seeds")]
    of_seed = [f"{title}, seed {seed}" for seed in seeds for title in _TOOK.values()]
    writer.writerow([*_LABELS, *heads, *of_seed])
    for row in rows:
        cells = [row["columns"][column] for column in columns]
        numbers = [value for cell in cells for value in (cell["mean"], cell["sd"])]
        each = [took.get((row["predictor"], seed), {}).get(k) for seed in seeds for k in _TOOK]
        writer.writerow([*(row[key] for key in _LABELS.values()), *numbers, *each])
    return text.getvalue()


def draw_differences(path: Path, differences: Sequence[Difference]) -> None:
    """Draw MT-NoGNet's gain over every other predictor as PNG: intervals of 95 %, each seed."""
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(found.against for found in differences))
    with figure_style():
        canvas, axes = plt.subplots(
            1,
            len(_PANELS),
            figsize=(11, 1.3 + 0.32 * len(names)),
            sharey=True,
            dpi=130,
            layout="constrained",
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
        canvas.supxlabel(_CAPTION, fontsize=8.5)
        canvas.savefig(path, format="png")
        plt.close(canvas)


def _panel(axis: Axes, found: Sequence[Difference], title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.axvline(0.0, color=OTHER_INK, linewidth=0.8, zorder=1)
    for place, difference in enumerate(found):
        _mark(axis, place, difference)
    axis.set_title(title)
    axis.tick_params(axis="y", length=0)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
    axis.margins(x=0.08)
    axis.grid(axis="x", linewidth=0.4)
    axis.set_axisbelow(True)


def _mark(axis: Axes, place: int, difference: Difference) -> None:
    """Draw the mean with its interval, and below them a small point a seed."""
    if difference.mean is None:
        return
    ink = PREDICTOR_INKS["isotropic" if is_ablation(difference.against) else "federated"]
    if difference.low is not None and difference.high is not None:
        axis.plot([difference.low, difference.high], [place, place], color=ink, linewidth=2.0)
    axis.plot(difference.mean, place, "o", color=ink, markersize=4.5)
    seeds = [value for value in difference.of_seeds.values() if value is not None]
    if len(seeds) > 1:
        axis.plot(seeds, [place + _SEEDS_BELOW] * len(seeds), "o", color=TEXT_INK, markersize=1.8)
