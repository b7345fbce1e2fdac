"""ZeRO stage 0 with nothing in between: the loss's own `backward`, one all-reduce of flat gradients, the optimizer's own `step`.

DeepSpeed's engine does the same at stage 0, to the last bit, and asks about everything that it could do besides. It stays where a job
sets something of DeepSpeed's (`deepspeed.config`), because then it may be that which was asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from deepspeed.moe.utils import is_moe_param
from deepspeed.runtime.utils import clip_grad_norm_
from torch import Tensor, nn

from trainjobs.api.job import Spec
from trainjobs.world import World

BUCKET = 500_000_000  # elements after which gradients are sent: those of a larger network are not copied all at once


def enough(spec: Spec, stage: int, trained: Iterable[nn.Parameter]) -> bool:
    """Whether `Direct` does all that DeepSpeed's engine would: stage 0, nothing of DeepSpeed's asked for, every weight in fp32, and no
    experts, which are not the same on every rank."""
    alike = all(each.dtype == torch.float32 and not is_moe_param(each) for each in trained)
    return stage == 0 and not spec.deepspeed.config and alike


class Direct:
    """What the loop needs of DeepSpeed's engine, under its names: `trainjobs.engine` measures norms and scales losses of either.

    Rank 0's weights are every rank's from here on.
    """

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer, clipping: float, world: World) -> None:
        """`clipping` is the largest L2 norm of a step's gradient; 0 is none."""
        self.module, self.optimizer, self.basic_optimizer = module, optimizer, optimizer
        self.skipped_steps = 0
        self._clipping, self._size = clipping, world.size
        if world.size > 1:
            for parameter in module.parameters():
                dist.broadcast(parameter.detach(), src=0)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a scalar loss."""
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self) -> None:
        """Average the gradients over the ranks, clip, update, and clear them."""
        if self._size > 1:
            average(self.module.parameters(), self._size)
        self._take_model_step(None)

    def zero_grad(self) -> None:
        for parameter in self.module.parameters():
            parameter.grad = None

    def _take_model_step(self, keywords: Any) -> None:
        if self._clipping > 0.0:
            # DeepSpeed's, which adds up the norm in another order than torch's does: the same numbers as before.
            clip_grad_norm_(self.module.parameters(), self._clipping)
        self.optimizer.step()
        self.zero_grad()


def average(parameters: Iterable[nn.Parameter], ranks: int) -> None:
    """Each gradient becomes its mean over the ranks, which must all call it; one that a rank lacks counts as zeros there."""
    gradients = []
    for parameter in parameters:
        if parameter.requires_grad and parameter.numel():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
    for bucket in buckets(gradients, BUCKET):
        flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
        dist.all_reduce(flat)
        flat.mul_(1.0 / ranks)
        means = flat.split_with_sizes([gradient.numel() for gradient in bucket])
        torch._foreach_copy_(bucket, [mean.view(gradient.shape) for mean, gradient in zip(means, bucket, strict=True)])


def buckets(gradients: Iterable[Tensor], most: int) -> Iterator[list[Tensor]]:
    """In order; each ends with the one by which it has more than `most` elements."""
    bucket, elements = list[Tensor](), 0
    for gradient in gradients:
        bucket.append(gradient)
        elements += gradient.numel()
        if elements > most:
            yield bucket
            bucket, elements = [], 0
    if bucket:
        yield bucket
