"""`nognet report`: build a run's report.html again from its metrics.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from nognet.console import emit, say


def report(
    run: Annotated[Path, typer.Option(help="Run folder with metrics.json.")],
    out: Annotated[
        Path | None, typer.Option(help="Where to write; by default report.html in the run folder.")
    ] = None,
    site: Annotated[
        list[Path] | None,
        typer.Option(help="A site.yaml on this machine: draw cases of it. The page stays here."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Build report.html from a run's metrics.json and print the results (also of a running run).

    With --site a hospital draws its own test nodules as the run's model predicts them.
    """
    from nognet.report.html import build_report
    from nognet.report.metrics_file import read_metrics
    from nognet.report.tables import plain_text, print_results

    metrics = read_metrics(run)
    path = build_report(run, _local_cases(run, site or []), out=out)
    if as_json:
        emit(json.dumps(_outcome(metrics, path), indent=2, allow_nan=False))
        return
    import sys

    if sys.stdout.isatty():
        print_results(metrics)
    else:
        emit(plain_text(metrics))
    say(f"report written to {path}")


def _local_cases(run: Path, sites: list[Path]) -> list[Any]:
    from nognet.config import load_site
    from nognet.data.site.prepare import prepared_or_prepare
    from nognet.report.site_cases import cases_of_site

    configs = [load_site(path) for path in sites]
    return [
        case
        for config in configs
        for case in cases_of_site(run / "model.nognet", config, prepared_or_prepare(config))
    ]


def _outcome(metrics: Any, path: Path) -> dict[str, Any]:  # noqa: ANN401  imported late
    from nognet.report.comparison import compare_sites
    from nognet.report.summary import result_sentence

    return {
        "report": str(path),
        "status": metrics.status,
        "rounds": len(metrics.rounds),
        "summary": result_sentence(metrics),
        "verdicts": {c.site: c.verdict for c in compare_sites(metrics)},
        "final": metrics.final.model_dump(mode="json") if metrics.final else None,
    }
