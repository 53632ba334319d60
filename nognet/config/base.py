"""The base of every configuration model and the parts that study and site share."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

NAME_PATTERN = r"^[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?$"
Name = Annotated[
    str,
    Field(
        pattern=NAME_PATTERN,
        description="Lower-case letters, digits, '-' and '_', at most 64 characters.",
    ),
]
Address = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9.-]+:[0-9]{1,5}$",
        description="host:port, without a scheme.",
        examples=["nognet.example.org:9443"],
    ),
]

DEFAULT_MAX_DELTA = 1e-3
"""At which a site's own limits of epsilon hold where it says nothing: one chance in a thousand."""


class ConfigModel(BaseModel):
    """A frozen part of a configuration file that admits no unknown key."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    def canonical_json(self) -> str:
        """Serialise with sorted keys, so that equal configurations have equal text."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    def digest(self) -> str:
        """SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()


class RoiConfig(ConfigModel):
    """The region of interest around the baseline nodule, always at 1 mm isotropic spacing."""

    size_vox: int = Field(default=48, ge=32, le=96, multiple_of=16)
    """Voxels along each edge; 48 (NoFoNet) or 64 (NGP-Net)."""
    hu_window: tuple[float, float] = (-1024.0, 400.0)
    """Hounsfield units that map to 0 and 1; values outside are clipped."""

    @model_validator(mode="after")
    def _window_is_ordered(self) -> RoiConfig:
        if not self.hu_window[0] < self.hu_window[1]:
            raise ValueError("the lower end must be below the upper end")
        return self


def resolve_path(base: Path, path: Path) -> Path:
    """Make a path of a YAML file absolute: relative ones start at the file's folder.

    Raises:
        ValueError: no path can be like that.
    """
    if "\0" in str(path):
        raise ValueError("a path can't hold a NUL character")
    return path if path.is_absolute() else (base / path).resolve()


def resolve_paths(base: Path, values: dict[str, Any], *keys: str) -> dict[str, Any]:
    """Copy `values` with those of its `keys` that hold a path made absolute from `base`."""
    resolved = dict(values)
    for key in keys:
        if isinstance(resolved.get(key), str | Path):
            resolved[key] = str(resolve_path(base, Path(resolved[key])))
    return resolved
