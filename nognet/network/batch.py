"""A batch of pairs as tensors: what every network reads, and what its loss compares with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Prior:
    """A scan before the baseline, for each sample of a batch.

    Attributes:
        image: ``(B, 1, D, H, W)`` in [0, 1], in the baseline's frame.
        mask: The nodule then, the same shape, in {0, 1}.
        days_before: Days from it to the baseline, ``(B,)``; 0 where it is the baseline again.
    """

    image: Tensor
    mask: Tensor
    days_before: Tensor

    @classmethod
    def baseline_again(cls, image: Tensor, mask: Tensor) -> Prior:
        """Stand in for a missing prior scan: the baseline at 0 days."""
        return cls(image, mask, image.new_zeros(image.shape[0]))

    def or_baseline_again(self, image: Tensor, mask: Tensor) -> Prior:
        """Put the baseline, as a network reads it, where a sample has no prior scan.

        What was stacked there may be another: the mask before the network found its own. A sample
        has to give the same beside others with a prior scan as by itself.
        """
        absent = (self.days_before == 0)[:, None, None, None, None]
        return replace(
            self,
            image=torch.where(absent, image, self.image),
            mask=torch.where(absent, mask, self.mask),
        )


@dataclass(frozen=True)
class Batch:
    """A batch of pairs as tensors.

    Attributes:
        image: Baseline ``(B, 1, D, H, W)`` in [0, 1].
        mask: Baseline nodule, the same shape, in {0, 1}; all 0 where a site has none.
        target_image: Follow-up, as `image`.
        target_mask: Follow-up nodule, as `mask`.
        interval_days: ``(B,)``.
        log_growth: Natural logarithm of the true volume ratio on the native grid, ``(B,)``.
        prior: Scans before the baseline; None where no pair has one.
    """

    image: Tensor
    mask: Tensor
    target_image: Tensor
    target_mask: Tensor
    interval_days: Tensor
    log_growth: Tensor
    prior: Prior | None = None

    def __len__(self) -> int:
        """Samples."""
        return self.image.shape[0]

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Batch:
        """Copy to a device."""
        return self.mapped(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def select(self, indices: Sequence[int]) -> Batch:
        """Take some samples, in that order."""
        chosen = list(indices)
        return self.mapped(lambda tensor: tensor[chosen])

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Apply `change` to every tensor."""
        prior = self.prior
        if prior is not None:
            prior = Prior(change(prior.image), change(prior.mask), change(prior.days_before))
        return Batch(
            image=change(self.image),
            mask=change(self.mask),
            target_image=change(self.target_image),
            target_mask=change(self.target_mask),
            interval_days=change(self.interval_days),
            log_growth=change(self.log_growth),
            prior=prior,
        )

    def with_volumes(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Apply `change` to every ``(B, 1, D, H, W)``, images and masks alike."""
        prior = self.prior
        if prior is not None:
            prior = replace(prior, image=change(prior.image), mask=change(prior.mask))
        return replace(
            self,
            image=change(self.image),
            mask=change(self.mask),
            target_image=change(self.target_image),
            target_mask=change(self.target_mask),
            prior=prior,
        )
