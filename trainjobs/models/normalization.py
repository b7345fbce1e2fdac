"""Normalisation that holds at any precision of the weights.

DeepSpeed's bf16 mode keeps parameters in bf16 and buffers in float32. PyTorch's batch norm refuses that mixture, and spectral norm
multiplies the one with the other; here parameters are read in float32, where the buffers are.
"""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrize import register_parametrization


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation (Ioffe and Szegedy, 2015) of [B, C] or [B, C, H, W], with PyTorch's defaults; the input keeps its type."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        scale, bias = (self.weight.float(), self.bias.float()) if self.affine else (None, None)
        return F.batch_norm(x, self.running_mean, self.running_var, scale, bias, self.training, self.momentum or 0.0, self.eps)


class ConditionalBatchNorm(nn.Module):
    """Batch normalisation whose scale and bias are each class's own: de Vries et al., "Modulating early visual processing by language",
    2017 (arXiv 1707.00683), as Miyato and Koyama, "cGANs with projection discriminator", 2018 (arXiv 1802.05637), have it. It begins as
    batch norm does, with scales of 1 and biases of 0, for every class."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = BatchNorm(channels, affine=False)
        self.scale, self.bias = nn.Embedding(classes, channels), nn.Embedding(classes, channels)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.bias.weight)

    def forward(self, x: Tensor, label_B: Tensor) -> Tensor:
        """[B, C] or [B, C, H, W], and the class of each row, int64."""
        shape = [len(x), -1, *(1 for _ in x.shape[2:])]
        scale: Tensor = self.scale(label_B).float().view(shape)
        bias: Tensor = self.bias(label_B).float().view(shape)
        normal: Tensor = self.norm(x)
        return (normal.float() * scale + bias).to(x.dtype)


class _Float32(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.float()


Layer = TypeVar("Layer", nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.Embedding)


def spectral_norm(layer: Layer) -> Layer:
    """Divide the weight by its largest singular value, estimated by one power iteration per training pass (Miyato et
    al., "Spectral normalization for generative adversarial networks", 2018, arXiv 1802.05957)."""
    register_parametrization(layer, "weight", _Float32())
    parametrizations.spectral_norm(layer)
    return layer


def normalized(network: nn.Module) -> None:
    """Spectral norm on every convolution and linear layer of a network."""
    for layer in list(network.modules()):
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            spectral_norm(layer)  # type: ignore[type-var]
