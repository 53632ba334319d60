"""`metrics.json` as a function of the run's values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import nognet
from nognet.config import StudyConfig
from nognet.fit.evaluate import VISITING
from nognet.metrics.definitions import definition_texts
from nognet.metrics.statistics import SiteStatistics
from nognet.privacy.central import CentralPlan
from nognet.report.metrics_schema import SCHEMA_VERSION, RunMetrics, RunStatus
from nognet_server.central_dp.rounds import spent_entry
from nognet_server.roster import Roster
from nognet_server.rounds.loop import barred_sites
from nognet_server.rounds.replies import Evaluation
from nognet_server.runs.checkpoints import RunIdentity
from nognet_server.runs.state import ServerState


@dataclass(frozen=True)
class Visits:
    """Sites' own models, each evaluated on the test patients of every sharing site.

    Attributes:
        statistics: Model's site -> test site -> its statistics of the predictor `visiting`.
        absent: Sites that gave no model, or lack figures as hosts, and why.
    """

    statistics: Mapping[str, Mapping[str, SiteStatistics]] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Final:
    """The test evaluation of one round's global weights, and of sites' models at one another."""

    round_number: int
    test: Evaluation
    visits: Visits | None = None


@dataclass(frozen=True)
class RunValues:
    """What a run has come to so far; `central` is its plan of central privacy."""

    state: ServerState
    roster: Roster = field(default_factory=Roster)
    final: Final | None = None
    central: CentralPlan | None = None


def metrics_document(
    study: StudyConfig,
    identity: RunIdentity,
    values: RunValues,
    *,
    status: RunStatus,
    seconds: float,
) -> RunMetrics:
    """Make the whole document; its schema holds every number to be finite or None."""
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "nognet_version": nognet.__version__,
        "study": json.loads(study.for_sites()),
        "run": identity.run_token,
        "contract_hash": identity.contract_hash,
        "began_with": dict(identity.began_with),
        "status": status,
        "started": identity.started,
        "ended": None if status == "running" else utc_now(),
        "seconds": round(seconds, 3),
        "definitions": definition_texts(),
        "sites": {
            name: {
                "counts": member.counts,
                "joined": dict(member.versions),
                "min_patients": member.min_patients,
            }
            for name, member in sorted(values.roster.members.items())
        },
        "refused": {r.label: r.reason for r in values.roster.refused.values()},
        "barred": barred_sites(study, values.state),
        "rounds": list(values.state.history),
        "final": _final_entry(values.final),
        "central_privacy": spent_entry(values.central, values.state),
    }
    return RunMetrics.model_validate(document)


def utc_now() -> str:
    """Give the time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _final_entry(final: Final | None) -> Mapping[str, Any] | None:
    if final is None:
        return None
    return {
        "round": final.round_number,
        "sites": {
            site: {"test": statistics.figures()}
            for site, statistics in sorted(final.test.statistics.items())
        },
        "left_out": dict(final.test.left_out),
        "pooled": {"test": final.test.pooled().figures()},
        **_visits_entry(final.visits),
    }


def _visits_entry(visits: Visits | None) -> Mapping[str, Any]:
    if visits is None:
        return {}
    return {
        "cross_site": {
            model_of: {
                site: statistics.figures()[VISITING]
                for site, statistics in sorted(at_sites.items())
            }
            for model_of, at_sites in sorted(visits.statistics.items())
        },
        "cross_site_absent": dict(visits.absent),
    }
