"""`nognet privacy`: what noised steps cost, or how much noise a wanted cost needs."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from nognet.commands.privacy_central import plan_central
from nognet.console import emit, say

app = typer.Typer(no_args_is_help=True, help="Differential privacy whose record is the patient.")


app.command("plan-central")(plan_central)


@app.callback()
def _group() -> None:
    """Keep `plan` a subcommand while it is the only one."""


@app.command()
def plan(  # noqa: PLR0913  options of a command line
    *,
    patients: Annotated[int, typer.Option(min=1, help="Patients the site trains on.")],
    batch: Annotated[int, typer.Option(min=1, help="training.batch_size: patients a step.")],
    steps: Annotated[int, typer.Option(min=1, help="Steps in all: rounds x steps_per_round.")],
    delta: Annotated[float, typer.Option(help="Failure probability, below 1 / (2 patients).")],
    noise: Annotated[float | None, typer.Option(help="Noise multiplier; gives epsilon.")] = None,
    target_epsilon: Annotated[
        float | None, typer.Option(help="Epsilon not to be passed; gives the noise.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print what epsilon a study would cost this site, before anything is trained."""
    if (noise is None) == (target_epsilon is None):
        raise typer.BadParameter("give one of --noise and --target-epsilon")
    from nognet.privacy.accounting import NoisedSteps, PrivacyHistory, account
    from nognet.privacy.calibration import noise_for_epsilon
    from nognet.privacy.policy import check_delta
    from nognet.privacy.sampling import sample_rate

    check_delta(delta, patients)
    rate = sample_rate(batch, patients)
    if target_epsilon is not None:
        noise = noise_for_epsilon(target_epsilon, rate=rate, steps=steps, delta=delta)
    accounts = account(PrivacyHistory((NoisedSteps(noise or 0.0, rate, steps),)), delta)
    figures = {
        "patients": patients,
        "sample_rate": rate,
        "steps": steps,
        "noise_multiplier": noise,
        "delta": delta,
        "epsilon": accounts.epsilon,
        "epsilon_prv": accounts.prv,
        "epsilon_rdp": accounts.rdp,
        "empty_batch_share": (1 - rate) ** patients,
    }
    if as_json:
        emit(json.dumps(figures, indent=2, allow_nan=False))
        return
    emit(f"noise_multiplier {noise:g}: epsilon {accounts.epsilon:.3f} at delta {delta:g}")
    emit(f"  {steps} steps, each patient drawn with probability {rate:.4g} in each")
    prv = "not computable" if accounts.prv is None else f"{accounts.prv:.3f}"
    emit(f"  upper bounds: PRV {prv}, RDP {accounts.rdp:.3f}")
    if accounts.epsilon > 10:
        say("An epsilon above 10 promises a patient hardly anything.")
