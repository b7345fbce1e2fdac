"""Fully connected networks for points in the plane: generator, discriminator, autoencoder.

ReLU in the generator, LeakyReLU(0.2) in the discriminator, as in DCGAN; SiLU in the autoencoder. PyTorch's own initialisation of
linear layers (uniform in +-1/sqrt(inputs)).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from trainjobs.models.deviation import MinibatchDeviation
from trainjobs.models.normalization import BatchNorm, normalized


def layers(
    inputs: int, hidden: int, depth: int, outputs: int, activation: Callable[[], nn.Module], *, batch_norm: bool = False
) -> list[nn.Module]:
    """`depth` hidden layers of `hidden` units, then a linear layer."""
    stack: list[nn.Module] = []
    for _ in range(depth):
        stack.append(nn.Linear(inputs, hidden))
        stack += [BatchNorm(hidden)] if batch_norm else []
        stack.append(activation())
        inputs = hidden
    return [*stack, nn.Linear(inputs, outputs)]


class Generator(nn.Module):
    """float [B, latent_dim] -> float [B, dimension], unbounded."""

    def __init__(self, *, latent_dim: int, channels: int, depth: int, dimension: int, batch_norm: bool, spectral: bool = False) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers(latent_dim, channels, depth, dimension, nn.ReLU, batch_norm=batch_norm))
        if spectral:
            normalized(self)

    def forward(self, z_BZ: Tensor) -> Tensor:
        point: Tensor = self.layers(z_BZ)
        return point


class Discriminator(nn.Module):
    """float [B, dimension] -> float [B]: unbounded scores, high for real samples. With a `group`, the last layer also sees how much so many
    consecutive samples differ, and B is a multiple of it."""

    def __init__(self, *, channels: int, depth: int, dimension: int, batch_norm: bool, spectral: bool, group: int | None = None) -> None:
        super().__init__()
        stack = layers(dimension, channels, depth, 1, lambda: nn.LeakyReLU(0.2), batch_norm=batch_norm)
        if group:
            stack[-1:] = [MinibatchDeviation(group), nn.Linear(channels + 1, 1)]
        self.layers = nn.Sequential(*stack)
        if spectral:
            normalized(self)

    def forward(self, x_BD: Tensor) -> Tensor:
        score: Tensor = self.layers(x_BD)
        return score.flatten()


class Encoder(nn.Module):
    """float [B, dimension] -> float [B, 2 * latent_dim]: means, then logarithms of variances."""

    def __init__(self, *, latent_dim: int, channels: int, depth: int, dimension: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers(dimension, channels, depth, 2 * latent_dim, nn.SiLU))

    def forward(self, x_BD: Tensor) -> Tensor:
        moments: Tensor = self.layers(x_BD)
        return moments


class Decoder(nn.Module):
    """float [B, latent_dim] -> float [B, dimension], unbounded."""

    def __init__(self, *, latent_dim: int, channels: int, depth: int, dimension: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers(latent_dim, channels, depth, dimension, nn.SiLU))

    def forward(self, z_BZ: Tensor) -> Tensor:
        point: Tensor = self.layers(z_BZ)
        return point
