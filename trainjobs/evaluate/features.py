"""Networks whose features say what a picture looks like; those that are built in.

digits  a classifier of handwritten digits, 85,066 weights in digits.safetensors (bench/digits_classifier.py makes them): its 64 features
        before the last layer, and ten classes
random  a convolutional network of fixed random weights for other pictures: orthogonal filters by counter, the means over the picture of
        every layer, 240 features. What such a network sees is enough to tell distributions of pictures apart (Saxe et al., "On random
        weights and unsupervised feature learning", 2011; Naeem et al., "Reliable fidelity and diversity metrics for generative models",
        2020, arXiv 2002.09797, section 4.1), and says less of what is in them than a trained one

Both are the same on every machine, and so are the scores by them, but for rounding. Pictures are clipped to [-1, 1] and computed on in
fp32, whatever a run's precision is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from trainjobs.noise import Noise
from trainjobs.stores.store import digest

WEIGHTS = Path(__file__).with_name("digits.safetensors")
DIGITS, WIDE = 16, 64  # pixels that the classifier sees; pictures that are wider are averaged down to so many for random weights
WIDTHS = (16, 32, 64, 128)
SEED = 1


@dataclass(frozen=True)
class Features:
    """`compute` gives features [B, F] of pictures float32 [B, C, H, W] in [-1, 1] and, where it classifies, outputs before the softmax
    [B, K]. `name` stands in the metrics' names, `digest` says whether two are the same."""

    name: str
    compute: Callable[[Tensor], tuple[Tensor, Tensor | None]]
    digest: str

    def of(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """float32 on the CPU."""
        with torch.autocast(images.device.type, enabled=False), torch.no_grad():
            features, logits = self.compute(images.float().clamp(-1.0, 1.0))
        return features.float().cpu(), None if logits is None else logits.float().cpu()


class Classifier(nn.Module):
    """Of digits, at 16 x 16 pixels: LeNet's form."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)
        self.features, self.classes = nn.Linear(64 * 4 * 4, 64), nn.Linear(64, 10)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(features [B, 64], logits [B, 10]) of pictures of any size, of which the grey counts."""
        x = resized(images.mean(dim=1, keepdim=True), DIGITS)
        x = F.max_pool2d(F.relu(self.first(x)), 2)
        x = F.max_pool2d(F.relu(self.second(x)), 2)
        found = F.relu(self.features(x.flatten(1)))
        return found, self.classes(found)


class Random(nn.Module):
    """Convolutions of 4 x 4 that halve the picture, while there is enough of it, with leaky ReLUs and orthogonal filters."""

    def __init__(self) -> None:
        super().__init__()
        for number, (above, width) in enumerate(zip((3, *WIDTHS), WIDTHS, strict=False)):
            self.register_buffer(f"filters{number}", filters(number, width, above))

    def forward(self, images: Tensor) -> Tensor:
        """[B, 240]"""
        x = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        x = resized(x, WIDE) if x.shape[-1] > WIDE else x
        found = []
        for number in range(len(WIDTHS)):
            halve = min(x.shape[-2:]) > 4
            x = F.pad(x, (1, 1, 1, 1) if halve else (1, 2, 1, 2), mode="replicate")
            x = F.leaky_relu(F.conv2d(x, self.get_buffer(f"filters{number}"), stride=2 if halve else 1), 0.2)
            found.append(x.mean(dim=(2, 3)))
        return torch.cat(found, dim=1)


def resized(images: Tensor, size: int) -> Tensor:
    """To size x size: averaged down, or up between pixels."""
    if images.shape[-1] == images.shape[-2] == size:
        return images
    if min(images.shape[-2:]) >= size:
        return F.interpolate(images, (size, size), mode="area")
    return F.interpolate(images, (size, size), mode="bilinear", align_corners=False)


def filters(number: int, width: int, above: int) -> Tensor:
    """float32 [width, above, 4, 4]: orthogonal rows, scaled as He et al. (2015) do so that a leaky ReLU leaves the variance as it is."""
    wide = above * 16
    normal = Noise(SEED + number, torch.arange(wide)).normal("filters", width).double()
    q, r = torch.linalg.qr(normal)  # wide >= width: orthonormal columns, unique with a positive diagonal
    gain = math.sqrt(2.0 / (1.0 + 0.2**2))
    rows: Tensor = (q * r.diagonal().sign()).T * gain
    return rows.reshape(width, above, 4, 4).float().contiguous()


def builtin(digits: bool, device: torch.device) -> Features:
    """Of builtin:digits, or of other pictures."""
    with torch.random.fork_rng(devices=[]):  # making layers draws numbers, which the run's own are not to follow
        if digits:
            classifier = Classifier()
            classifier.load_state_dict(load_file(WEIGHTS))
            network = classifier.to(device).eval().requires_grad_(False)
            return Features("digits", lambda images: network(images), digest(WEIGHTS.read_bytes()))
        random = Random().to(device).eval()
    return Features("random", lambda images: (random(images), None), f"random {SEED} {WIDTHS}")
