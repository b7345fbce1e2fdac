"""What a discriminator D and a generator G make of D's unbounded scores, with x from the data and z ~ N(0, I). Each is a mean over samples.

bce       L_D = E_x softplus(-D(x)) + E_z softplus(D(G(z)))       L_G = E_z softplus(-D(G(z)))
          The minimax game's discriminator and the non-saturating generator of Goodfellow et al., "Generative adversarial nets", 2014
          (arXiv 1406.2661, section 3); softplus(-s) = -log sigmoid(s).
minimax   L_D as with bce                                         L_G = -E_z softplus(D(G(z)))
          The game itself, equation 1 of the same paper. Where D is sure, the gradient of L_G is next to nothing.
hinge     L_D = E_x max(0, 1 - D(x)) + E_z max(0, 1 + D(G(z)))    L_G = -E_z D(G(z))
          Lim and Ye, "Geometric GAN", 2017 (arXiv 1705.02894); Miyato et al., 2018 (arXiv 1802.05957, equations 16 and 17).
wgan      L_D = E_z D(G(z)) - E_x D(x)                            L_G = -E_z D(G(z))
wgan-gp   Arjovsky et al., "Wasserstein GAN", 2017 (arXiv 1701.07875, algorithm 1). What makes D nearly Lipschitz: with wgan its weights are
          clipped after every step, in the optimizer (build.py); with wgan-gp it is the penalty of Gulrajani et al., 2017, which needs D
          itself and is added to L_D in objective.py.
lsgan     L_D = 1/2 E_x (D(x) - 1)^2 + 1/2 E_z D(G(z))^2          L_G = 1/2 E_z (D(G(z)) - 1)^2
          Mao et al., "Least squares generative adversarial networks", 2017 (arXiv 1611.04076, equation 9).

A label l of real samples below 1, one-sided, makes of the first term of L_D, with bce and minimax, E_x l softplus(-D(x)) + (1 - l)
softplus(D(x)), and with lsgan 1/2 E_x (D(x) - l)^2: Salimans et al., "Improved techniques for training GANs", 2016 (arXiv 1606.03498,
section 3.4).

A loss is added here, to the values of GanLoss.type, to its test and to docs/tutorials/gan.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from trainjobs.objectives.deferred import mean


@dataclass(frozen=True)
class Loss:
    """L_D of the scores of real and of generated samples and the label of real ones, L_G of the scores of generated samples: float32, one
    score per sample, to a scalar. `boundary` is the score at which D cannot tell; None where scores mean nothing alone."""

    discriminator: Callable[[Tensor, Tensor, float], Tensor]
    generator: Callable[[Tensor], Tensor]
    boundary: float | None = 0.0

    def accuracy(self, real: Tensor, fake: Tensor) -> Tensor:
        """The share of real and of generated samples that D tells for what they are, each half of it: of scores [N, B, ...], float [N]. Not
        where there is no boundary."""
        assert self.boundary is not None
        return 0.5 * (share(real > self.boundary) + share(fake < self.boundary))

    def signs(self, real: Tensor) -> Tensor:
        """The mean sign of real scores [N, B, ...], counted from the boundary where there is one: float [N]."""
        return mean((real - (self.boundary or 0.0)).sign())


def share(told: Tensor) -> Tensor:
    """Of each row of bool [N, ...], how much of it is true: float [N]."""
    return told.flatten(1).mean(dim=1, dtype=torch.float32)


def bce_discriminator(real: Tensor, fake: Tensor, label: float) -> Tensor:
    told = label * F.softplus(-real) + (1.0 - label) * F.softplus(real) if label < 1.0 else F.softplus(-real)
    return told.mean() + F.softplus(fake).mean()


def bce_generator(fake: Tensor) -> Tensor:
    return F.softplus(-fake).mean()


def minimax_generator(fake: Tensor) -> Tensor:
    return -F.softplus(fake).mean()


def hinge_discriminator(real: Tensor, fake: Tensor, label: float) -> Tensor:
    return F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean()


def wasserstein_discriminator(real: Tensor, fake: Tensor, label: float) -> Tensor:
    return fake.mean() - real.mean()


def least_squares_discriminator(real: Tensor, fake: Tensor, label: float) -> Tensor:
    return 0.5 * (real - label).square().mean() + 0.5 * fake.square().mean()


def least_squares_generator(fake: Tensor) -> Tensor:
    return 0.5 * (fake - 1.0).square().mean()


def negated_mean(fake: Tensor) -> Tensor:
    return -fake.mean()


LOSSES = {
    "bce": Loss(bce_discriminator, bce_generator),
    "minimax": Loss(bce_discriminator, minimax_generator),
    "hinge": Loss(hinge_discriminator, negated_mean),
    "wgan": Loss(wasserstein_discriminator, negated_mean, boundary=None),
    "wgan-gp": Loss(wasserstein_discriminator, negated_mean, boundary=None),
    "lsgan": Loss(least_squares_discriminator, least_squares_generator, boundary=0.5),
}
