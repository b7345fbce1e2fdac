"""What an objective is: a list of phases, each the loss of one network; and what the loop and an objective say to each other.

The loop knows nothing else of a model family. A language model, a VAE and a diffusion model have one phase; a GAN has two, and its
discriminator's may be repeated. A phase names the network whose engine steps; the loop freezes all others meanwhile. Networks that one
loss trains together (policy and value, UNet and text encoder) are one network with several groups of parameters: two engines that
share a backward pass fail from ZeRO stage 2 on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from trainjobs.noise import Noise
from trainjobs.objectives.deferred import Metrics
from trainjobs.state import Stateful

Rows = Mapping[str, Tensor]  # tensors [B, ...], by the names of their fields


@dataclass(frozen=True)
class At:
    """Where a run stands: what fades, thaws or decays is a function of it.

    step     optimizer steps that are done, so the first step sees 0
    samples  positions of the stream of data that are behind it
    steps    of the whole run
    """

    step: int = 0
    samples: int = 0
    steps: int = 0


@dataclass(frozen=True)
class Batch:
    """One micro-batch, on the device of the networks.

    data   {"image": float [B, C, H, W] in [-1, 1]}, {"point": float [B, 2]} or {"tokens": int64 [B, T + 1]}; what a rollout made; what
           samples are to be drawn for; empty for a phase that does not draw data
    noise  the samples' own noise for this seed, step and phase; every random number of a loss comes from here, so that a run does
           not depend on how the batch is cut into workers and micro-batches
    size   B
    at     where the run stands
    whole  of a rollout: a network of the loop's with all its weights at hand, for many passes. Within it ranks need not make as many passes
           as each other, which they must where this is None
    """

    data: Rows
    noise: Noise
    size: int
    at: At = At()
    whole: Callable[[nn.Module], AbstractContextManager[nn.Module]] | None = None


Loss = Callable[[Batch], tuple[Tensor, Metrics]]
ROW = "row"  # the field of a rollout's rows that the loop adds: int64 [B], each row's number in the global batch


@dataclass(frozen=True, eq=False)
class Rollout:
    """Experience, made once a step from the step's batch of data, in eval mode and without gradients. It is never saved: commits lie
    between steps. Phases that share one train on the same rows.

    `make` gives the rows of one micro-batch: what the networks generated, and how frozen ones score it. `finish` gets all rows of this
    rank, and a function that returns every rank's rows of one field, in the order of the global batch, for what is a property of a
    group of rows, as advantages are. The entry "row" says which rows are this rank's.

    `judge` gets what `finish` gets, of each batch of data that is drawn, and says what it found of this rank's rows, and which rows of the
    global batch are worth training on, bool [N]. Where those are fewer than a batch, further batches are drawn, `tries` at most; what is
    missing then is filled with rows that are not worth it. `finish` gets the rows that were chosen; "chosen", bool [B], says which are
    worth it, and "tries" how many batches were drawn.
    """

    make: Callable[[Batch], Rows]
    finish: Callable[[Rows, Callable[[Tensor], Tensor]], Rows] = lambda rows, everywhere: rows
    judge: Callable[[Rows, Callable[[Tensor], Tensor]], tuple[Rows, Tensor]] | None = None
    tries: int = 1


@dataclass(frozen=True)
class Phase:
    """Optimizer steps of one network.

    `loss` returns the mean over the micro-batch, a scalar with a graph, and scalar metrics without one; or, for such as take operations of
    their own, what they are made of (deferred.py). It calls the modules it was built with and reads nothing back from the device.

    every    runs at steps divisible by it
    repeat   optimizer steps per step of the loop, each on new data; of a rollout, passes over its rows times `parts`
    draws    "data"; "nothing"; "step", for what an earlier phase of the step drew last; or a Rollout, on whose rows it trains (True and
             False stand for the first two)
    parts    optimizer steps into which one pass over a rollout's rows is cut: blocks of the global batch, whatever the number of ranks
    weigh    how many units of the micro-batch its loss is a mean over, a scalar, where that is not its rows: valid tokens, say. The step
             then follows the mean over all units of the global batch, however unequal the micro-batches are. "units": as many as the
             source knows of each sample (see data/source.py), without asking the other ranks
    """

    name: str
    trains: str
    loss: Loss
    every: int = 1
    repeat: int = 1
    draws: Literal["data", "nothing", "step"] | bool | Rollout = "data"
    parts: int = 1
    weigh: Callable[[Batch], Tensor] | Literal["units"] | None = None

    @property
    def rollout(self) -> Rollout | None:
        return self.draws if isinstance(self.draws, Rollout) else None

    @property
    def advances(self) -> bool:
        """Whether each of its turns takes new data from the stream."""
        return self.draws in ("data", True)


def clocked(phases: Sequence[Phase]) -> tuple[Phase, ...]:
    """The phases, of which those that run now and then take the data of their step, where a phase of every step draws some: samples seen
    are then as many each step, whatever the intervals."""
    every_step = any(phase.every == 1 and (phase.advances or phase.rollout) for phase in phases)
    return tuple(replace(phase, draws="step") if every_step and phase.every > 1 and phase.advances else phase for phase in phases)


@dataclass(frozen=True)
class Network:
    """A network of a job, and how it is trained.

    groups    parameters by the name of their optimizer in training.optimizers (of one kind: their rates and decays may differ). None at
              all: every parameter that asks for a gradient, under the network's own name. Empty: frozen, always in eval mode, in no
              checkpoint, and at ZeRO stage 3 split over the ranks like the others
    thaws     step from which a group trains; before, it is as it was made, and its optimizer begins at that step
    averaged  whether training.ema averages it
    after     what is done to its trained weights in place after each optimizer step, within it. It is given flat pieces of them, so it
              must be elementwise: clipping
    norm      whether the norm of its gradient, before clipping, is a metric: gradient_norm/<network>
    split     whether a frozen network is split over the ranks at ZeRO stage 3, in the numbers of the run's precision; else it is whole
              and as it was made
    origin    digest of the files that its frozen weights were read from, where there are such: the weights themselves are not hashed then
    renews    steps at which the optimizer of all of it begins anew
    """

    module: nn.Module
    groups: Mapping[str, Sequence[nn.Parameter]] | None = None
    thaws: Mapping[str, int] = field(default_factory=dict)
    averaged: bool = True
    after: Callable[[Tensor], object] | None = None
    norm: bool = False
    split: bool = True
    origin: str = ""
    renews: tuple[int, ...] = ()


@dataclass(frozen=True)
class Samples:
    """What a model made; the field of its kind of data is set, the others are None."""

    images: Tensor | None = None  # float [N, C, H, W] in [-1, 1]
    points: Tensor | None = None  # float [N, 2]
    texts: tuple[str, ...] | None = None


class Objective(Protocol):
    """What the loop trains, evaluates and draws samples from."""

    @property
    def phases(self) -> Sequence[Phase]:
        """In the order in which they run within a step. Asked once, before the first step."""
        ...

    @property
    def highest_stage(self) -> int:
        """The highest ZeRO stage at which it trains: 2 where a loss differentiates a gradient, because stage 3 has let go of the weights
        by the second backward pass; else 3."""
        ...

    def heldout(self, batch: Batch) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Of held-out samples, by metric, the sum and the number of what it is a mean over, scalars: {"loss": (sum, count)}; {} where none
        means anything (GANs). So the mean over all is exact, however they are cut. Called under no_grad, in eval mode."""
        ...

    def sample(self, batch: Batch) -> Samples:
        """A sample for each row, made from its noise, for the conditions in `batch.data` (labels, prompts; empty without any). Called
        under no_grad, in eval mode; every rank makes as many calls: at ZeRO stage 3 each forward pass gathers weights from all."""
        ...


