"""Batch norm over the micro-batches of all ranks at once: `training.syncBatchNorm`.

With n rows and pixels of a channel on all ranks, mean = sum x / n and variance = sum (x - mean)^2 / n, of sums over the ranks through which
gradients flow back to every rank's part (Zhang et al., "Context encoding for semantic segmentation", 2018, section 3.2; torch's
SyncBatchNorm, which is for GPUs alone). Two sums a layer, one after the other, so that a mean far from 0 costs no digits of the variance.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce  # the one that has a gradient

from trainjobs.api.errors import JobError
from trainjobs.models.normalization import BatchNorm

_Theirs = nn.modules.batchnorm._BatchNorm


class BatchNormTogether(BatchNorm):
    """BatchNorm, whose parameters, buffers and names it keeps; in training its statistics are those of all ranks."""

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(x)
        wide = x.float()
        over = [0, *range(2, x.dim())]
        shape = [1, -1, *(1 for _ in over[1:])]
        count = wide.numel() / wide.shape[1] * dist.get_world_size()  # ranks have equal micro-batches
        mean = _sum(wide.sum(over)) / count
        centred = wide - mean.view(shape)
        variance = _sum(centred.square().sum(over)) / count
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                self.running_mean.lerp_(mean, self.momentum or 0.0)
                self.running_var.lerp_(variance * (count / max(count - 1.0, 1.0)), self.momentum or 0.0)
        normal = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            normal = normal * self.weight.float().view(shape) + self.bias.float().view(shape)
        return normal.to(x.dtype)


def synchronise(networks: Mapping[str, nn.Module]) -> None:
    """Make every batch norm of the networks one over all ranks. JobError GTJ0108 where there is none."""
    layers = [layer for network in networks.values() for layer in network.modules()]
    found = [layer for layer in layers if isinstance(layer, BatchNorm) or (isinstance(layer, _Theirs) and layer.affine)]
    for layer in found:
        layer.__class__ = BatchNormTogether
    if not found:
        why, how = f"there is no batch norm in {', '.join(networks)}", "take syncBatchNorm out, or give a network normalization: batch"
        raise JobError("GTJ0108", "syncBatchNorm has no effect", where="spec.training.syncBatchNorm", why=why, how=how)


def _sum(value: Tensor) -> Tensor:
    """Over the ranks, with its gradient."""
    total: Tensor = all_reduce(value)  # type: ignore[no-untyped-call]
    return total
