"""The options of a plan: how much noise, or which epsilon it has to give."""

from __future__ import annotations

from typing import Annotated

import typer

Noise = Annotated[float | None, typer.Option(help="Noise multiplier; gives epsilon.")]
TargetEpsilon = Annotated[
    float | None, typer.Option(help="Epsilon not to be passed; gives the noise.")
]


def check_one(noise: float | None, target_epsilon: float | None) -> None:
    """Want one of the two.

    Raises:
        typer.BadParameter: both or none are given.
    """
    if (noise is None) == (target_epsilon is None):
        raise typer.BadParameter("give one of --noise and --target-epsilon")
