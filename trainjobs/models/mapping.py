"""The mapping network of StyleGAN: from latents to styles, and of a class to what stands for it.

    w = f(z / |z|),    with classes  w = f(z / |z|, e / |e|),  e = W_e onehot(y)

Equalised layers, whose rate is 0.01 of the others' (Karras et al., "A style-based generator architecture for generative adversarial
networks", 2019, arXiv 1812.04948, section 2). A class is embedded, normalised, and stands beside the latent; the discriminator has a
mapping network of a class alone (Karras et al., "Training generative adversarial networks with limited data", 2020, arXiv 2006.06676,
appendix C).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainjobs.models.equalized import Linear, leaky, unit_length

MAPPING_RATE = 0.01


class Mapping(nn.Sequential):
    """z [B, latent] to w [B, latent]; with `beside`, of z and another [B, latent], each normalised by itself."""

    def __init__(self, latent: int, depth: int, *, beside: bool = False) -> None:
        widths = [2 * latent if beside else latent, *[latent] * (depth - 1)]
        super().__init__(*[Linear(width, latent, rate=MAPPING_RATE) for width in widths])

    def forward(self, z_BZ: Tensor, beside_BZ: Tensor | None = None) -> Tensor:
        w_BW = unit_length(z_BZ)
        if beside_BZ is not None:
            w_BW = torch.cat([w_BW, unit_length(beside_BZ)], dim=1)
        for layer in self:
            w_BW = leaky(layer(w_BW))
        return w_BW


class Embedded(nn.Module):
    """int64 [B] classes to float [B, outputs]."""

    def __init__(self, classes: int, outputs: int) -> None:
        super().__init__()
        self.classes, self.layer = classes, Linear(classes, outputs)

    def forward(self, label_B: Tensor) -> Tensor:
        e_BO: Tensor = self.layer(F.one_hot(label_B, self.classes).to(self.layer.weight.dtype))
        return e_BO
