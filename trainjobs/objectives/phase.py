"""What an objective is: a list of phases, each the loss of one network.

The loop knows nothing else of a model family. A language model, a VAE and a diffusion model have one phase; a GAN has two, and its
discriminator's may be repeated. A phase names the network whose engine steps; the loop freezes all others meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from trainjobs.noise import Noise


@dataclass(frozen=True)
class Batch:
    """One micro-batch, on the device of the networks.

    data   {"image": float [B, C, H, W] in [-1, 1]}, {"point": float [B, 2]} or {"tokens": int64 [B, T + 1]}; empty for a phase that
           does not draw data
    noise  the samples' own noise for this seed, step and phase; every random number of a loss comes from here, so that a run does
           not depend on how the batch is cut into workers and micro-batches
    size   B
    """

    data: Mapping[str, Tensor]
    noise: Noise
    size: int


Loss = Callable[[Batch], tuple[Tensor, Mapping[str, Tensor]]]


@dataclass(frozen=True)
class Phase:
    """One optimizer step of one network.

    `loss` returns the mean over the micro-batch, a scalar with a graph, and scalar metrics without one. It calls the modules it was
    built with and reads nothing back from the device. `every`: runs at steps divisible by it; `repeat`: optimizer steps per step of
    the loop, each on new data; `draws`: whether the loss needs data at all.
    """

    name: str
    trains: str
    loss: Loss
    every: int = 1
    repeat: int = 1
    draws: bool = True


@dataclass(frozen=True)
class Samples:
    """What a model made; the field of its kind of data is set, the others are None."""

    images: Tensor | None = None  # float [N, C, H, W] in [-1, 1]
    points: Tensor | None = None  # float [N, 2]
    texts: tuple[str, ...] | None = None


class Objective(Protocol):
    """What the loop trains, evaluates and draws samples from."""

    @property
    def phases(self) -> tuple[Phase, ...]:
        """In the order in which they run within a step."""
        ...

    def heldout(self, batch: Batch) -> Mapping[str, Tensor]:
        """Scalar means over held-out samples, such as {"loss": ...}; {} where none means anything (GANs). Called under no_grad, in
        eval mode."""
        ...

    def sample(self, count: int, noise: Noise) -> Samples:
        """`count` samples, made from `noise`, whose `samples` has `count` entries. Called under no_grad, in eval mode, by every rank
        alike: at ZeRO stage 3 each forward pass gathers weights from all of them."""
        ...


@runtime_checkable
class Stateful(Protocol):
    """An objective that has state beyond its networks, such as a probability that it adapts. What is a tensor belongs into a buffer of a
    network instead. A checkpoint keeps rank 0's, so it must be the same on every rank."""

    def state(self) -> dict[str, Any]:
        """Plain JSON, small."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        ...
