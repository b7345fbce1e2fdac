"""The variational bound of a denoising diffusion model, in bits per dimension, and the variance that a network may learn by it.

-log p(x_0) <= KL(q(x_T|x_0) || N(0, I)) + sum_{t >= 1} KL(q(x_{t-1}|x_t, x_0) || p(x_{t-1}|x_t)) - log p(x_0|x_1)
(Ho et al., 2020, arXiv 2006.11239, equation 5; steps are counted from 0 here, so the last term is step 0's.)

q(x_{t-1}|x_t, x_0)  mean c x_0 + d x_t, c = sqrt(abar_{t-1}) beta_t / (1 - abar_t), d = sqrt(1 - beta_t) (1 - abar_{t-1}) / (1 - abar_t),
                     variance betat_t = beta_t (1 - abar_{t-1}) / (1 - abar_t)   (equations 6 and 7)
p(x_{t-1}|x_t)       the same with the network's x_0; its variance is betat_t, or learned:
                     log sigma^2 = v log beta_t + (1 - v) log betat_t, v = (output + 1) / 2, betat_0 := betat_1
                     (Nichol and Dhariwal, 2021, arXiv 2102.09672, equation 15 and their code)
p(x_0|x_1)           that Gaussian's mass in each pixel's bin: images are of 8 bits, bins 2/255 wide, the outermost without end
                     (Ho et al., equation 13)

In the loss the mean is detached, so that the bound trains the variance alone (Nichol and Dhariwal, section 3.1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from trainjobs.objectives.diffusion.process import Schedule, cumulative_signal

_BIN = 1.0 / 255.0  # half of it
_LEAST = 1e-12  # of a probability whose logarithm is taken


@dataclass(frozen=True)
class Posterior:
    """By timestep, float32 [T]: the weight c of x_0 in the posterior's mean; logarithms of beta and betat. `last` is
    log((1 - abar_T) / abar_T), infinite without signal."""

    image: Tensor
    log_beta: Tensor
    log_variance: Tensor
    last: float


@cache
def posterior(schedule: Schedule, timesteps: int, zero_terminal: bool, device: torch.device) -> Posterior:
    with torch.inference_mode(False):
        abar = cumulative_signal(schedule, timesteps, zero_terminal)
        before = torch.cat([abar.new_ones(1), abar[:-1]])
        beta = 1.0 - abar / before
        variance = beta * (1.0 - before) / (1.0 - abar)
        variance[0] = variance[1]
        image = before.sqrt() * beta / (1.0 - abar)
        c, log_beta, log_variance = (table.float().to(device) for table in (image, beta.log(), variance.log()))
        return Posterior(c, log_beta, log_variance, last=float(((1.0 - abar[-1]) / abar[-1]).log()))


def log_variance(output: Tensor, log_beta: Tensor | float, log_posterior: Tensor | float) -> Tensor:
    """Between two logarithms of variances, where the network's output says; -1 is the posterior's, 1 is beta."""
    v = 0.5 * (output + 1.0)
    return v * log_beta + (1.0 - v) * log_posterior


def step_bits(tables: Posterior, t_B: Tensor, x: Tensor, image: Tensor, variance: Tensor | None) -> Tensor:
    """What step t costs, float [B]: bits per dimension. `image` is the network's x_0, `variance` its output for the variance, float
    [B, C, H, W] both; None for the posterior's own variance."""
    c, log_beta, log_q = (table[t_B].view(-1, 1, 1, 1) for table in (tables.image, tables.log_beta, tables.log_variance))
    log_p = log_q if variance is None else log_variance(variance, log_beta, log_q)
    between = 0.5 * (log_p - log_q + (log_q - log_p).exp() - 1.0 + (c * (x - image)).square() * (-log_p).exp())
    first = -log_mass(x, image, log_p)
    nats = torch.where(t_B.view(-1, 1, 1, 1) == 0, first, between)
    return nats.flatten(1).mean(dim=1) / math.log(2.0)


def prior_bits(x: Tensor, gamma: float) -> Tensor:
    """KL(q(x_T|x_0) || N(0, I)), float [B]: bits per dimension. Of x_T is known gamma = log((1 - abar_T) / abar_T)."""
    signal, noise = 1.0 / (1.0 + math.exp(gamma)), 1.0 / (1.0 + math.exp(-gamma))
    nats = 0.5 * (signal * x.square() + noise - 1.0 - math.log(noise))
    return nats.flatten(1).mean(dim=1) / math.log(2.0)


def log_mass(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """The logarithm of a Gaussian's mass in the bin of each x in [-1, 1]."""
    scale = (-0.5 * log_variance).exp()
    above = torch.special.ndtr((x + _BIN - mean) * scale)
    below = torch.special.ndtr((x - _BIN - mean) * scale)
    mass = torch.where(x > 0.999, 1.0 - below, torch.where(x < -0.999, above, above - below))
    return mass.clamp(min=_LEAST).log()
