"""`nognet pretrain`: a model trained on phantoms alone, for studies to begin with."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nognet.console import emit, say
from nognet.errors import ConfigError

if TYPE_CHECKING:
    from nognet.config import StudyConfig
    from nognet.fit.pretraining.train import Pretraining

TEST_PATIENTS = 24
"""Phantom patients to test on; none of them was trained on."""
_SHOWN = ("psnr", "psnr_nodule", "ssim", "dsc")


def pretrain(
    study: Annotated[Path, typer.Option(help="The study.yaml: its network, ROI, loss and init.")],
    out: Annotated[Path, typer.Option(help="The model file to write.")],
    steps: Annotated[
        int | None, typer.Option(min=1, help="Instead of init.steps of the study.")
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Where unfinished and finished pre-trainings are kept; default: by out."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what it came to as JSON.")] = False,
) -> None:
    """Pre-train a study's network on phantoms, and test it on others.

    A study begins with the file by `init: {name: checkpoint, path: ...}`, and with the same weights
    by `init: phantom`, where its coordinator pre-trains them itself. No patient is used. Ctrl-C
    loses half a minute at most: the same command goes on.
    """
    from nognet.config import load_study
    from nognet.fit.model_file import save_model
    from nognet.fit.pretraining.cache import pretrained
    from nognet.training_bar import steps_told

    if out.exists() and not force:
        raise ConfigError(
            f"{out}: there is a file already; give another --out, or --force", code="exists"
        )
    config = load_study(study)
    what = _what(config, steps)
    started = time.monotonic()
    with steps_told("pre-training on phantoms", say) as told:
        found = pretrained(what, cache or out.parent / ".pretrained", told)
    seconds = time.monotonic() - started
    save_model(
        out, found.weights, network=found.network, roi=found.roi, provenance=found.provenance
    )
    figures = _tested(what, found.weights)
    if as_json:
        document = {"model": str(out), "seconds": round(seconds, 1), "test": figures}
        emit(json.dumps({**document, "provenance": dict(found.provenance)}, indent=2))
        return
    _print(figures)
    say(f"written: {out} ({seconds:.0f} s); trained on phantoms alone, no patient is in it")


def _what(study: StudyConfig, steps: int | None) -> Pretraining:
    """Say what is pre-trained: the study's own `init: phantom`, or one with the defaults."""
    from nognet.config import PhantomInit
    from nognet.fit.pretraining.beginning import pretraining_of

    settings = study.init if isinstance(study.init, PhantomInit) else PhantomInit()
    if steps is not None:
        settings = settings.model_copy(update={"steps": steps})
    return pretraining_of(study, settings)


def _tested(what: Pretraining, weights: Any) -> dict[str, dict[str, float | None]]:  # noqa: ANN401  Weights, whose import is late
    """Test on phantoms of another seed, beside copying the baseline."""
    from nognet.fit.pretraining.check import figures_on_unseen

    say("test on phantoms that were not trained on")
    return figures_on_unseen(what, weights, patients=TEST_PATIENTS)


def _print(figures: dict[str, dict[str, float | None]]) -> None:
    emit(f"{'predictor':14}" + "".join(f"{metric:>13}" for metric in _SHOWN))
    for name, values in figures.items():
        cells = "".join(f"{_cell(values.get(metric)):>13}" for metric in _SHOWN)
        emit(f"{name:14}{cells}")


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
