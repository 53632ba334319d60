"""The shared encoder, conditioned on the interval."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nognet.config import NetworkConfig
from nognet.network.batch import Prior
from nognet.network.layers import ConvBlock, space_to_depth


@dataclass(frozen=True)
class Features:
    """Encoder features; with width w: `half` (B, w, D/2, ...), `quarter` 2w, `eighth` 4w.

    `finest` is at the resolution of the refinement: the full block's, or `half` itself.
    """

    finest: Tensor
    half: Tensor
    quarter: Tensor
    eighth: Tensor


class Encoder(nn.Module):
    """Encoder of the baseline, and of the scan before it where the network takes one.

    With the full stem a block at full resolution comes first; with space-to-depth 2 x 2 x 2 voxels
    are folded into channels instead. A prior scan comes as further channels: it lies in the
    baseline's frame.
    """

    def __init__(self, config: NetworkConfig, fold: int) -> None:
        super().__init__()
        width, embedding = config.width, config.embedding_width
        self.fold = fold
        volumes = 4 if config.prior_scan else 2
        self.stem = ConvBlock(volumes * fold**3, width, embedding, depth=fold)
        self.at_half = ConvBlock(width, width, embedding, stride=2) if fold == 1 else None
        self.at_quarter = ConvBlock(width, 2 * width, embedding, stride=2)
        self.at_eighth = ConvBlock(2 * width, 4 * width, embedding, stride=2)

    def forward(
        self, image: Tensor, mask: Tensor, prior: Prior | None, embedding: Tensor
    ) -> Features:
        """Encode two (or four) ``(B, 1, D, H, W)`` under the interval embedding ``(B, E)``."""
        volumes = [image - 0.5, mask]
        if prior is not None:
            volumes += [prior.image - 0.5, prior.mask]
        folded = space_to_depth(torch.cat(volumes, dim=1), self.fold)
        finest = self.stem(folded, embedding)
        half = finest if self.at_half is None else self.at_half(finest, embedding)
        quarter = self.at_quarter(half, embedding)
        return Features(finest, half, quarter, self.at_eighth(quarter, embedding))
