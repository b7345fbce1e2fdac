"""How large the latents of an autoencoder are: 1/sigma, by which a diffusion model's inputs have unit variance (Rombach et al., "High-
resolution image synthesis with latent diffusion models", 2022, arXiv 2112.10752, appendix G) [scaling_factor].

sigma^2 = E z^2 - (E z)^2 over samples, channels and places, with E z = E mean and E z^2 = E (mean^2 + exp(logvar)): what drawing z would
give, without its noise. The sums are over all ranks, over the first training samples of the stream.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainjobs.evaluate.looking import Looking
from trainjobs.evaluate.setting import Setting
from trainjobs.noise import Noise
from trainjobs.objectives.phase import At, Batch
from trainjobs.objectives.vae import LatentObjective

MOST = 1024  # samples: sigma is then known to a percent or so, and an evaluation stays short


def measure(setting: Setting, objective: LatentObjective, at: At, looking: Looking) -> None:
    """Every rank must call it, within an evaluation; the objective then has the factor, the same on every rank."""
    spec, world, source = setting.spec, setting.world, setting.source
    sums = torch.zeros(3, dtype=torch.float64, device=world.device)
    for rows, counts in looking.turns("measuring latents", min(MOST, source.info.length), setting.micro, world):
        noise = Noise.of(spec.training.seed, 0, "latent scale", rows.to(world.device))
        batch = Batch(source.batch(rows, spec.training.seed, noise), noise, len(rows), at)
        found = moments(*objective.posterior(batch))
        if counts:
            sums += found
    objective.measured["scaling_factor"] = factor(*world.sum(sums.tolist()))


def moments(mean: Tensor, logvar: Tensor) -> Tensor:
    """float64 [3]: how many latents, the sums of E z and of E z^2."""
    mean, logvar = mean.double(), logvar.double()
    return torch.stack([mean.new_tensor(mean.numel()), mean.sum(), (mean.square() + logvar.exp()).sum()])


def factor(count: float, total: float, squares: float) -> float:
    """1/sigma; 1 where all latents are alike, and for what is no number."""
    variance = squares / count - (total / count) ** 2
    return variance**-0.5 if 0.0 < variance < float("inf") else 1.0
