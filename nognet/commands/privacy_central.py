"""`nognet privacy plan-central`: what noise for a whole site costs a study, before it runs."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from nognet.commands.noise_options import Noise, TargetEpsilon, check_one
from nognet.console import emit, say


class NoiseFrom(StrEnum):
    """Who makes the noise."""

    COORDINATOR = "coordinator"
    SITES = "sites"


def plan_central(  # noqa: PLR0913  options of a command line
    *,
    sites: Annotated[int, typer.Option(min=1, help="federation.expected_sites.")],
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of the study.")],
    delta: Annotated[float, typer.Option(help="Failure probability, below 1 / (2 sites).")],
    noise: Noise = None,
    target_epsilon: TargetEpsilon = None,
    numbers: Annotated[
        int | None, typer.Option(min=1, help="Numbers shared; by default the default network's.")
    ] = None,
    noise_from: Annotated[
        NoiseFrom, typer.Option(help="Who makes it: sites, with secure_aggregation.")
    ] = NoiseFrom.COORDINATOR,
    surviving: Annotated[
        int | None,
        typer.Option(min=3, help="With --noise-from sites: federation.minimum_sites."),
    ] = None,
    colluding: Annotated[
        int, typer.Option(min=0, help="With --noise-from sites: colluding_sites.")
    ] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print what epsilon central privacy gives each site, and how much of the model it drowns."""
    check_one(noise, target_epsilon)
    if not 0 < delta < 1 / (2 * sites):
        raise typer.BadParameter(f"--delta must be above 0 and below {1 / (2 * sites):.3g}")
    if (noise_from is NoiseFrom.SITES) != (surviving is not None):
        raise typer.BadParameter("give --surviving with --noise-from sites, and not without")
    if surviving is not None and surviving > sites:
        raise typer.BadParameter("--surviving can't be above --sites")
    from nognet.config import NetworkConfig
    from nognet.fit.weights import weight_spec
    from nognet.privacy.central import CentralPlan, cost_in_words, site_noise_for_epsilon
    from nognet.privacy.distributed import noise_share, shared_noise_for_epsilon
    from nognet.wire.flat import flat_length

    length = numbers or flat_length(weight_spec(NetworkConfig()))
    honest = None if surviving is None else surviving - colluding
    if target_epsilon is not None and honest is None:
        noise = site_noise_for_epsilon(target_epsilon, rounds=rounds, delta=delta)
    elif target_epsilon is not None and honest is not None:
        noise = shared_noise_for_epsilon(
            target_epsilon, rounds=rounds, delta=delta, numbers=length, honest=honest
        )
    share = None
    if honest is not None:
        share = noise_share(noise or 0.0, clip_norm=1.0, numbers=length, honest=honest)
    plan = CentralPlan(
        noise_multiplier=noise or 0.0,
        clip_norm=1.0,  # noise and update scale with it alike: it plays no part here
        sites=sites,
        max_weight=1,
        rounds=rounds,
        delta=delta,
        share=share,
    )
    accounts = plan.accounts(plan.whole_run())
    if as_json:
        figures = {
            "sites": sites,
            "rounds": rounds,
            "noise_from": plan.noise_from,
            "honest_sites": honest,
            "noise_multiplier": noise,
            "delta": delta,
            "epsilon": accounts.epsilon,
            "epsilon_prv": accounts.prv,
            "epsilon_rdp": accounts.rdp,
            "numbers": length,
            "noise_ratio": plan.noise_ratio(length),
        }
        emit(json.dumps(figures, indent=2, allow_nan=False))
        return
    for line in cost_in_words(plan, length):
        emit(line)
    if accounts.epsilon > 10:
        say("An epsilon above 10 promises a site hardly anything.")
