"""`study.yaml`'s ``init``: the weights that a new run begins with.

They matter to the first round alone: a run that is gone on with (`--resume`, `--warm-start`) has
weights of its own, and its `init` plays no part any more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field

from nognet.config.base import ConfigModel, resolve_paths

_HIDDEN_PATH = Path("model.nognet")


class RandomInit(ConfigModel):
    """Drawn from the study's seed."""

    name: Literal["random"] = "random"


class PhantomInit(ConfigModel):
    """Trained by the coordinator on phantoms first, each of them seen once. No patient is used."""

    name: Literal["phantom"] = "phantom"
    steps: int = Field(default=600, ge=1, le=1_000_000)
    batch_size: int = Field(default=4, ge=1, le=256)
    """Phantom pairs a step."""
    learning_rate: float = Field(default=2e-3, gt=0, le=1)
    """After a warm-up it falls by a cosine to a tenth."""
    seed: int = Field(default=1, ge=0, lt=2**63)
    """Of phantoms, first weights and augmentation; the study's own seed plays no part, so that
    studies with the same network share what was pre-trained."""
    threads: int = Field(default=1, ge=1, le=256)
    """CPU threads of the training. Another number gives other bits in the last places."""


class CheckpointInit(ConfigModel):
    """Read from a model file of a network alike; its weights alone, whatever they come from."""

    name: Literal["checkpoint"]
    path: Path
    """A model file, as `nognet pretrain`, `nognet train` and every run write it."""


InitConfig = Annotated[
    RandomInit | PhantomInit | CheckpointInit,
    Field(discriminator="name"),
]
INIT_NAMES: tuple[str, ...] = tuple(
    get_args(model.model_fields["name"].annotation)[0]
    for model in get_args(get_args(InitConfig)[0])
)
"""All ways to begin, by the names that `study.yaml` knows them by."""


def named_init(value: object) -> object:
    """Let a bare name stand for the way to begin with its defaults.

    >>> named_init("phantom")
    {'name': 'phantom'}
    """
    return {"name": value} if isinstance(value, str) else value


def init_with_path_from(base: Path, value: object) -> object:
    """Make the path in a raw ``init`` absolute, a relative one from folder `base`."""
    return resolve_paths(base, value, "path") if isinstance(value, dict) else value


def without_path(init: InitConfig) -> InitConfig:
    """Replace a path of the coordinator by one that says nothing: for what travels to sites."""
    if isinstance(init, CheckpointInit):
        return init.model_copy(update={"path": _HIDDEN_PATH})
    return init
