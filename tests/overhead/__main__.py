"""Measure both in one run: ``python -m tests.overhead`` (make bench-overhead)."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from nognet.config import NetworkConfig
from nognet.console import emit, say
from nognet.fit.weights import weight_spec
from nognet.pki.authority import CoordinatorFiles
from nognet.report.metrics_file import read_metrics
from nognet.wire.flat import flat_length
from tests.builders.deployment import deployment
from tests.overhead.limit import ratios, too_slow
from tests.overhead.plain import plain_rounds


def main() -> None:
    """Print the table; ``--json`` for machines. Exit code 1 where a round takes too long."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=56, help="of the network: 56 is 4.8 M numbers")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--sites", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    network = NetworkConfig(width=chosen.width)
    spec = weight_spec(network)
    names = [f"hospital_{letter}" for letter in "abcdefgh"[: chosen.sites]]
    with tempfile.TemporaryDirectory() as folder:
        say("ours ...")
        ours = _ours(Path(folder) / "ours", names, chosen.rounds, chosen.width)
        files = CoordinatorFiles(Path(folder) / "ours" / "coordinator" / "pki")
        found: dict[str, list[float]] = {"ours, one vector": ours}
        shapes = {
            "plain Flower, one vector": [[flat_length(spec)]],
            "plain Flower, the network's tensors": [list(item.shape) for item in spec],
        }
        for name, arrays in shapes.items():
            say(f"{name} ...")
            place = Path(folder) / name.replace(" ", "-").replace(",", "")
            found[name] = plain_rounds(
                place, files, arrays, sites=chosen.sites, rounds=chosen.rounds
            )
    # the first round starts processes and caches
    medians = {name: median(seconds[1:] or seconds) for name, seconds in found.items()}
    _show(found, medians, flat_length(spec), as_json=chosen.json)
    if slow := too_slow(medians):
        say(slow)
        sys.exit(1)


def _ours(folder: Path, names: list[str], rounds: int, width: int) -> list[float]:
    """Seconds of each round's training that no site spent on its work.

    From sending to the last reply, less the longest training of a site.
    """
    folder.mkdir(parents=True)
    study: dict[str, Any] = {
        "rounds": rounds,
        "network": {"width": width},
        "training": {"steps_per_round": 1, "batch_size": 1, "warmup_steps": 0},
        "federation": {"minimum_sites": len(names), "round_timeout_s": 600},
    }
    with deployment(folder, names, **study) as built:
        server = built.server()
        built.clients()
        if server.wait(600) != 0:
            raise RuntimeError(server.output)
        metrics = read_metrics(built.runs / "tiny")
    seconds = []
    for entry in metrics.rounds:
        trained = [part.train for part in entry.sites.values() if part.train is not None]
        trip = max(figures.round_trip_seconds or 0.0 for figures in trained)
        seconds.append(trip - max(figures.seconds for figures in trained))
    return seconds


def _show(
    found: dict[str, list[float]], medians: dict[str, float], numbers: int, *, as_json: bool
) -> None:
    part = ratios(medians)
    if as_json:
        emit(json.dumps({"numbers": numbers, "seconds": found, "ratio": part}, indent=2))
        return
    emit(f"{numbers} float32 numbers; seconds of a training round that are not work, median")
    for name, value in medians.items():
        rounds = ", ".join(f"{second:.1f}" for second in found[name])
        emit(f"{name:38}{value:7.2f} s   ours / it {part[name]:5.2f}   (rounds: {rounds})")


main()
