"""The norm of a network's gradient, as it was before clipping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainjobs.objectives.deferred import Deferred, Metric


class GradientNorm:
    """Of an engine of DeepSpeed's. From ZeRO stage 1 on it measures the norm of each step itself. At stage 0 nobody does, and after the
    step the gradient is gone: so it is measured between the sum over the ranks and the clipping, parameter by parameter, and put together
    when it is told."""

    def __init__(self, engine: Any, trained: Sequence[nn.Parameter], stage: int) -> None:
        self._engine, self._trained = engine, trained
        self._measured: Tensor | None = None
        self._take = engine._take_model_step
        if stage == 0:
            engine._take_model_step = self._step

    def last(self) -> Metric | None:
        """The L2 norm over the whole gradient that the last step began with, float32, the same on every rank; None where DeepSpeed was told
        not to measure it (zero_optimization.compute_grad_norm)."""
        if self._measured is not None:
            return Deferred(total, (self._measured,))
        norm = self._engine.optimizer._global_grad_norm
        return None if norm is None else torch.as_tensor(norm, dtype=torch.float32)

    def _step(self, *arguments: Any) -> None:
        norms = torch._foreach_norm([each.grad for each in self._trained if each.grad is not None])
        self._measured = torch.stack(norms)  # one tensor instead of many, as it waits for the sync
        self._take(*arguments)


def total(norms: Tensor) -> Tensor:
    """The norm of what has parts of these norms: of [N, P], [N]."""
    whole: Tensor = torch.linalg.vector_norm(norms, dim=1)
    return whole
