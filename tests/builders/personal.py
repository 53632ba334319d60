"""Federations whose sites have something of their own: sites that share, what they keep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nognet_client.personal.state import PersonalState
from nognet_server.runs.checkpoints import load_identity
from nognet_server.runs.folder import RunFolder

from nognet.report.metrics_file import read_metrics
from nognet.report.metrics_schema import FinalEntry
from tests.builders.federation import make_site

SITES = ("site_a", "site_b")


def sites_in(
    folder: Path, *, sharing: Sequence[str] = (), names: Sequence[str] = SITES
) -> list[Path]:
    """Make sites, some of which let their models visit others."""
    paths = [make_site(folder, name) for name in names]
    for path in paths:
        if path.parent.name in sharing:
            path.write_text(path.read_text() + "share_models: true\n")
    return paths


def state_of(folder: Path, site: str, done: RunFolder) -> PersonalState:
    """Give what a site keeps of a run."""
    return PersonalState(folder / site / "state", load_identity(done, 0).run_token)


def final_of(done: RunFolder) -> FinalEntry:
    """Read the final figures of a run that completed."""
    metrics = read_metrics(done.path)
    assert metrics.status == "completed"
    assert metrics.final is not None
    return metrics.final
