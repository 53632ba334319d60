"""The schema of `metrics.json`, version 1: what a run, a round, a site and a figure say.

A program finds a final figure at ``final.sites.<site>.test.<predictor>.<metric>``.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from nognet.types import Split, Stratum

SCHEMA_VERSION: Literal[1] = 1
RunStatus = Literal["running", "completed", "failed", "interrupted"]


class _Part(BaseModel):
    """A frozen part of the file: no unknown key, no NaN, no infinity."""

    # By default pydantic writes NaN as null; kept as it is, writing the file refuses it.
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="constants"
    )


class StratumFigure(_Part):
    """A metric's mean over the pairs of one growth stratum; `withheld` as in `Figure`."""

    mean: float | None
    n_pairs: int = Field(ge=0)
    withheld: int = Field(default=0, ge=0)


class Figure(_Part):
    """A metric over pairs: mean, sample standard deviation, counts, strata."""

    mean: float | None
    sd: float | None
    n_patients: int = Field(ge=0)
    n_pairs: int = Field(ge=0)
    withheld: int = Field(default=0, ge=0)
    """Sites whose pairs are not in it: fewer patients than their `min_patients` are behind them, or
    it would tell of such."""
    strata: dict[Stratum, StratumFigure] = {}


Figures = dict[str, dict[str, Figure]]
"""Predictor (or test site) -> metric -> figure, as `SiteStatistics.figures()` gives it."""


class SplitCounts(_Part):
    """What a site holds in one split; None is withheld, as a figure is."""

    patients: int | None = Field(ge=0)
    pairs: int | None = Field(ge=0)
    strata: dict[Stratum, int | None] = {}


class SiteEntry(_Part):
    """A site as it joined: its counts and the versions it runs."""

    counts: dict[Split, SplitCounts] = {}
    joined: dict[str, str | int | float | bool | None] = {}
    min_patients: int = Field(default=1, ge=1)
    """The site withholds counts and figures with fewer patients behind them."""


class TrainFigures(_Part):
    """One site's training in one round."""

    loss: float | None = None
    """Mean training loss; None under differential privacy, where it may not leave the site."""
    seconds: float = Field(ge=0)
    round_trip_seconds: float | None = Field(default=None, ge=0)
    """From sending the task to the reply, as the coordinator saw it."""
    steps: int | None = Field(default=None, ge=0)
    n_pairs: int | None = Field(default=None, ge=0)
    """None, as the patients and the steps, where updates were summed securely."""
    n_patients: int | None = Field(default=None, ge=0)
    epsilon: float | None = None
    """Privacy loss of this run at the site, up to and with this round; other runs are not in it."""
    delta: float | None = None
    bytes_down: int | None = Field(default=None, ge=0)
    bytes_up: int | None = Field(default=None, ge=0)
    update_norm: float | None = Field(default=None, ge=0)
    """Euclidean length of the site's update."""


class SiteRound(_Part):
    """One site in one round; `reason` is a public code where it was left out or declined."""

    status: Literal["ok", "left-out", "declined"]
    reason: str | None = None
    weight: float | None = None
    """None where updates were summed securely: a site's weight is in the sum alone."""
    train: TrainFigures | None = None
    validation: Figures = {}
    evaluate_seconds: float | None = None
    evaluate_bytes_down: int | None = Field(default=None, ge=0)
    evaluate_bytes_up: int | None = Field(default=None, ge=0)


class Selection(_Part):
    """How the round's global model compares with the best so far."""

    metric: str
    value: float | None
    is_best: bool


class SecureSumFigures(_Part):
    """What stands behind a secure sum of the sites' updates."""

    sites: int = Field(ge=3)
    weight: int = Field(ge=1)
    n_pairs: int | None = Field(default=None, ge=1)
    n_patients: int | None = Field(default=None, ge=1)
    """None, as n_pairs, where sites noise what is summed: counts would leave without noise."""
    numbers_clipped: int = Field(ge=0)
    """Numbers of the updates beyond `secure_aggregation.clip_value`."""
    updates_shortened: int = Field(ge=0)
    """Updates longer than `secure_aggregation.clip_norm`."""
    seconds: float = Field(ge=0)
    """That keys, shares and unmasking took beside the training."""


class RoundEntry(_Part):
    """One round: each site's part, and the validation figures pooled over sites."""

    round: int = Field(ge=1)
    seconds: float = Field(ge=0)
    sites: dict[str, SiteRound]
    validation: Figures = {}
    selection: Selection | None = None
    secure_sum: SecureSumFigures | None = None


class TestEntry(_Part):
    """Figures on test patients."""

    __test__ = False  # pytest collects classes named Test...

    test: Figures


class FinalEntry(_Part):
    """The chosen model (of round `round`) on every site's test patients."""

    round: int = Field(ge=0)
    sites: dict[str, TestEntry]
    left_out: dict[str, str] = {}
    """Sites without usable test figures, and the public code of why."""
    pooled: TestEntry | None = None
    cross_site: dict[str, Figures] = {}
    """Model's site -> test site -> metric -> figure; `cross_site_absent`: sites with gaps, why."""
    cross_site_absent: dict[str, str] = {}


class CentralPrivacyEntry(_Part):
    """Site-level differential privacy of the global weights: what it has cost so far."""

    epsilon: float = Field(ge=0)
    """For any one site, of all weights released; what holds of the two below."""
    epsilon_prv: float | None = None
    epsilon_rdp: float = Field(ge=0)
    delta: float
    planned_epsilon: float = Field(ge=0)
    """Once all rounds of the study are played."""
    max_epsilon: float | None = None
    releases: int = Field(ge=0)
    """Rounds released; above the rounds done where some were played again."""
    noise_multiplier: float = Field(gt=0)
    clip_norm: float = Field(gt=0)
    """Of the next round."""
    sites: int = Field(ge=1)
    """What sums are divided by, whoever answered."""
    noise_from: Literal["coordinator", "sites"] = "coordinator"
    honest_sites: int | None = Field(default=None, ge=1)
    """In shares for how many sites the noise was made, where the sites made it; more add to it."""
    noise_ratio: float = Field(ge=0)
    """Length of a round's noise over the longest that a mean update can be."""
    stopped_before_round: int | None = None
    """The round that `max_epsilon` did not let be played."""


class RunMetrics(_Part):
    """The whole file."""

    schema_version: Literal[1] = SCHEMA_VERSION
    nognet_version: str
    study: dict[str, Any]
    run: str | None = None
    """The run's random name; the same before and after a resume."""
    contract_hash: str | None = None
    began_with: dict[str, Any] = {}
    """What the first weights come from: `init`, and the digest of what was read or pre-trained."""
    status: RunStatus
    started: str
    """ISO 8601 with the offset from UTC."""
    ended: str | None = None
    seconds: float | None = None
    definitions: dict[str, str]
    sites: dict[str, SiteEntry] = {}
    refused: dict[str, str] = {}
    """Sites that asked to join and are not used, and why."""
    barred: dict[str, str] = {}
    """Sites that are asked no more: ``quarantined`` or ``withdrawn``."""
    rounds: tuple[RoundEntry, ...] = ()
    final: FinalEntry | None = None
    central_privacy: CentralPrivacyEntry | None = None
