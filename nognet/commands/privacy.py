"""`nognet privacy`: what noised steps cost, how much noise a wanted cost needs, what was spent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from nognet.commands.noise_options import Noise, TargetEpsilon, check_one
from nognet.commands.privacy_central import plan_central
from nognet.commands.privacy_leakage import leakage
from nognet.console import emit, say

app = typer.Typer(no_args_is_help=True, help="Differential privacy whose record is the patient.")


app.command("plan-central")(plan_central)
app.command("leakage")(leakage)


@app.command()
def plan(  # noqa: PLR0913  options of a command line
    *,
    patients: Annotated[int, typer.Option(min=1, help="Patients the site trains on.")],
    batch: Annotated[int, typer.Option(min=1, help="training.batch_size: patients a step.")],
    steps: Annotated[int, typer.Option(min=1, help="Steps in all: rounds x steps_per_round.")],
    delta: Annotated[float, typer.Option(help="Failure probability, below 1 / (2 patients).")],
    noise: Noise = None,
    target_epsilon: TargetEpsilon = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print what epsilon a study would cost this site, before anything is trained."""
    check_one(noise, target_epsilon)
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


@app.command()
def ledger(
    site: Annotated[Path, typer.Option(help="The hospital's site.yaml.")],
    delta: Annotated[
        float | None,
        typer.Option(help="Balance at this delta; by default site.yaml's and those charged at."),
    ] = None,
    each: Annotated[
        bool, typer.Option("--each", help="A line an entry, alike ones of a run not put together.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print every noised step ever charged to this site's patients, and what it comes to."""
    from nognet.audit.log import egress_folder
    from nognet.audit.privacy import count_left_open
    from nognet.commands.privacy_ledger import ledger_document, ledger_lines
    from nognet.config import load_site
    from nognet.fit.budget import ledger_of
    from nognet.privacy.ledger_balance import balance_of, deltas_of

    config = load_site(site)
    kept = ledger_of(config)
    entries = kept.entries()
    limit = None if config.privacy is None else config.privacy.max_epsilon
    own = () if config.privacy is None else (config.privacy.delta,)
    deltas = (delta,) if delta is not None else sorted({*own, *deltas_of(entries)}, reverse=True)
    if entries and not deltas:
        raise typer.BadParameter("no entry says at which delta it was charged; give --delta")
    balances = [balance_of(entries, wanted, max_epsilon=limit) for wanted in deltas]
    left_open = count_left_open(egress_folder(config.state))
    if as_json:
        document = ledger_document(kept.path, entries, balances, left_open=left_open)
        emit(json.dumps(document, indent=2, allow_nan=False))
        return
    for line in ledger_lines(kept.path, entries, balances, each=each, left_open=left_open):
        emit(line)
