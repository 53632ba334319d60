"""`nognet benchmark privacy`: what privacy costs, from random and from phantom weights."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nognet.console import emit, say

if TYPE_CHECKING:
    from nognet.commands.benchmark_privacy_cells import Cell, PrivacyPlan
    from nognet.report.privacy_costs import CellResult
    from nognet.training_bar import StepsTold

_INITS = ("random", "phantom")


def privacy(  # noqa: PLR0913, PLR0917  one parameter an option, typer passes them by name
    epsilons: Annotated[
        str, typer.Option(help="Of a whole run, with commas; inf is training without privacy.")
    ] = "inf,8,4,2,1",
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Runs of each kind.")] = 3,
    inits: Annotated[str, typer.Option(help="random, phantom, or both.")] = "random,phantom",
    workers: Annotated[int, typer.Option(min=1, help="Federations side by side.")] = 2,
    out: Annotated[Path, typer.Option(help="Folder of everything.")] = Path("runs/privacy"),
    patients: Annotated[int, typer.Option(min=5, help="Training patients a site.")] = 96,
    rounds: Annotated[int, typer.Option(min=1, help="Of each run.")] = 4,
    steps: Annotated[int, typer.Option(min=1, help="Of a round.")] = 6,
    batch: Annotated[int, typer.Option(min=1, help="Patients a step, expected.")] = 24,
    clip_norm: Annotated[float, typer.Option(help="Of a patient's gradient.")] = 1.0,
    learning_rate: Annotated[float, typer.Option(help="Of the sites' AdamW.")] = 3e-4,
    pretraining_steps: Annotated[int, typer.Option(min=1, help="Of the pre-training.")] = 400,
    cohort_seed: Annotated[int, typer.Option(help="Of the phantom hospitals.")] = 2026,
    as_json: Annotated[bool, typer.Option("--json", help="Print privacy.json.")] = False,
) -> None:
    """Run whole federations of three phantom hospitals with and without differential privacy.

    Each site finds the noise for epsilon by its patients, batch and all steps; delta is
    1 / (4 patients). A run that is done isn't run again: the same command goes on.
    """
    from nognet.commands.benchmark_privacy_cells import (
        Cell,
        PrivacyPlan,
        lay_out,
        run_cells,
    )
    from nognet.commands.benchmark_privacy_figures import copied
    from nognet.commands.benchmark_privacy_record import about, result_lines
    from nognet.report.privacy_costs import document_of, write_costs
    from nognet.training_bar import steps_told

    plan = PrivacyPlan(
        patients, rounds, steps, batch, clip_norm, learning_rate, pretraining_steps, cohort_seed
    )
    names = _chosen(inits)
    cells = [
        Cell(epsilon, init, seed)
        for epsilon in _epsilons(epsilons)
        for init in names
        for seed in range(1, seeds + 1)
    ]
    lay_out(plan, out)
    with steps_told("pre-training on phantoms", say) as told:
        alone = [_pretrained_alone(plan, out, told)] if "phantom" in names else []
    say(f"{len(cells)} federations, {workers} side by side; those done before are kept")
    results = run_cells(plan, cells, out, workers=workers, told=_tell)
    document = document_of([copied(results), *alone, *results], about(plan))
    write_costs(out, document)
    if as_json:
        emit(json.dumps(document, indent=2, allow_nan=False))
    else:
        for line in result_lines(document["table"]):
            emit(line)
    say(f"written: {out}")


def _pretrained_alone(plan: PrivacyPlan, out: Path, told: StepsTold) -> CellResult:
    from nognet.commands.benchmark_privacy_cells import Cell, pairs_to_test_on, study_values
    from nognet.commands.benchmark_privacy_figures import pretrained_alone
    from nognet.config import StudyConfig

    study = StudyConfig.model_validate(study_values(plan, Cell(None, "phantom", 1), out))
    return pretrained_alone(study, pairs_to_test_on(out), told)


def _epsilons(text: str) -> tuple[float | None, ...]:
    """Read epsilons; None is no privacy."""
    try:
        found = tuple(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError as err:
        raise typer.BadParameter(f"--epsilons: found '{text}', expected as inf,8,4") from err
    if not all(value > 0 for value in found):
        raise typer.BadParameter(f"--epsilons: found '{text}', expected numbers above 0, or inf")
    return tuple(None if math.isinf(value) else value for value in found)


def _chosen(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if not set(found) <= set(_INITS):
        raise typer.BadParameter(f"--inits: found '{text}', expected random, phantom or both")
    return found


def _tell(cell: Cell, seconds: float, *, was_done: bool) -> None:
    say(f"  {cell.name}: " + ("done before" if was_done else f"{seconds:.0f} s"))
