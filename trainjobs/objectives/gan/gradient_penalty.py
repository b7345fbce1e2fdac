"""WGAN-GP's penalty."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from trainjobs.noise import Noise


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor, noise: Noise) -> Tensor:
    """E (||grad_y D(y)||_2 - 1)^2, unweighted, float32; the gradient of each sample is taken over all its elements."""
    with torch.autocast(real.device.type, enabled=False):
        u = noise.uniform("interpolation", *[1] * (real.dim() - 1))
        y = (u * real.float() + (1.0 - u) * fake.float()).requires_grad_(True)
        # A sample's score depends on that sample alone (no batch norm in a critic), so the sum's gradient is each score's own.
        (gradient,) = torch.autograd.grad(functional_call(critic, float32_state(critic), (y,)).sum(), y, create_graph=True)
        norm: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
        return (norm - 1.0).square().mean()


def float32_state(network: nn.Module) -> dict[str, Tensor]:
    """Its parameters and buffers in float32: themselves where they are, else converted, with gradients that flow back through it.

    DeepSpeed's bf16 mode holds the weights themselves in bf16, where switching autocast off is not enough.
    """
    state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
