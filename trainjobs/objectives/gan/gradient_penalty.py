"""Penalties on the gradient of a discriminator with respect to its samples: WGAN-GP's, and R1.

They need the derivative of a derivative. In bf16 that loses what it is to measure, so it is computed in float32, with autocast off.
`told` is what the discriminator is told beside the samples: their classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from trainjobs.noise import Noise


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor, noise: Noise, *told: Tensor) -> Tensor:
    """E (||grad_y D(y)||_2 - 1)^2,   y = u x + (1 - u) G(z),  u ~ U[0, 1) per sample. Unweighted, float32.

    Gulrajani et al., "Improved training of Wasserstein GANs", 2017 (arXiv 1704.00028, equation 3 and algorithm 1).
    """
    u = noise.uniform("interpolation", *[1] * (real.dim() - 1))
    slope, _ = slopes(critic, u * wide(real) + (1.0 - u) * wide(fake), *told)
    norm: Tensor = torch.linalg.vector_norm(slope, dim=1)
    return (norm - 1.0).square().mean()


def r1(discriminator: nn.Module, real: Tensor, *told: Tensor) -> Tensor:
    """E ||grad_x D(x)||_2^2 over real samples, a sum over the elements of each. Unweighted (gamma / 2 belongs to it), float32.

    Mescheder, Geiger and Nowozin, "Which training methods for GANs do actually converge?", 2018 (arXiv 1801.04406, equation 9).
    """
    slope, scores = slopes(discriminator, real, *told)
    # A slope does not depend on the last bias. With nothing of the scores it would have no gradient, which torch's Adam passes over, and
    # ZeRO takes for 0; with 0 of them it is 0 everywhere.
    return slope.square().sum(dim=1).mean() + 0.0 * scores.sum()


def slopes(network: nn.Module, x: Tensor, *told: Tensor) -> tuple[Tensor, Tensor]:
    """float32 [B, n], the gradient of each sample's score with respect to all its elements, itself with a graph; and the scores [B].

    A score depends on its own sample alone (no batch norm here), or on its group of minibatch deviation, whose scores count together: the
    gradient of their sum, as in the code of StyleGAN2.
    """
    with torch.autocast(x.device.type, enabled=False):
        y = wide(x).detach().requires_grad_(True)
        scores: Tensor = functional_call(network, wide_state(network), (y, *told))
        (gradient,) = torch.autograd.grad(scores.sum(), y, create_graph=True)
        return gradient.flatten(1), scores


def wide(value: Tensor) -> Tensor:
    """At least float32: itself where it is."""
    return value.to(torch.promote_types(value.dtype, torch.float32))


def wide_state(network: nn.Module) -> dict[str, Tensor]:
    """Its parameters and buffers in at least float32: themselves where they are, else converted, with gradients that flow back through it.

    DeepSpeed's bf16 mode holds the weights themselves in bf16, where switching autocast off is not enough.
    """
    state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    return {name: wide(value) if value.is_floating_point() else value for name, value in state.items()}
