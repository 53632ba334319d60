"""What is trained and how: the architecture, the loss, the training of a site's round."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from nognet.config.base import ConfigModel

Precision = Literal["fp32", "bf16", "fp16"]
MetricName = Literal[
    "psnr",
    "psnr_nodule",
    "ssim",
    "ssim_nodule",
    "dsc",
    "volume_error",
    "log_volume_error",
    "folded_fraction",
    "interval_coverage",
    "interval_width",
    "growth_auc",
]


class NetworkConfig(ConfigModel):
    """The architecture of MT-NoGNet; it fixes names and shapes of all parameters."""

    width: int = Field(default=8, ge=4, le=64, multiple_of=4)
    """Channels at the finest scale of the encoder; they double at each of 3 coarser scales."""
    stem: Literal["full", "space_to_depth"] = "space_to_depth"
    """Run at full resolution, or fold 2 x 2 x 2 voxels into channels first (about 6x faster)."""
    time_features: int = Field(default=6, ge=1, le=16)
    """Frequencies of the sine and cosine embedding of the interval."""
    embedding_width: int = Field(default=64, ge=8, le=512)
    """Width of the interval embedding that conditions every block."""
    attention: bool = False
    """Cross-task attention, both ways, at the two coarsest scales; no gain shown so far
    (docs/decisions/0008)."""
    attention_heads: int = Field(default=4, ge=1, le=16)
    adaptive_norm: Literal["spatial", "interval", "none"] = "interval"
    """Texture decoder's norms: modulated by the interval and, voxel by voxel, by features of the
    deformation; by the interval alone; or plain."""
    displacement: Literal["svf", "direct"] = "svf"
    """Local field: a stationary velocity field, integrated (diffeomorphic), or used as it is."""
    integration_steps: int = Field(default=5, ge=1, le=10)
    """Squarings of the integration: 2^n Euler steps."""
    texture: bool = True
    """Texture decoder and refinement; without them the baseline is only warped."""
    deep_supervision: bool = False
    """Heads of image and mask at 1/2 and 1/4 scale; no gain shown so far (docs/decisions/0008)."""
    prior_scan: bool = False
    """Take a second, earlier scan with its own interval; where a pair has none, the baseline is
    repeated at 0 days."""
    missing_mask: Literal["refused", "predicted", "zeros"] = "refused"
    """An empty baseline mask is refused; or it means that the site has none, and the network's own
    segmentation (trained where masks are) or zeros stand in for it."""
    max_log_growth_per_year: float = Field(default=3.0, gt=0, le=20)
    """Bound of the growth-rate head: natural logarithm of the volume ratio, a year."""


class LossConfig(ConfigModel):
    """Weights of the terms of the loss; each term is a mean over samples."""

    image_l1: float = Field(default=1.0, ge=0)
    image_mse: float = Field(default=20.0, ge=0)
    """Over the whole ROI."""
    ncc: float = Field(default=0.0, ge=0)
    """1 - normalised cross-correlation of the whole ROI (NoFoNet eq. 4)."""
    region_l1: float = Field(default=0.0, ge=0)
    """Regional focus: L1 in the dilated union of baseline and follow-up nodule; no gain shown
    so far (docs/decisions/0008)."""
    dice: float = Field(default=1.0, ge=0)
    """Soft Dice of the predicted follow-up mask."""
    growth_rate: float = Field(default=2.0, ge=0)
    """Smooth L1 of the predicted log volume ratio."""
    growth_spread: float = Field(default=0.1, ge=0)
    """Laplace likelihood of the predicted spread of the log volume ratio."""
    segmentation: float = Field(default=0.5, ge=0)
    """Soft Dice of the baseline's own segmentation, with `missing_mask: predicted`."""
    smoothness: float = Field(default=0.05, ge=0)
    """Mean squared spatial gradient of the displacement."""
    residual: float = Field(default=0.05, ge=0)
    """Mean absolute texture residual."""
    deep_supervision: float = Field(default=0.3, ge=0)
    """The image and Dice terms again at 1/2 and 1/4 scale."""


class UncertaintyConfig(ConfigModel):
    """The interval of the predicted volume."""

    coverage: float = Field(default=0.8, gt=0, lt=1)
    """Nominal coverage; 0.8 needs 4 validation patients at a site, 0.9 needs 9."""


class TrainingConfig(ConfigModel):
    """How each site trains in a round."""

    steps_per_round: int = Field(default=25, ge=1, le=100_000)
    batch_size: int = Field(default=4, ge=1, le=1024)
    learning_rate: float = Field(default=2e-3, gt=0, le=1)
    final_learning_rate_fraction: float = Field(default=0.1, gt=0, le=1)
    """The learning rate of the last round as a fraction of the first (cosine over rounds)."""
    warmup_steps: int = Field(default=10, ge=0)
    """Linear warm-up at the start of every round (the optimiser starts anew in each)."""
    weight_decay: float = Field(default=1e-4, ge=0)
    gradient_clip_norm: float = Field(default=1.0, gt=0)
    accumulate: int = Field(default=1, ge=1, le=1024)
    """Batches whose gradients are averaged, by samples, in one step; not under privacy."""
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    """Decay, a step, of an exponential moving average of the weights; 0 = off. It starts anew from
    the global weights in every round, and the average is what a site sends, evaluates and keeps:
    1 / (1 - decay) steps should be well below the steps of a round."""
    early_stop_rounds: int | None = Field(default=None, ge=1)
    """A site that trains alone stops after so many rounds without a better selection metric."""
    precision: Precision = "fp32"
    """Of convolutions and linear layers; the warp and the losses stay in fp32. fp16 is for CUDA
    alone, and not under privacy."""
    augment: bool = True
    """Random flips and 90-degree rotations, and a small shift of the ROI's intensities."""
