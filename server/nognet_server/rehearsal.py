"""What a rehearsal's faults did, round by round, and what they cost in figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nognet.errors import WireError
from nognet.pki.clock import REFUSED_AHEAD_S, REFUSED_BEHIND_S
from nognet.report.metrics_file import read_metrics
from nognet.report.metrics_schema import RunMetrics
from nognet_server.runs.folder import RunFolder

SCHEMA_VERSION = 1
_REHEARSES = {
    "skew": (
        f"a site's clock: from {REFUSED_AHEAD_S:g} s ahead or {REFUSED_BEHIND_S:g} s behind the "
        "coordinator's it is refused, as Flower's node authentication refuses its signature, and "
        "left out (ProvisionError:clock); nearer, its replies carry its clock's time, and count"
    )
}
"""Of faults whose name does not say it: what they rehearse."""
_SHOWN = ("psnr", "ssim", "dsc", "log_volume_error")


def rehearsal(faults: str, folder: RunFolder, calm: RunFolder | None) -> dict[str, Any]:
    """Tell what happened, from the records of the runs with and without the faults.

    Args:
        faults: As given.
        folder: Of the run with them.
        calm: Of the run without; None if there was none.
    """
    with_faults = _metrics(folder)
    without = None if calm is None else _metrics(calm)
    return {
        "schema_version": SCHEMA_VERSION,
        "chaos": faults,
        "rehearses": {kind: text for kind, text in _REHEARSES.items() if f"{kind}:" in faults},
        "run": str(folder.path),
        "calm_run": None if calm is None else str(calm.path),
        "status": "failed" if with_faults is None else with_faults.status,
        "seconds": {"chaos": _seconds(with_faults), "calm": _seconds(without)},
        "events": [] if with_faults is None else list(_events(with_faults)),
        "barred": {} if with_faults is None else dict(with_faults.barred),
        "test": {
            metric: {"chaos": _figure(with_faults, metric), "calm": _figure(without, metric)}
            for metric in _SHOWN
        },
    }


def faults_told(folder: RunFolder) -> str:
    """Give the kinds of faults that a deployed run's sites said they inflict, by site."""
    metrics = _metrics(folder)
    if metrics is None:
        return ""
    told = {name: entry.joined.get("faults") for name, entry in metrics.sites.items()}
    return ", ".join(
        f"{kind}:{name}"
        for name, kinds in sorted(told.items())
        if kinds
        for kind in str(kinds).split(".")
    )


def rehearsal_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Say it in lines."""
    yield f"chaos: {found['chaos']}: run {found['status']}"
    for kind, text in found["rehearses"].items():
        yield f"  {kind} rehearses {text}"
    for event in found["events"]:
        yield f"  round {event['round']}: {event['site']} left out: {event['reason']}"
    if not found["events"]:
        yield "  no site was left out of any round"
    for site, why in found["barred"].items():
        yield f"  {site} is {why}"
    yield f"  {'test, all sites':18}{'with faults':>12}{'without':>12}{'cost':>12}"
    for metric, values in found["test"].items():
        chaos, calm = values["chaos"], values["calm"]
        cost = "-" if chaos is None or calm is None else f"{chaos - calm:+.4f}"
        yield f"  {metric:18}{_shown(chaos):>12}{_shown(calm):>12}{cost:>12}"
    seconds = found["seconds"]
    yield f"  {'seconds':18}{_shown(seconds['chaos'], 1):>12}{_shown(seconds['calm'], 1):>12}"


def _events(metrics: RunMetrics) -> Iterator[dict[str, Any]]:
    for entry in metrics.rounds:
        for site, part in sorted(entry.sites.items()):
            if part.status != "ok":
                yield {"round": entry.round, "site": site, "reason": part.reason}


def _metrics(folder: RunFolder) -> RunMetrics | None:
    try:
        return read_metrics(folder.path)
    except WireError:
        return None


def _seconds(metrics: RunMetrics | None) -> float | None:
    return None if metrics is None else metrics.seconds


def _figure(metrics: RunMetrics | None, metric: str) -> float | None:
    if metrics is None or metrics.final is None or metrics.final.pooled is None:
        return None
    figures = metrics.final.pooled.test.get("federated", {})
    return figures[metric].mean if metric in figures else None


def _shown(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
