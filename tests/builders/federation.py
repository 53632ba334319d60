"""Small hospitals with prepared pairs of growing spheres, and studies that train in seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from nognet_client.app import build_app
from nognet_client.tasks import Work
from nognet_server.app import app
from nognet_server.runs.checkpoints import load_weights
from nognet_server.runs.flower_config import RunSettings
from nognet_server.runs.folder import RunFolder, new_run_folder, write_study
from nognet_server.simulation.engine import SimulatedSite, simulate

from nognet.config import RoiConfig, SiteConfig, StudyConfig, load_site
from nognet.data.store import PreparedSite, open_store, write_store
from nognet.fit.outcome import RoundOutcome
from nognet.fit.weights import Weights, weight_spec
from nognet.metrics.statistics import PairRow, SiteStatistics
from nognet.types import RoiPair, Split
from nognet.wire.flat import FlatWeights, flat_length

ROI = RoiConfig(size_vox=32)


def sphere(radius_vox: float, size_vox: int = 32) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Make a centred ball ``(D, H, W)``."""
    grid = np.indices((size_vox,) * 3) - (size_vox - 1) / 2
    return (np.sqrt((grid**2).sum(0)) <= radius_vox).astype(np.uint8)


def roi_pair(number: int, rng: np.random.Generator) -> RoiPair:
    """Make a pair of a ball that grows, stays or shrinks."""
    radius = rng.uniform(3.5, 6.0)
    factor = (1.35, 1.0, 0.8)[number % 3]
    masks = sphere(radius), sphere(radius * factor)
    noise = rng.normal(0.0, 0.02, (2, 32, 32, 32))
    images = [
        np.clip(0.15 + 0.6 * m + n, 0, 1).astype(np.float32)
        for m, n in zip(masks, noise, strict=True)
    ]
    return RoiPair(
        pair_id=f"{number:08x}",
        patient_id=f"{number:06x}",
        baseline=images[0],
        baseline_mask=masks[0],
        follow_up=images[1],
        follow_up_mask=masks[1],
        interval_days=float(rng.integers(90, 400)),
        baseline_volume_mm3=float(masks[0].sum()),
        follow_up_volume_mm3=float(masks[1].sum()),
    )


def make_site(folder: Path, name: str, *, pairs: int = 7, seed: int = 0, **egress: Any) -> Path:
    """Write a site with prepared pairs; give the path of its `site.yaml`.

    `egress` are limits of its gate. Splits have two and three patients, so by default none of their
    figures are withheld.
    """
    rng = np.random.default_rng((seed, *name.encode()))
    made = [roi_pair(number, rng) for number in range(pairs)]
    order: tuple[Split, ...] = (
        "train",
        "train",
        "train",
        "validation",
        "validation",
        "test",
        "test",
    )
    splits = {pair.patient_id: order[i % len(order)] for i, pair in enumerate(made)}
    home = folder / name
    home.mkdir(parents=True)
    write_store(home / "cache", made, splits, roi=ROI)
    path = home / "site.yaml"
    values: dict[str, Any] = {
        "name": name,
        "studies": "studies.csv",
        "seed": 3,
        "device": "cpu",
        "threads": 1,
    }
    values |= {"roi": {"size_vox": 32}, "egress": {"min_patients": 1, **egress}}
    path.write_text(yaml.safe_dump(values))
    return path


def make_study(folder: Path, **changes: Any) -> StudyConfig:
    """Make a study of a tiny network; `changes` replace its parts."""
    values: dict[str, Any] = {
        "name": "tiny",
        "seed": 5,
        "rounds": 2,
        "roi": {"size_vox": 32},
        "network": {"width": 4, "time_features": 2, "embedding_width": 8, "attention_heads": 2},
        "training": {"steps_per_round": 2, "batch_size": 2, "warmup_steps": 0},
        "federation": {"minimum_sites": 1},
        "runs": str(folder / "runs"),
    }
    return StudyConfig.model_validate({**values, **changes})


def opened(site_path: Path) -> tuple[SiteConfig, PreparedSite]:
    """Open a site made by `make_site`."""
    config = load_site(site_path)
    return config, open_store(config.cache)


def run(
    study: StudyConfig,
    site_paths: Sequence[Path],
    *,
    work: Work | None = None,
    folder: RunFolder | None = None,
    workers: int = 2,
) -> RunFolder:
    """Simulate a study to its end, or resume it in `folder`; give its run folder."""
    resumed = folder is not None
    if folder is None:
        folder = new_run_folder(study)
        write_study(folder, study)
    settings = RunSettings(
        study, folder.path, resume=resumed, closed_roster=len(site_paths), poll_s=0.02
    )
    sites = [SimulatedSite(load_site(path).name, path, threads=1) for path in site_paths]
    simulate(app, build_app(work or Work()), sites, settings, workers=workers)
    return folder


def weights_after(folder: RunFolder, number: int, study: StudyConfig) -> FlatWeights:
    """Read the global weights after a round of a run whose sites share all parameters."""
    return load_weights(folder, number, length=flat_length(weight_spec(study.network)))


def at_site(site: str, usual: Callable[..., Any], *, instead: Callable[..., Any]) -> Any:
    """Make a training or evaluation function that does something else at one site."""

    def chosen(study: Any, config: SiteConfig, *arguments: Any, **named: Any) -> Any:
        function = instead if config.name == site else usual
        return function(study, config, *arguments, **named)

    return chosen


def stub_work(*, step: float = 0.125) -> Work:
    """Make work that takes no time: training adds `step` to all weights, evaluation one row."""

    def train(
        study: StudyConfig,  # noqa: ARG001  the runner's signature
        site: SiteConfig,  # noqa: ARG001  the runner's signature
        prepared: PreparedSite,
        weights: Weights,
        *,
        round_number: int,  # noqa: ARG001  the runner's signature
        progress: object = None,  # noqa: ARG001  the runner's signature
        correction: object = None,  # noqa: ARG001  the runner's signature
        run_token: str = "",  # noqa: ARG001  the runner's signature
    ) -> RoundOutcome:
        pairs = prepared.records("train")
        return RoundOutcome(
            weights={name: tensor + step for name, tensor in weights.items()},
            n_pairs=len(pairs),
            n_patients=len({record.patient_id for record in pairs}),
            steps=1,
            mean_loss=0.5,
            seconds=0.01,
        )

    return Work(train=train, evaluate=stub_evaluate)


def stub_evaluate(
    study: StudyConfig,  # noqa: ARG001  the runner's signature
    site: SiteConfig,  # noqa: ARG001  the runner's signature
    prepared: PreparedSite,
    weights: Weights,
    *,
    split: Split,
    personal: Weights | None = None,  # noqa: ARG001  the runner's signature
) -> SiteStatistics:
    """Give statistics that rise with the weights."""
    level = float(1 / (1 + np.exp(-float(next(iter(weights.values())).mean()))))
    return SiteStatistics.from_pairs(
        PairRow(predictor, record.patient_id, record.stratum, {"dsc": value}, 1.0)
        for record in prepared.records(split)
        for predictor, value in (("federated", level), ("copy", 0.5))
    )
