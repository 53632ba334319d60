"""The command line of `nognet-sim`, read and checked before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nognet.config import SiteConfig, StudyConfig, load_site, load_study
from nognet.config.chaos import Fault, parse_chaos
from nognet.errors import ConfigError, ContractError
from nognet_server.runs.folder import RunFolder
from nognet_server.runs.successor import existing_run_folder


@dataclass(frozen=True)
class Request:
    """The command line; `bar` says whether one may be drawn where there is a terminal."""

    study: Path | None
    sites: tuple[Path, ...]
    resume: Path | None = None
    workers: int | None = None
    as_json: bool = False
    verbose: bool = False
    bar: bool = False
    chaos: str | None = None
    reference: bool = True


@dataclass(frozen=True)
class Plan:
    """A command line that makes sense: the study, its sites by name, the run to go on with.

    `faults` are inflicted on the sites, on purpose.
    """

    study: StudyConfig
    sites: tuple[tuple[Path, SiteConfig], ...]
    resumed: RunFolder | None = None
    faults: tuple[Fault, ...] = ()

    @property
    def chaos(self) -> str:
        """Write the faults as they are given; empty without."""
        return ", ".join(map(str, self.faults))


def plan_of(request: Request) -> Plan:
    """Read the study and all sites, and check them together.

    Raises:
        ConfigError: the study, a site, or both together are faulty.
        ContractError: a site's ROI is not the study's.
    """
    study, folder = _study_of(request)
    sites = tuple(_sites_of(request.sites, study))
    names = [config.name for _, config in sites]
    faults = () if request.chaos is None else parse_chaos(request.chaos, names)
    return Plan(study, sites, folder, faults)


def _study_of(request: Request) -> tuple[StudyConfig, RunFolder | None]:
    """Read the study; on resume the run's own, unless another one is given to hold against it."""
    folder = existing_run_folder(request.resume) if request.resume is not None else None
    path = request.study if request.study is not None else folder.study if folder else None
    if path is None:
        raise ConfigError("no study: give --study, or --resume with the folder of a run")
    return load_study(path), folder


def _sites_of(paths: Sequence[Path], study: StudyConfig) -> list[tuple[Path, SiteConfig]]:
    """Read all sites and check them together, before any work is done."""
    configs = [(path, load_site(path)) for path in paths]
    first: dict[str, Path] = {}
    for path, config in configs:
        if config.name in first:
            raise ConfigError(
                f"two sites are named '{config.name}': {first[config.name]} and {path}; names must "
                "be unique"
            )
        first[config.name] = path
        if config.roi != study.roi:
            raise ContractError(
                f"{path}: roi is {_roi_text(config)}, the study's is {_roi_text(study)}; both must "
                "be the same",
                code="roi",
            )
    needed = study.federation.minimum_sites
    if len(configs) < needed:
        raise ConfigError(
            f"{len(configs)} site given, but federation.minimum_sites of the study is {needed}; "
            "give more sites or lower it"
        )
    return sorted(configs, key=lambda item: item[1].name)


def _roi_text(config: SiteConfig | StudyConfig) -> str:
    low, high = config.roi.hu_window
    return f"{config.roi.size_vox} voxels, {low:g} to {high:g} HU"
