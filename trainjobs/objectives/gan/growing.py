"""When a GAN grows: which level it is at, and how far the newest layers are faded in.

With s images of the first level, then for each further one f in which it fades in and s in which it stands, after n images

    alpha = (n - when the level began) / f, at most 1

as the code of Karras et al., "Progressive growing of GANs", 2018 (arXiv 1710.10196, section 2) has it. n is what the weights have seen:
steps that are done, times the real samples that a step shows. So a level begins at a step, for every rank, and for a run that goes on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from trainjobs.api.gan import Progressive
from trainjobs.models.pggan import Discriminator, Generator, down, up
from trainjobs.objectives.freezing import MARK
from trainjobs.objectives.phase import Network


@dataclass(frozen=True)
class Grown:
    """`level` 0 has 4 x 4 pixels, each further one twice as many a side; `alpha` is the share of its own colours, below 1 in a fade."""

    level: int
    alpha: float

    def shrunk(self, real_BCHW: Tensor) -> Tensor:
        """Real samples at the level's size, faded as generated ones are."""
        while real_BCHW.shape[-1] > 4 << self.level:
            real_BCHW = down(real_BCHW)
        return torch.lerp(up(down(real_BCHW)), real_BCHW, self.alpha) if self.alpha < 1.0 else real_BCHW


@dataclass(frozen=True)
class Growth:
    """`size` is the images', `shown` how many real ones a step shows."""

    settings: Progressive
    size: int
    shown: int

    @property
    def start(self) -> int:
        return self.settings.start.bit_length() - 3

    @property
    def top(self) -> int:
        return self.size.bit_length() - 3

    def at(self, step: int) -> Grown:
        """Before this step, counted from 0."""
        images = step * self.shown
        level = max(level for level in range(self.start, self.top + 1) if step >= self.begins(level))
        if level == self.start:
            return Grown(level, 1.0)
        fade = self.settings.fade_images
        return Grown(level, min((images - self._images(level)) / fade, 1.0) if fade else 1.0)

    def begins(self, level: int) -> int:
        """The first step that shows images of a level."""
        return -(-self._images(level) // self.shown)

    def network(self, name: str, network: Network) -> Network:
        """Its levels are groups that thaw as they begin, and with each all of its optimizer begins anew."""
        module = network.module
        assert isinstance(module, Generator | Discriminator)
        levels = range(self.start, self.top + 1)
        names = {level: name if level == self.start else f"{name}{MARK}{self.begins(level)}" for level in levels}
        groups: dict[str, list[torch.nn.Parameter]] = {}
        for level in levels:
            groups.setdefault(names[level], []).extend(module.of_level(level))
        thaws = {names[level]: self.begins(level) for level in levels if level > self.start}
        return replace(network, groups=groups, thaws=thaws, renews=tuple(thaws.values()))

    def _images(self, level: int) -> int:
        settings = self.settings
        return (level - self.start) * settings.stable_images + max(level - self.start - 1, 0) * settings.fade_images


def whole(made_BCHW: Tensor, size: int) -> Tensor:
    """At the size of the images, each pixel as often as it takes."""
    return made_BCHW if made_BCHW.shape[-1] == size else F.interpolate(made_BCHW, size=(size, size), mode="nearest")
