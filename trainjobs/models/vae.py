"""The networks of a variational auto-encoder (Kingma and Welling, "Auto-encoding variational Bayes", 2014, arXiv 1312.6114).

`Autoencoder` joins an encoder and a decoder with the reparametrised sample between them (section 2.4 of the paper). Everything goes
through its one `forward`, drawing from the prior too, because DeepSpeed's ZeRO-3 gathers weights in the order of the root's forward.

The convolutional pair: a 3 x 3 convolution at full resolution, strided convolutions down to 4 x 4, a linear layer; the decoder
mirrors it. `channels` feature maps at full resolution, twice as many at each lower one, at most 8 times as many. SiLU; no batch norm,
whose statistics would tie the bound of one image to the others of its batch. PyTorch's own initialisation.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

_WIDEST = 8
_LOWEST = 4


def widths(size: int, channels: int) -> list[int]:
    """Feature maps at size, size / 2, ..., 4 pixels. `size` is a power of two, at least 8."""
    return [channels * min(2**i, _WIDEST) for i in range(size.bit_length() - 2)]


class Encoder(nn.Module):
    """float [B, image_channels, size, size] -> float [B, 2 * latent_dim]: means, then logarithms of variances."""

    def __init__(self, *, latent_dim: int, channels: int, size: int, image_channels: int) -> None:
        super().__init__()
        wide = widths(size, channels)
        layers: list[nn.Module] = [nn.Conv2d(image_channels, wide[0], 3, padding=1), nn.SiLU()]
        for outer, inner in pairwise(wide):
            layers += [nn.Conv2d(outer, inner, 4, stride=2, padding=1), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(wide[-1] * _LOWEST**2, 2 * latent_dim))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        moments: Tensor = self.layers(x_BCHW)
        return moments


class Decoder(nn.Module):
    """float [B, latent_dim] -> float [B, image_channels, size, size], unbounded: means or logits, as the loss reads them."""

    def __init__(self, *, latent_dim: int, channels: int, size: int, image_channels: int) -> None:
        super().__init__()
        wide = widths(size, channels)[::-1]
        layers: list[nn.Module] = [nn.Linear(latent_dim, wide[0] * _LOWEST**2), nn.Unflatten(1, (wide[0], _LOWEST, _LOWEST)), nn.SiLU()]
        for inner, outer in pairwise(wide):
            layers += [nn.ConvTranspose2d(inner, outer, 4, stride=2, padding=1), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(wide[-1], image_channels, 3, padding=1))

    def forward(self, z_BZ: Tensor) -> Tensor:
        image: Tensor = self.layers(z_BZ)
        return image


class Autoencoder(nn.Module):
    """Encodes, draws a latent with the noise given, decodes."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, noise_BZ: Tensor, x: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(reconstruction of x, mean [B, Z], logvar [B, Z]), all float32; without x, a sample of the prior, N(0, I).

        logvar is clamped to [-30, 20], as in latent diffusion's code, so that one bad step cannot make the bound infinite.
        """
        if x is None:
            mean = logvar = torch.zeros_like(noise_BZ)
        else:
            moments: Tensor = self.encoder(x)
            mean, logvar = moments.float().chunk(2, dim=1)
            logvar = logvar.clamp(-30.0, 20.0)
        output: Tensor = self.decoder(mean + (0.5 * logvar).exp() * noise_BZ)
        return output.float(), mean, logvar
