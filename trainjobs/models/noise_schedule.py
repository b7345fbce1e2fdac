"""A noise schedule that is learned: gamma(t), minus the logarithm of the signal-to-noise ratio, monotone in t from 0 to 1, its ends fixed.

gamma(t) = first + (last - first) (h(t) - h(0)) / (h(1) - h(0)),   h(t) = a t + 1/K sum_k c_k sigmoid(b_k (2t - 1) + d_k),   a, b, c > 0
(Kingma, Salimans, Poole and Ho, "Variational diffusion models", 2021, arXiv 2107.00630, appendices D and H). It starts almost linear: the
middles of the sigmoids are spread evenly over the times.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FIRST, LAST = -13.3, 5.0  # gamma at t = 0 and 1, as the paper's start
_UNITS = 1024


class NoiseSchedule(nn.Module):
    """float [B] times in [0, 1] -> (gamma, d gamma / dt), float32 [B] both."""

    def __init__(self, units: int = _UNITS) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(1))
        self.heights = nn.Parameter(torch.zeros(units))
        self.steepness = nn.Parameter(torch.normal(2.0, 1.0, (units,)))
        middles = torch.rand(units) * 2.0 - 1.0
        self.offsets = nn.Parameter((-F.softplus(self.steepness) * middles).detach())

    def forward(self, t_B: Tensor) -> tuple[Tensor, Tensor]:
        # In single precision whatever the weights are kept in: neighbouring times differ by less than bf16 can say.
        a, b_K, c_K = (F.softplus(raw.float()) for raw in (self.slope, self.steepness, self.heights))
        times = torch.cat([t_B.float(), torch.arange(2.0, device=t_B.device)])[:, None]
        share = (b_K * (2.0 * times - 1.0) + self.offsets.float()).sigmoid()
        h = a * times.squeeze(1) + (c_K * share).mean(dim=1)
        slope_B = a + (c_K * 2.0 * b_K * share * (1.0 - share)).mean(dim=1)[:-2]
        scale = (LAST - FIRST) / (h[-1] - h[-2])
        return FIRST + scale * (h[:-2] - h[-2]), scale * slope_B
