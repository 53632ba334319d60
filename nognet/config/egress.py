"""What a site lets out, whatever a study asks."""

from __future__ import annotations

from pydantic import Field

from nognet.config.base import ConfigModel


class EgressConfig(ConfigModel):
    """Limits of the gate through which every byte to the coordinator passes."""

    min_patients: int = Field(default=5, ge=1, le=1_000_000)
    """A count or sum with fewer patients behind it is withheld, and so is another one where the two
    could be told from their sum; a site with fewer training patients doesn't train. 1 withholds
    nothing: for phantoms alone."""
    max_update_norm: float | None = Field(default=None, gt=0)
    """A training update longer than this (Euclidean length) doesn't leave. By default ten times
    the length of the weights received: far above any training that converges."""
