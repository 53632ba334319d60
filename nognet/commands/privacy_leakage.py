"""`nognet privacy leakage`: can a model tell who of this site trained it?"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nognet.console import emit, say

if TYPE_CHECKING:
    from nognet.privacy.membership import AttackResult


def leakage(
    site: Annotated[Path, typer.Option(help="The hospital's site.yaml.")],
    model: Annotated[Path, typer.Option(help="The model to attack, as nognet writes it.")],
    reference: Annotated[
        Path | None,
        typer.Option(help="A model before the training: adds the calibrated attack."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Attack a model with this site's patients: were those of the training part in its training?

    Nothing is written and nothing leaves. An AUC of .5 is chance, 1 tells every patient.
    """
    from nognet.config import LossConfig, load_site
    from nognet.data.site.prepare import prepared_or_prepare
    from nognet.fit.device import cpu_threads, resolve_device
    from nognet.fit.leakage import measure_leakage
    from nognet.fit.model_file import load_model

    config = load_site(site)
    attacked = load_model(model)
    before = None if reference is None else load_model(reference).weights
    prepared = prepared_or_prepare(config)
    pairs = (prepared.pairs("train"), prepared.pairs("validation"))
    with cpu_threads(config.threads):
        device = resolve_device(config.device)
        found = measure_leakage(
            attacked.network,
            LossConfig(),
            attacked.weights,
            before,
            pairs,
            device,
            seed=config.seed,
        )
    if as_json:
        document = {name: asdict(result) for name, result in found.items()}
        emit(json.dumps(document, indent=2, allow_nan=False))
        return
    for name, result in found.items():
        emit(_line(name, result))
    if any(result.interval[0] > config.leakage.warn_auc for result in found.values()):
        say(
            f"The model tells who trained it better than leakage.warn_auc "
            f"({config.leakage.warn_auc:g}) allows."
        )


def _line(name: str, result: AttackResult) -> str:
    low, high = result.interval
    line = f"{name}: AUC {result.auc:.3f} (95 % interval {low:.3f} to {high:.3f})"
    parts = [line, f"{result.members} training and {result.others} validation patients"]
    for rate, advantage in result.advantage.items():
        words = "too few patients" if advantage is None else f"{advantage:.3f}"
        parts.append(f"advantage at a false positive rate of {rate}: {words}")
    return "; ".join(parts)
