"""A model of your own, to change: a normalizing flow, which learns the density of points in the plane and draws from it.

The trainer asks for three things: networks, an objective with `phases`, `heldout` and `sample`, and a function `build` that returns both.
Everything else (workers, ZeRO, precision, checkpoints, resuming to the last bit) is the trainer's. Two rules keep it that way:

- every random number of a loss or a sample comes from `batch.noise`, so that a run does not depend on how its batch is cut;
- a loss calls the networks that it was built with and reads nothing back from the device (no `.item()`).

A flow maps a point x to noise z by steps that can be inverted: log p(x) = log N(z; 0, 1) + the sum of the steps' log determinants.
Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2017 (arXiv 1605.08803).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from trainjobs.api.job import Spec
from trainjobs.data.source import DataInfo
from trainjobs.objectives.phase import Batch, Phase, Samples, over


class Coupling(nn.Module):
    """Scales and shifts one coordinate by a function of the other."""

    def __init__(self, hidden: int, fixed: int) -> None:
        super().__init__()
        self.fixed, self.moved = fixed, 1 - fixed
        self.network = nn.Sequential(nn.Linear(1, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 2))

    def forward(self, points: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """float [B, 2] -> the same mapped, and the logarithm of the determinant, float [B]."""
        still, other = points[:, self.fixed], points[:, self.moved]
        scale, shift = self.network(still[:, None]).unbind(dim=1)
        scale = 3.0 * torch.tanh(scale / 3.0)
        other = (other - shift) * torch.exp(-scale) if inverse else other * torch.exp(scale) + shift
        both = (still, other) if self.fixed == 0 else (other, still)
        return torch.stack(both, dim=1), -scale if inverse else scale


class Flow(nn.Module):
    def __init__(self, layers: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Coupling(hidden, number % 2) for number in range(layers)])

    def forward(self, points: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """Points to noise, or back, float [B, 2]; and the logarithm of the determinant, float [B]."""
        total = torch.zeros_like(points[:, 0])
        for layer in reversed(self.layers) if inverse else self.layers:
            points, logdet = layer(points, inverse)
            total = total + logdet
        return points, total


class Likelihood:
    """Trains the flow by maximum likelihood. The loss is in nats per point."""

    highest_stage = 3  # the highest ZeRO stage at which it trains; 2 where a loss differentiates a gradient

    def __init__(self, flow: Flow) -> None:
        self.flow = flow

    @property
    def phases(self) -> Sequence[Phase]:
        """One optimizer step of the network "flow" per step; a GAN, say, has two phases."""
        return (Phase("train", trains="flow", loss=self.loss),)

    def loss(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The mean over the micro-batch; and what is written down of it."""
        noise, logdet = self.flow(batch.data["point"].float())
        log_normal = -0.5 * noise.square().sum(dim=1) - math.log(2.0 * math.pi)
        loss = -(log_normal + logdet).mean()
        return loss, {"loss": loss.detach()}

    def heldout(self, batch: Batch) -> Mapping[str, tuple[Tensor, Tensor]]:
        loss, _ = self.loss(batch)
        return {"loss": over(loss, batch.size)}

    def sample(self, batch: Batch) -> Samples:
        points, _ = self.flow(batch.noise.normal("z", 2), inverse=True)
        return Samples(points=points)


def build(spec: Spec, info: DataInfo) -> tuple[dict[str, nn.Module], Likelihood]:
    """The networks by name, and the objective. `info` tells kind and shape of the data."""
    assert spec.custom is not None
    if info.kind != "point":
        raise ValueError(f"this flow learns points, such as builtin:ring, and the data are {info.kind}s: change build and Flow")
    flow = Flow(**spec.custom.options)
    return {"flow": flow}, Likelihood(flow)
