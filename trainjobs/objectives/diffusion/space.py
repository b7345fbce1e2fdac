"""What is diffused: pixels in [-1, 1], or latents of a frozen autoencoder, of about unit variance and without bounds (Rombach et al.,
"High-resolution image synthesis with latent diffusion models", 2022, arXiv 2112.10752). A loss sees no difference; sampling does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from trainjobs.objectives.diffusion.sampler import in_bounds
from trainjobs.objectives.phase import Samples


@dataclass(frozen=True)
class Space:
    """`decode` makes pictures, float [B, C, H, W], of latents; None of pixels."""

    decode: Callable[[Tensor], Tensor] | None = None

    def clipped(self, x: Tensor) -> Tensor:
        """An estimate of x_0, within what there can be."""
        return in_bounds(x) if self.decode is None else x

    def seen(self, x: Tensor) -> Samples:
        """What was drawn, as pictures."""
        return Samples(images=in_bounds(x if self.decode is None else self.decode(x)))


PIXELS = Space()
