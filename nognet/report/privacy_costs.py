"""What privacy costs, as files: JSON, CSV and a picture of figures over epsilon."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nognet.files import atomic_path, write_json_atomic, write_text_atomic
from nognet.report.style import PREDICTOR_INKS, figure_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SCHEMA_VERSION = 1
METRICS: tuple[tuple[str, str | None], ...] = (
    ("psnr", None),
    ("psnr_nodule", None),
    ("ssim", None),
    ("dsc", None),
    ("dsc", "growing"),
)
Figures = dict[str, float | None]
_TITLES = {
    "psnr": "PSNR, dB",
    "psnr_nodule": "PSNR*, dB",
    "ssim": "SSIM",
    "dsc": "DSC",
    "dsc_growing": "DSC, growing",
}
_INKS = {"random": "isotropic", "phantom": "federated"}
_FLAT = {"copy": ("copy", ":"), "pretrained": ("local", "--")}
"""Rows without an epsilon: the ink's predictor and the line style."""


@dataclass(frozen=True)
class CellResult:
    """One federation's test figures.

    Attributes:
        kind: What it began with: ``random`` or ``phantom``; or ``copy`` or ``pretrained``, which
            are no runs.
        epsilon: Wanted; None without privacy, 0 where no patient is used.
        seed: Of study and sites.
        seconds: Wall time.
        spent: Epsilon that the sites charged, the largest.
        figures: Site, or ``all sites`` -> metric -> mean over the test pairs.
        copy: The same of copying the baseline.
    """

    kind: str
    epsilon: float | None
    seed: int
    seconds: float
    spent: float | None
    figures: Mapping[str, Figures]
    copy: Mapping[str, Figures]


def document_of(results: Sequence[CellResult], about: Mapping[str, Any]) -> dict[str, Any]:
    """Make the document of `privacy.json`: what was done, the table, every run."""
    return {
        "schema_version": SCHEMA_VERSION,
        **about,
        "table": table(results),
        "runs": [asdict(result) for result in results],
    }


def table(results: Sequence[CellResult]) -> list[dict[str, Any]]:
    """Give a row a kind, epsilon and site: mean and standard deviation over seeds."""
    groups: dict[tuple[str, float | None], list[CellResult]] = {}
    for result in results:
        groups.setdefault((result.kind, result.epsilon), []).append(result)
    return [
        {
            "kind": kind,
            "epsilon": epsilon,
            "site": site,
            "runs": len(group),
            "seconds": round(statistics.fmean(result.seconds for result in group), 1),
            "figures": {
                metric: _spread([result.figures[site][metric] for result in group])
                for metric in _TITLES
            },
        }
        for (kind, epsilon), group in groups.items()
        for site in group[0].figures
    ]


def _spread(values: Sequence[float | None]) -> dict[str, float | None]:
    known = [value for value in values if value is not None]
    return {
        "mean": statistics.fmean(known) if known else None,
        "sd": statistics.stdev(known) if len(known) > 1 else None,
    }


def write_costs(out: Path, document: Mapping[str, Any]) -> None:
    """Write `privacy.json`, `privacy.csv` and `privacy.png`.

    Raises:
        OSError: the folder can't be written.
    """
    write_json_atomic(out / "privacy.json", document)
    write_text_atomic(out / "privacy.csv", _csv(document["table"]))
    with atomic_path(out / "privacy.png") as temporary:
        _draw(temporary, [row for row in document["table"] if row["site"] == "all sites"])


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = [head for metric in _TITLES for head in (metric, f"{metric} sd over seeds")]
    writer.writerow(["begins with", "epsilon", "site", "runs", "seconds", *heads])
    for row in rows:
        epsilon = "inf" if row["epsilon"] is None else row["epsilon"]
        numbers = [row["figures"][metric][key] for metric in _TITLES for key in ("mean", "sd")]
        writer.writerow([row["kind"], epsilon, row["site"], row["runs"], row["seconds"], *numbers])
    return text.getvalue()


def _draw(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw each metric over epsilon, a line a beginning, and level lines of what spends none."""
    import matplotlib.pyplot as plt

    with figure_style():
        canvas, axes = plt.subplots(1, len(_TITLES), figsize=(12, 3), dpi=130, layout="constrained")
        for axis, (metric, title) in zip(axes, _TITLES.items(), strict=True):
            _panel(axis, rows, metric)
            axis.set_title(title)
        canvas.legend(
            *axes[0].get_legend_handles_labels(),
            loc="outside upper center",
            ncols=4,
            frameon=False,
        )
        canvas.supxlabel("epsilon of the run, patient-level; inf: without privacy", size="medium")
        canvas.savefig(path, format="png")
        plt.close(canvas)


def _panel(axis: Axes, rows: Sequence[Mapping[str, Any]], metric: str) -> None:
    runs = [row for row in rows if row["kind"] in _INKS]
    wanted = dict.fromkeys(row["epsilon"] for row in runs)
    places = sorted(wanted, key=lambda value: float("inf") if value is None else value)
    for kind, ink in _INKS.items():
        of_kind = {row["epsilon"]: row["figures"][metric] for row in runs if row["kind"] == kind}
        known = [place for place in places if of_kind.get(place, {}).get("mean") is not None]
        axis.errorbar(
            [places.index(place) for place in known],
            [of_kind[place]["mean"] for place in known],
            yerr=[of_kind[place]["sd"] or 0.0 for place in known],
            color=PREDICTOR_INKS[ink],
            marker="o",
            markersize=4,
            linewidth=1.4,
            capsize=2,
            label=f"begun with {kind} weights",
        )
    for row in rows:
        if row["kind"] in _FLAT and row["figures"][metric]["mean"] is not None:
            ink, style = _FLAT[row["kind"]]
            level = row["figures"][metric]["mean"]
            label = "copy of the baseline" if row["kind"] == "copy" else "phantoms alone"
            axis.axhline(level, color=PREDICTOR_INKS[ink], linestyle=style, lw=1, label=label)
    axis.set_xticks(range(len(places)), ["inf" if p is None else f"{p:g}" for p in places])
    axis.grid(visible=True, axis="y")
    axis.set_axisbelow(True)
