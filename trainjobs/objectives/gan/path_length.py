"""Path length regularisation of a generator with styles: a step in w is to move the image as far, wherever it is made.

    E (l - a)^2,    l = ||J_w^T y||_2 = sqrt(mean over layers of ||grad_{w_layer} sum(G(w) y)||^2),    y ~ N(0, I) / sqrt(H W)
    a <- a + decay (E l - a)

Karras et al., "Analyzing and improving the image quality of StyleGAN", 2020 (arXiv 1912.04958, equation 4). E is over the samples of the
global batch: a is adapted between steps, with the mean over all ranks, so a step sees the a of before it, whatever the batch is cut into;
it begins at 0, is in every commit, and has no gradient. The latents of every `shrink`-th sample of the global batch are enough.
In bf16 a derivative of a derivative loses what it is to measure: it is computed in float32, with autocast off.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from trainjobs.api.gan import PathLength
from trainjobs.models.stylegan2 import Colour, Generator
from trainjobs.noise import Noise
from trainjobs.objectives.gan.gradient_penalty import wide_state


class Traced(nn.Module):
    """A generator that gives the styles beside the images made of them, and the sum of what no slope depends on: the biases of colours."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z_BZ: Tensor, noise: Noise, mixing: float, label_B: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        w_BLW = self.generator.styles(z_BZ, noise, mixing, label_B)
        biases = torch.stack([colour.bias.sum() for colour in cast(Iterable[Colour], self.generator.colours)])
        return w_BLW, self.generator.draw(w_BLW, noise), biases.sum()


def path_lengths(generator: Generator, z_BZ: Tensor, noise: Noise, mixing: float = 0.0, label_B: Tensor | None = None) -> Tensor:
    """float [B], at least float32, with a graph; `noise` is that of the samples."""
    traced = Traced(generator)
    with torch.autocast(z_BZ.device.type, enabled=False):
        w_BLW, image_BCHW, biases = functional_call(traced, wide_state(traced), (z_BZ, noise, mixing, label_B))
        y_BCHW = noise.normal("path", *image_BCHW.shape[1:]).to(image_BCHW.dtype) / math.sqrt(image_BCHW[0, 0].numel())
        (slope_BLW,) = torch.autograd.grad((image_BCHW * y_BCHW).sum(), w_BLW, create_graph=True)
        # Of nothing they would have no gradient, which torch's Adam passes over, and ZeRO takes for 0; so it is 0 everywhere. Not by 0 of
        # the image, whose own gradient would be computed for it.
        length_B: Tensor = slope_BLW.square().sum(dim=2).mean(dim=1).sqrt() + 0.0 * biases
        return length_B


def fewer(noise: Noise, shrink: int) -> Noise:
    """The noise of every `shrink`-th sample; a micro-batch is a multiple of it (GTJ0103), so they are the same however a batch is cut."""
    return Noise(noise.seed, noise.samples[::shrink])


@dataclass
class PathMean:
    """a, and the steps since it was last adapted."""

    settings: PathLength
    mean: float = 0.0

    def penalty(self, lengths_B: Tensor) -> Tensor:
        """Weighed."""
        return self.settings.weight * (lengths_B - self.mean).square().mean()

    def adapt(self, means: Mapping[str, float]) -> None:
        """What was measured since the last time."""
        if "path_length" in means:
            self.mean += self.settings.decay * (means["path_length"] - self.mean)

    def state(self) -> dict[str, Any]:
        return {"mean": self.mean}

    def load_state(self, state: dict[str, Any]) -> None:
        self.mean = float(state["mean"])
