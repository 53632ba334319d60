"""`nognet config`: the schema of the configuration files, and a check of one."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nognet.console import emit

app = typer.Typer(no_args_is_help=True, help="Schema and check of study.yaml and site.yaml.")


class Kind(StrEnum):
    """Which of the two configuration files."""

    study = "study"
    site = "site"


@app.command()
def schema(kind: Annotated[Kind, typer.Argument(help="study or site")] = Kind.study) -> None:
    """Print the JSON Schema of study.yaml or site.yaml."""
    from nognet.config import SiteConfig, StudyConfig

    model = StudyConfig if kind is Kind.study else SiteConfig
    emit(json.dumps(model.model_json_schema(), indent=2))


@app.command()
def check(
    path: Annotated[Path, typer.Argument(help="A study.yaml or site.yaml.")],
    kind: Annotated[
        Kind | None, typer.Option(help="study or site; by default what its keys are of")
    ] = None,
) -> None:
    """Read a file as its command would, and list every fault in it."""
    from nognet.config import StudyConfig, load_config, load_site, load_study

    load = {None: load_config, Kind.study: load_study, Kind.site: load_site}[kind]
    config = load(path)
    found = Kind.study if isinstance(config, StudyConfig) else Kind.site
    emit(f"{path}: ok, {found.value} '{config.name}'")
