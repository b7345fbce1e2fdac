"""Minibatch standard deviation: how much samples of a group differ, as one more feature of each.

    s = mean over features and places of sqrt(E (x - E x)^2 + 1e-8),    E over the samples of a group

Karras et al., "Progressive growing of GANs", 2018 (arXiv 1710.10196, section 3; groups of 4 in the authors' code). A group is of samples
that follow each other in the global batch, and lies within one micro-batch (GTJ0103), so it is the same however the batch is cut.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MinibatchDeviation(nn.Module):
    """float [B, C, ...] to [B, C + 1, ...]; B is a multiple of the group."""

    def __init__(self, group: int) -> None:
        super().__init__()
        self.group = group

    def forward(self, x_BC: Tensor) -> Tensor:
        groups = x_BC.to(torch.promote_types(x_BC.dtype, torch.float32)).view(-1, self.group, *x_BC.shape[1:])
        deviation = (groups - groups.mean(dim=1, keepdim=True)).square().mean(dim=1).add(1e-8).sqrt().flatten(1).mean(dim=1)
        one = deviation.to(x_BC.dtype).repeat_interleave(self.group).view(-1, *[1] * (x_BC.dim() - 1))
        return torch.cat([x_BC, one.expand(-1, 1, *x_BC.shape[2:])], dim=1)
