"""The loss scale of fp16: one for each engine, the same at every ZeRO stage.

fp16 ends at 65504, and below 6e-8 there is nothing: gradients, most of which are tiny, are computed of the loss times a scale, and divided
by it in fp32 (Micikevicius et al., "Mixed precision training", 2018, arXiv 1710.03740, section 3.2). The scale is as large as it can be: it
begins at 2^16, is halved when a gradient is not finite, of which no update is made, and doubled after 2000 updates running, as by torch's
GradScaler. A step without an update is how the scale finds its size, and no divergence, unless the scale is 1 already.

At stage 0 weights and gradients are fp32 and only what autocast chooses is computed in fp16, so the scale is applied here, between the sum
over the ranks and clipping. From stage 1 on DeepSpeed does that, in the optimizers that hold fp16 weights, and asks this scale for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from deepspeed.accelerator import get_accelerator
from torch import Tensor, nn

from trainjobs.api.errors import JobError

INITIAL, FACTOR, WINDOW, LEAST = 2.0**16, 2.0, 2000, 1.0


@dataclass
class LossScale:
    """The same on every rank, because what overflows is summed over them. Every commit keeps it.

    good       updates since it last changed
    skipped    steps without an update, of the whole run
    exhausted  the last gradient was not finite although the scale is the least there is: that is the model's doing
    """

    scale: float = INITIAL
    good: int = 0
    skipped: int = 0
    exhausted: bool = False
    dynamic = True  # for DeepSpeed, which takes this for a scaler of its own, as the names below

    def update_scale(self, overflow: bool) -> None:
        """After every step."""
        self.exhausted = bool(overflow) and self.scale <= LEAST
        if overflow:
            self.scale, self.good, self.skipped = max(LEAST, self.scale / FACTOR), 0, self.skipped + 1
            return
        self.good += 1
        if self.good >= WINDOW:
            self.scale, self.good = self.scale * FACTOR, 0

    @property
    def cur_scale(self) -> float:
        return self.scale

    @property
    def loss_scale(self) -> float:
        return self.scale

    def scale_loss(self, loss: Tensor) -> Tensor:
        return loss * self.scale

    def backward(self, loss: Tensor, retain_graph: bool = False) -> None:
        self.scale_loss(loss).backward(retain_graph=retain_graph)  # type: ignore[no-untyped-call]

    def state(self) -> dict[str, Any]:
        return {"scale": self.scale, "good": self.good, "skipped": self.skipped}

    def load_state(self, state: dict[str, Any]) -> None:
        self.scale, self.good, self.skipped, self.exhausted = state["scale"], state["good"], state["skipped"], False


class ScaledStep:
    """Stage 0: stands before an engine's update. Gradients are divided by what losses were multiplied with; of those that are not finite no
    update is made.

    A loss comes divided by the micro-batches of its step, `turns`, and is multiplied with them again: what is computed in fp16 is the same
    however many ranks share a batch of such micro-batches, so they all skip the same steps."""

    def __init__(self, engine: Any, trained: Sequence[nn.Parameter], scale: LossScale, turns: int = 1) -> None:
        self._engine, self._trained, self._scale, self._turns = engine, trained, scale, turns
        self._take: Any = None

    @property
    def factor(self) -> float:
        """What a loss is multiplied with."""
        return self._scale.scale * self._turns

    def stand(self) -> None:
        """Before whatever else looks at the gradients."""
        self._take, self._engine._take_model_step = self._engine._take_model_step, self._step

    def step_aside(self) -> None:
        self._engine._take_model_step, self._take = self._take, None

    def _step(self, *arguments: Any) -> None:
        gradients = [each.grad for each in self._trained if each.grad is not None]
        device = self._trained[0].device
        overflow = torch.zeros((), device=device)
        if gradients:
            inverse = torch.full((), 1.0 / self.factor, device=device)
            torch._amp_foreach_non_finite_check_and_unscale_(gradients, overflow, inverse)
        skips = bool(overflow)
        if skips:
            self._engine.zero_grad()
            self._engine.skipped_steps += 1
        else:
            self._take(*arguments)
        self._scale.update_scale(skips)


def check(stage: int, device: torch.device) -> None:
    """GTJ0104 where DeepSpeed is to hold fp16 weights, as from stage 1 on, and cannot compute with them."""
    if stage > 0 and not get_accelerator().is_fp16_supported():
        why = f"DeepSpeed keeps the weights in fp16 there, and this {device.type} cannot compute with them"
        how = "use deepspeed.stage: 0, which autocasts from fp32 weights, or precision: bf16"
        raise JobError("GTJ0104", f"precision: fp16 at ZeRO stage {stage}", where="spec.training.precision", why=why, how=how)
