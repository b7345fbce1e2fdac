"""Drawing samples: from noise to an image, step by step.

DDIM (Song et al., 2021, arXiv 2010.02502, equations 12 and 16): from t to the earlier s, with abar = 1 before the first step,
sigma = eta sqrt((1 - abar_s) / (1 - abar_t)) sqrt(1 - abar_t / abar_s),   x_s = a_s x_0 + sqrt(1 - abar_s - sigma^2) eps + sigma noise.
x_0 of pixels is clipped to [-1, 1] and eps is what then explains x_t, as in Nichol and Dhariwal's code: at the last steps of the cosine
schedule a_t is below 1e-4, and an unclipped x_0 would be nothing but the network's error. The steps are spaced "trailing" and so start from
t = T - 1, whose x_t is the noise that sampling starts from (Lin et al., 2023, arXiv 2305.08891, section 3.3).

A variance that the network has learned takes the place of the noise's, and leaves the mean as it is: at eta 1 that is the sampler of
Nichol and Dhariwal, with betas between the steps that are visited (arXiv 2102.09672, section 4).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainjobs.noise import Noise
from trainjobs.objectives.diffusion.bound import log_variance


@dataclass(frozen=True)
class Visit:
    """One step: the time that the network is told, and abar there and where the step leads, in double precision: 1 - abar_t / abar_s of
    neighbouring steps cancels in single precision. `name` is that of its noise."""

    name: str
    time: float
    here: float
    there: float


# (x_t, visit) -> x_0, not clipped, and the output for the variance where there is one.
Look = Callable[[Tensor, Visit], tuple[Tensor, Tensor | None]]


def in_bounds(x: Tensor) -> Tensor:
    """Where pixels are."""
    return x.clamp(-1.0, 1.0)


def unbounded(x: Tensor) -> Tensor:
    """Latents are not clipped."""
    return x


def ddim(
    look: Look, visits: Sequence[Visit], eta: float, noise: Noise, shape: tuple[int, ...], clip: Callable[[Tensor], Tensor] = in_bounds
) -> Tensor:
    """float32 [B, *shape] within the bounds of `clip`, a sample for each row of the noise."""
    x = noise.normal("start", *shape)
    for visit in visits:
        x, deviation = stepped(look, x, visit, eta, clip)
        if deviation is not None:
            x = x + deviation * noise.normal(visit.name, *shape)
    return x


def stepped(
    look: Look, x: Tensor, visit: Visit, eta: float, clip: Callable[[Tensor], Tensor] = in_bounds
) -> tuple[Tensor, float | Tensor | None]:
    """The mean of where a step leads, and the standard deviation around it; None where it leads there exactly."""
    a_t, s_t = math.sqrt(visit.here), math.sqrt(1.0 - visit.here)
    x0, variance = look(x, visit)
    x0 = clip(x0)
    eps = (x - a_t * x0) / s_t
    beta = 1.0 - visit.here / visit.there
    posterior = (1.0 - visit.there) / (1.0 - visit.here) * beta
    sigma = eta * math.sqrt(posterior)
    mean = math.sqrt(visit.there) * x0 + math.sqrt(max(1.0 - visit.there - sigma**2, 0.0)) * eps
    if sigma == 0.0:
        return mean, None
    return mean, sigma if variance is None else eta * (0.5 * log_variance(variance, math.log(beta), math.log(posterior))).exp()


def visits(abar: Sequence[float], steps: int) -> list[Visit]:
    """Of the timesteps 0..T-1, whose abar is given, at most `steps`."""
    times = trailing_steps(len(abar), steps)
    return [Visit(f"step-{t}", t, abar[t], abar[times[i + 1]] if i + 1 < len(times) else 1.0) for i, t in enumerate(times)]


def trailing_steps(timesteps: int, steps: int) -> list[int]:
    """At most `steps` timesteps, from timesteps - 1 down, evenly spaced: [999, 749, 499, 249] for (1000, 4)."""
    steps = min(steps, timesteps)
    return [round(timesteps - k * timesteps / steps) - 1 for k in range(steps)]


def spread(samples: Tensor) -> Tensor:
    """float64 [B] in [0, 1): the fractional parts of n phi, phi the golden ratio, spread evenly for consecutive n (Weyl), so that any run
    of samples covers the times as strata would."""
    return (samples.double() * ((math.sqrt(5.0) - 1.0) / 2.0)).frac()


def told(time: float, x: Tensor) -> Tensor:
    """The time for each row of x, as the network takes it: int64 for a timestep, float32 in continuous time."""
    return torch.full((len(x),), time, device=x.device)
