"""Muon for matrices, AdamW for everything else, as one optimizer.

Muon makes the momentum of a matrix orthogonal by five Newton-Schulz iterations (Jordan et al., "Muon: an optimizer for hidden layers",
2024). It is torch.optim.Muon, which takes nothing but matrices; its steps are scaled to the size of AdamW's (Liu et al., "Muon is scalable
for LLM training", 2025, arXiv 2502.16982, section 2.2), so that one learning rate serves both. An iteration needs the whole matrix, and so
ZeRO stage 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, optim

from trainjobs.api.errors import JobError
from trainjobs.optim.groups import Group
from trainjobs.optim.options import options


class Muon(optim.Optimizer):
    """A group of parameters for each of `groups`, in their order; the two optimizers within share the state of this one.

    JobError GTJ0108 where no group has a matrix.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        rows: list[dict[str, Any]] = [
            options(group.settings) | {"params": [parameter for _, parameter in group.parameters]} for group in groups
        ]
        super().__init__(rows, {})
        self._matrices: set[int] = set()
        self._within: list[tuple[dict[str, Any], optim.Optimizer]] = []
        for group, shown in zip(groups, self.param_groups, strict=True):
            settings = group.settings
            matrices = [p for path, p in group.parameters if p.dim() == 2 and path not in group.embeddings]
            others = [p for path, p in group.parameters if p.dim() != 2 or path in group.embeddings]
            self._matrices |= {id(parameter) for parameter in matrices}
            if matrices:
                decay, momentum = settings.weight_decay, settings.muon_momentum
                self._add(shown, optim.Muon(matrices, weight_decay=decay, momentum=momentum, adjust_lr_fn="match_rms_adamw"))
            if others:
                self._add(shown, optim.AdamW(others, **options(settings), fused=True))
        if not self._matrices:
            why = "it updates matrices, and there are only biases, norms, embeddings and filters of convolutions"
            names = ", ".join(group.name for group in groups)
            raise JobError("GTJ0108", f"muon has nothing to train in {names}", where="spec.training.optimizers", why=why, how="use adamw")

    def _add(self, shown: dict[str, Any], optimizer: optim.Optimizer) -> None:
        optimizer.state = self.state
        self._within.append((shown, optimizer))

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for shown, optimizer in self._within:
            for group in optimizer.param_groups:
                group["lr"] = shown["lr"]
            optimizer.step()

    def keeps(self, parameter: Tensor, kind: str) -> bool:
        """Whether this kind of state is one that the parameter has."""
        return (kind == "momentum_buffer") == (id(parameter) in self._matrices)
