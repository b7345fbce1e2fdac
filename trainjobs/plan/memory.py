"""How much memory a rank needs at its peak, by ZeRO stage: what DeepSpeed keeps, and what a step needs beside it. Pure.

The states are those that DeepSpeed 0.19.8 keeps, which are more than the ZeRO paper's (Rajbhandari et al., 2020): from
stage 1 on a partition of fp32 master weights beside weights that are fp32 themselves; at stages 1 to 3 a bucket in which gradients are
exchanged; at stage 3 the weights of the network, gathered while it computes. So a higher stage may need more than a lower one: every one
is computed.

P weights that are trained, F that are not, m numbers of optimizer state for a weight, b bytes of a weight that computes (4, or 2 in bf16
and fp16 from stage 1 on), W ranks, D what the step needs beyond its states (activations, gradients, temporaries):

    stage 0      4 P + 4 m P + 4 F + D
    stages 1, 2  b P + 4 (1 + m) P / W + b F + D + 2 bucket
    stage 3      (2 b + 4 (1 + m)) P / W + b F / W + D + 2 bucket + b (P + F)

The bucket counts twice: what is exchanged is flattened beside it. Two ranks that trained a VAE and a language model at stages 1 to 3, in
fp32 and bf16, met these sums within 15 % (tests/engine/test_fake_step_zero.py); with one bucket they were up to 20 % above.
Between stages 1 and 2 there is no difference at the peak: it is reached while gradients are whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

BUCKET = 500_000_000  # elements: plan/deepspeed.py
SPARE = 0.08  # of a device's memory, for what is not computed: communicators, the allocator's slack, cuDNN's workspaces
NEGLIGIBLE = 0.1  # of a device's memory: states that are less than this are no reason to divide them


_MOMENTS = {"sgd": 0.0, "rmsprop": 1.0, "muon": 1.0}  # where they are not Adam's two


def moments(optimizers: Iterable[str]) -> float:
    """Numbers of optimizer state for a weight, of the most greedy of these optimizers."""
    return max((_MOMENTS.get(name, 2.0) for name in optimizers), default=0.0)


@dataclass(frozen=True)
class Weights:
    """Of a job: numbers of weights by trained network, of those that are not trained, and of optimizer state for each trained one."""

    trained: Mapping[str, int]
    frozen: int = 0
    moments: float = 2.0  # Adam's

    @property
    def total(self) -> int:
        return sum(self.trained.values())


@dataclass(frozen=True)
class Beside:
    """Bytes that a step of a rank needs beyond weights and optimizer state, at its peak: with weights in fp32, and with weights of two
    bytes, which is where bf16 and fp16 compute from stage 1 on."""

    whole: int
    halved: int

    def at(self, stage: int, precision: str) -> int:
        return self.whole if stage == 0 or precision == "fp32" else self.halved


NOTHING = Beside(0, 0)


def peak(weights: Weights, beside: Beside, stage: int, ranks: int, precision: str) -> int:
    """Bytes of one rank at the peak of a step."""
    trained, frozen = weights.total, weights.frozen
    master = 4 * (1 + weights.moments)
    size = 4 if stage == 0 or precision == "fp32" else 2
    bucket = 2 * size * min(BUCKET, max(weights.trained.values(), default=0))
    if stage == 0:
        states = trained * (4 + 4 * weights.moments) + 4 * frozen
    elif stage < 3:
        states = size * trained + master * trained / ranks + size * frozen + bucket
    else:
        states = (2 * size + master) * trained / ranks + size * frozen / ranks + bucket + size * (trained + frozen)
    return int(states) + beside.at(stage, precision)


def states(weights: Weights, stage: int, ranks: int, precision: str) -> int:
    """What of it is there without a step."""
    return peak(weights, NOTHING, stage, ranks, precision)


def fits(need: int, memory: int) -> bool:
    return need <= (1 - SPARE) * memory


def lowest(weights: Weights, beside: Beside, ranks: int, precision: str, memory: int, highest: int = 3) -> int:
    """The lowest stage that fits into `memory` bytes, because every stage costs communication and hooks; where none fits, the one that
    needs least."""
    needs = [peak(weights, beside, stage, ranks, precision) for stage in range(highest + 1)]
    return next((stage for stage, need in enumerate(needs) if fits(need, memory)), needs.index(min(needs)))
