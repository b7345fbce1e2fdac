"""Gradient checkpointing: blocks of a network keep their inputs alone, and are computed again in the backward pass (Chen et al., "Training
deep nets with sublinear memory cost", 2016, arXiv 1604.06174). torch's checkpoint without reentrance, which keeps the state of torch's
generator and of autocast: the same numbers, for about a third more time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from trainjobs.api.errors import JobError


def recompute(name: str, network: nn.Module) -> None:
    """Have the blocks of a network be computed again: transformers' by its own switch, ours where a class has `RECOMPUTES`. JobError
    GTJ0108 for a network without any."""
    switch: Any = getattr(network, "activation_checkpointing_enable", None)
    if switch is not None:
        switch(activation_checkpointing_kwargs={"use_reentrant": False})
        return
    blocks = [block for block in network.modules() if getattr(block, "RECOMPUTES", False)]
    for block in blocks:
        block.forward = Again(block.forward)
    if not blocks:
        why, how = "its network has no blocks that could be computed again", "take gradientCheckpointing out"
        raise JobError("GTJ0108", f"gradientCheckpointing of {name}", where="spec.training.gradientCheckpointing", why=why, how=how)


@dataclass(frozen=True)
class Again:
    forward: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.forward(*arguments)
        return checkpoint(self.forward, *arguments, use_reentrant=False)