@runtime_checkable
class Reconstructing(Protocol):
    """An objective whose model gives a sample back: what it makes of held-out ones is shown beside them."""

    def reconstruct(self, batch: Batch) -> Samples:
        """Each row of the batch as the model gives it back, without randomness. Called as `sample` is."""
        ...


@runtime_checkable
class Encoding(Protocol):
    """An objective whose model finds latents of samples, of which those in use can be counted (active_units)."""

    def latents(self, batch: Batch) -> Tensor:
        """Of each row, float [B, Z], without randomness. Called under no_grad, in eval mode, and passes the network once, as `heldout`."""
        ...


@runtime_checkable
class Adaptive(Stateful, Protocol):
    """An objective that adapts to what it measures: ADA's p, path length's mean. The loop hands it the means of all its metrics, over the
    last `adapts_every` steps and over all ranks, whenever so many are over: a fixed cadence, which no clock and no restart moves."""

    adapts_every: int

    def adapt(self, means: Mapping[str, float]) -> None: ...


@dataclass(frozen=True)
class Model:
    """What a family's `build` makes. `encode` turns what the data are into what is trained on, on the device and without gradients:
    latents of images, a teacher's logits. `copies` are frozen networks that begin as another does, by their names: with the weights of
    training.initialWeights, too."""

    networks: Mapping[str, Network]
    objective: Objective
    encode: Callable[[Rows], Rows] | None = None
    copies: Mapping[str, str] = field(default_factory=dict)

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {name: network.module for name, network in self.networks.items()}


def over(mean: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """What `Objective.heldout` gives of a mean over `count` samples or tokens."""
    return mean.double() * count, torch.full((), count, dtype=torch.float64, device=mean.device)


def model(modules: Mapping[str, nn.Module], objective: Objective) -> Model:
    """Networks that are all trained, each as a whole."""
    return Model({name: Network(module) for name, module in modules.items()}, objective)
