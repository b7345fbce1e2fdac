"""Self-attention between the places of a feature map, as GANs have it.

    o_j = W_o sum_i softmax_i(f(x_i) . g(x_j)) h(x_i),    y = x + gamma o

f, g and h, W_o are 1 x 1 convolutions to and from C/8, C/8 and C/2 channels, gamma a number that starts at 0, so that the network begins
as it would be without: Zhang et al., "Self-attention generative adversarial networks", 2019 (arXiv 1805.08318, equations 1 to 3).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel


class SelfAttention(nn.Module):
    """float [B, C, H, W] to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow, half = max(1, channels // 8), max(1, channels // 2)
        self.query = nn.Conv2d(channels, narrow, 1, bias=False)
        self.key = nn.Conv2d(channels, narrow, 1, bias=False)
        self.value = nn.Conv2d(channels, half, 1, bias=False)
        self.out = nn.Conv2d(half, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        q_BLD, k_BLD, v_BLE = (layer(x_BCHW).flatten(2).transpose(1, 2) for layer in (self.query, self.key, self.value))
        # The other kernels have no second derivative, which R1 and the gradient penalty take.
        with sdpa_kernel(SDPBackend.MATH):
            o_BLE = F.scaled_dot_product_attention(q_BLD[:, None], k_BLD[:, None], v_BLE[:, None], scale=1.0)[:, 0]
        attended: Tensor = self.out(o_BLE.transpose(1, 2).reshape(len(x_BCHW), -1, *x_BCHW.shape[2:]))
        return x_BCHW + self.gamma * attended
