"""Causal networks with a small layer beside the last one, read from the same last hidden states. One network, because one loss trains both
(see phase.py). Weights of the causal network have their own names: exports and initial weights are those of the causal network.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, ClassVar

from torch import Tensor, nn


class Headed(nn.Module):
    """Called as the causal network; what is beside it is computed where it is asked for."""

    begins_anew: ClassVar[tuple[str, ...]] = ()  # a causal network's weights are a beginning as well

    def __init__(self, causal: nn.Module) -> None:
        super().__init__()
        given: Any = causal
        for name, child in causal.named_children():
            self.add_module(name, child)
        self.__dict__["causal"] = causal  # not a module of this one: its parts are
        self.config = given.config
        self.width = int(given.config.get_text_config().hidden_size)

    def train(self, mode: bool = True) -> Headed:
        super().train(mode)
        self.__dict__["causal"].train(mode)
        return self

    def forward(self, **arguments: Any) -> Any:
        return self.__dict__["causal"](**arguments)

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """Transformers' switch, by the name that models/recomputing.py asks for."""
        self.__dict__["causal"].activation_checkpointing_enable(**options)

    def disable_adapter(self) -> AbstractContextManager[None]:
        """The network as it began, where it has adapters."""
        without: AbstractContextManager[None] = self.__dict__["causal"].disable_adapter()
        return without


class Valued(Headed):
    """`valued`: with `values`, float32 [B, L], what is to be expected from each token on (Stiennon et al., "Learning to summarize from
    human feedback", 2020, arXiv 2009.01325). 0 at first, so that the first advantages are those of rewards alone."""

    begins_anew = ("value.weight", "value.bias")

    def __init__(self, causal: nn.Module) -> None:
        super().__init__(causal)
        self.value = nn.Linear(self.width, 1)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    def forward(self, valued: bool = False, **arguments: Any) -> Any:
        output = super().forward(**arguments, **({"output_hidden_states": True} if valued else {}))
        if valued:
            output["values"] = self.value(output.hidden_states[-1].to(self.value.weight.dtype))[..., 0].float()
        return output


class Projected(Headed):
    """`projected`: with `projected`, [B, L, width of another network], hidden states to be compared with those."""

    begins_anew = ("projection.weight",)

    def __init__(self, causal: nn.Module, width: int) -> None:
        super().__init__(causal)
        self.projection = nn.Linear(self.width, width, bias=False)

    def forward(self, projected: bool = False, **arguments: Any) -> Any:
        output = super().forward(**arguments, **({"output_hidden_states": True} if projected else {}))
        if projected:
            output["projected"] = self.projection(output.hidden_states[-1].to(self.projection.weight.dtype))
        return output


def values(output: Any) -> Tensor:
    """What a Valued network expects from each token on, float32 [B, L]."""
    found: Tensor = output["values"]
    return found
