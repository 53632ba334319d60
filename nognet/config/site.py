"""`site.yaml`: what a hospital decides for itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from nognet.config.base import (
    Address,
    ConfigModel,
    Name,
    RoiConfig,
    resolve_paths,
)
from nognet.config.consent import ConsentConfig
from nognet.config.egress import EgressConfig
from nognet.config.leakage import LeakageConfig
from nognet.config.privacy import PrivacyConfig
from nognet.config.secure_aggregation import SitePeersConfig


class ServerLinkConfig(ConfigModel):
    """How the site reaches the coordinator, always outbound and over TLS."""

    address: Address
    ca: Path
    """Certificate of the coordinator's CA, handed over when the site was provisioned."""
    key: Path
    """The site's private key, made at the site; its public part is registered."""
    trusted_entities: Path | None = None
    """YAML file of Ed25519 keys (`nognet-server sign` prints the line); a run that none of them
    signed is refused."""


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
    """Registration of the follow-up into the baseline frame: rigid, then affine."""

    enabled: bool = True
    """Off only where both volumes are already in one frame."""
    transform: Literal["rigid", "affine"] = "affine"
    """How far the refinement goes; an affine result keeps the nodule's volume."""
    region_margin_mm: float = Field(default=40.0, gt=0, le=400)
    """The registration looks at the nodule's surroundings up to this distance."""
    max_shift_mm: float | None = Field(default=None, gt=0)
    """A result that moves the nodule's neighbourhood further is refused; by default none is.

    The shift counts the two CTs' origins, which scanners set as they like: half a metre is usual.
    """
    min_ncc: float = Field(default=0.65, ge=-1, le=1)
    """Correlation of the lungs' detail around the nodule below which a pair is refused."""
    warn_ncc: float = Field(default=0.8, ge=-1, le=1)
    """The same, warned of (decision 0006 has what was measured)."""
    min_lung_overlap: float = Field(default=0.6, ge=0, le=1)
    """Dice of the two lungs around the nodule below which a pair is warned of."""

    @model_validator(mode="after")
    def _a_warning_comes_before_a_refusal(self) -> RegistrationConfig:
        if self.warn_ncc < self.min_ncc:
            raise ValueError(f"warn_ncc ({self.warn_ncc:g}) is below min_ncc ({self.min_ncc:g})")
        return self


class PreparationConfig(ConfigModel):
    """Limits that files and pairs must meet to be used."""

    max_slice_thickness_mm: float = Field(default=2.5, gt=0)
    """Thicker slices are warned of."""
    max_thickness_difference_mm: float = Field(default=0.5, ge=0)
    """Slices that differ more between the two times are warned of."""
    max_interval_days: float = Field(default=5 * 365.25, gt=0)
    """Pairs further apart are refused."""
    max_growth_ratio: float = Field(default=10.0, gt=1)
    """A volume that changes more than so many times, up or down, is warned of."""
    max_nodule_displacement_mm: float = Field(default=15.0, gt=0)
    """Nodules whose centres lie further apart after registration are not one nodule: refused.

    Half of the larger nodule's radius is granted on top, for growth to one side.
    """
    warn_nodule_displacement_mm: float = Field(default=7.5, gt=0)
    """The same, warned of."""
    max_cut_fraction: float = Field(default=0.05, ge=0, lt=1)
    """A pair with a larger part of a nodule outside the ROI is refused; any part is warned of."""
    min_covered_fraction: float = Field(default=0.95, ge=0, le=1)
    """A pair with less of its ROI inside a field of view is warned of."""
    min_nodule_volume_mm3: float = Field(default=14.0, ge=0)
    """Smaller nodules (a sphere of 3 mm has 14 mm3) are warned of; smaller specks left aside."""
    nodule_gap_mm: float = Field(default=3.0, ge=0)
    """Parts of a mask further apart than this are several nodules."""
    max_volume_voxels: int = Field(default=1_200_000_000, gt=0)
    """Images that claim more voxels are refused before any of them is read."""
    max_unpacked_bytes: int = Field(default=20 * 2**30, gt=0)
    """Archives that unpack to more are refused."""
    registration: RegistrationConfig = RegistrationConfig()
    workers: int | None = Field(default=None, ge=1)
    """Processes that prepare studies side by side; by default one a core."""

    @model_validator(mode="after")
    def _a_warning_comes_before_a_refusal(self) -> PreparationConfig:
        if self.warn_nodule_displacement_mm > self.max_nodule_displacement_mm:
            raise ValueError(
                f"warn_nodule_displacement_mm ({self.warn_nodule_displacement_mm:g}) is above "
                f"max_nodule_displacement_mm ({self.max_nodule_displacement_mm:g})"
            )
        return self


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
    secure_aggregation: SitePeersConfig | None = None
    """Whose keys the site believes where updates are summed securely; a deployed site without it
    takes part in no such study."""
    consent: ConsentConfig | None = None
    """Which studies the site takes part in, and how far; by default in any."""
    egress: EgressConfig = EgressConfig()
    leakage: LeakageConfig = LeakageConfig()
    share_models: bool = False
    """Where a study asks for it (`personalisation.cross_site`), let this site's own model go to the
    coordinator and on to the other sites that share theirs, and evaluate theirs here. Models
    travel, data doesn't; but a model that was trained here may tell something of who was in it."""
    rehearsal: bool = False
    """This is a site for trials: it takes part in rehearsals, in which it may fail on purpose
    (`nognet-client --chaos`), and in nothing else."""
    server: ServerLinkConfig | None = None
    """Needed to take part in a deployed run; not in simulation."""

    @model_validator(mode="after")
    def _no_model_is_shared_under_privacy(self) -> SiteConfig:
        if self.share_models and self.privacy is not None:
            raise ValueError(
                "share_models: true lets the site's own model travel, which privacy doesn't cover; "
                "set share_models: false, or leave privacy out"
            )
        return self

    @model_validator(mode="after")
    def _required_privacy_has_a_bound(self) -> SiteConfig:
        consent = self.consent
        if consent is None or not consent.require_privacy:
            return self
        if consent.max_epsilon is None and self.privacy is None:
            raise ValueError(
                "consent.require_privacy: true alone accepts noise of any size, also of next to "
                "none; expected a bound of this site's own beside it: add consent.max_epsilon, or "
                "privacy with a noise_multiplier or target_epsilon"
            )
        return self

    @classmethod
    def with_paths_from(cls, base: Path, values: dict[str, Any]) -> dict[str, Any]:
        """Make the paths of the raw YAML values absolute, relative ones from folder `base`."""
        filled = {"cache": "cache", "state": "state", **values}
        resolved = resolve_paths(base, filled, "studies", "cache", "state")
        if isinstance(resolved.get("server"), dict):
            resolved["server"] = resolve_paths(
                base, resolved["server"], "ca", "key", "trusted_entities"
            )
        if isinstance(resolved.get("secure_aggregation"), dict):
            resolved["secure_aggregation"] = resolve_paths(
                base, resolved["secure_aggregation"], "peers"
            )
        return resolved
