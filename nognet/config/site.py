"""`site.yaml`: what a hospital decides for itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from nognet.config.base import (
    Address,
    ConfigModel,
    Name,
    PrivacyConfig,
    RoiConfig,
    resolve_paths,
)


class ServerLinkConfig(ConfigModel):
    """How the site reaches the coordinator, always outbound and over TLS."""

    address: Address
    ca: Path
    """Certificate of the coordinator's CA, handed over when the site was provisioned."""
    key: Path
    """The site's private key, made at the site; its public part is registered."""


class SplitConfig(ConfigModel):
    """Shares of the patients; what is left trains."""

    validation: float = Field(default=0.17, gt=0, lt=1)
    test: float = Field(default=0.33, gt=0, lt=1)

    @model_validator(mode="after")
    def _something_is_left_to_train_on(self) -> SplitConfig:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation ({self.validation}) and test ({self.test}) leave no patients to "
                "train on; their sum must be below 1"
            )
        return self


class RegistrationConfig(ConfigModel):
    """Rigid registration of the follow-up into the baseline frame (Mattes mutual information)."""

    enabled: bool = True
    """Off only where both volumes are already in one frame."""
    region_margin_mm: float = Field(default=40.0, gt=0, le=400)
    """The registration looks at the nodule's surroundings up to this distance."""
    max_shift_mm: float = Field(default=80.0, gt=0)
    """A result that moves the nodule's neighbourhood further is refused."""
    min_ncc: float = Field(default=0.3, ge=-1, le=1)
    """Normalised cross-correlation outside the nodule below which a pair is refused."""


class PreparationConfig(ConfigModel):
    """Limits a pair must meet to be used."""

    max_slice_thickness_mm: float = Field(default=2.5, gt=0)
    """Thicker slices are warned of."""
    max_interval_days: float = Field(default=5 * 365.25, gt=0)
    registration: RegistrationConfig = RegistrationConfig()
    workers: int | None = Field(default=None, ge=1)
    """Processes that prepare studies side by side; by default one a core."""


class SiteConfig(ConfigModel):
    """Everything about one hospital; no word of it leaves the site but its name."""

    name: Name
    studies: Path
    """`studies.csv`: one row a nodule and time point."""
    cache: Path = Path("cache")
    """Folder of the prepared pairs; may be deleted at any time."""
    state: Path = Path("state")
    """Folder of what must survive: keys of pseudonyms, privacy records, local reports."""
    seed: int = Field(default=1, ge=0, lt=2**63)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: int | None = Field(default=None, ge=1)
    """CPU threads for training; by default all of the machine's. Equal bits need equal threads."""
    split: SplitConfig = SplitConfig()
    roi: RoiConfig = RoiConfig()
    preparation: PreparationConfig = PreparationConfig()
    privacy: PrivacyConfig | None = None
    """The site's own limits; of these and the study's the stricter holds."""
    server: ServerLinkConfig | None = None
    """Needed to take part in a deployed run; not in simulation."""

    @classmethod
    def with_paths_from(cls, base: Path, values: dict[str, Any]) -> dict[str, Any]:
        """Make the paths of the raw YAML values absolute, relative ones from folder `base`."""
        filled = {"cache": "cache", "state": "state", **values}
        resolved = resolve_paths(base, filled, "studies", "cache", "state")
        if isinstance(resolved.get("server"), dict):
            resolved["server"] = resolve_paths(base, resolved["server"], "ca", "key")
        return resolved
