"""A causal network and what it expects: a value for every token, read from the same last hidden states (Stiennon et al., "Learning to
summarize from human feedback", 2020, arXiv 2009.01325). One network, because one loss trains both (see phase.py).
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn


class Valued(nn.Module):
    """Called as the causal network, whose weights have their names here, with `values`, float32 [B, L], beside the logits where `valued`.

    The value is 0 at first, so the first advantages are those of rewards alone.
    """

    begins_anew = ("value.weight", "value.bias")  # a causal network's weights are a beginning as well

    def __init__(self, causal: nn.Module) -> None:
        super().__init__()
        given: Any = causal
        for name, child in causal.named_children():
            self.add_module(name, child)
        self.__dict__["_causal"] = causal  # not a module of this one: its parts are
        self.config = given.config
        self.value = nn.Linear(given.config.get_text_config().hidden_size, 1)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    def forward(self, valued: bool = False, **arguments: Any) -> Any:
        output = self._causal(**arguments, **({"output_hidden_states": True} if valued else {}))
        if valued:
            hidden_BLH = output.hidden_states[-1]
            output["values"] = self.value(hidden_BLH.to(self.value.weight.dtype))[..., 0].float()
        return output

    def train(self, mode: bool = True) -> Valued:
        super().train(mode)
        self._causal.train(mode)
        return self

    def disable_adapter(self) -> AbstractContextManager[None]:
        """The network as it began, where it has adapters."""
        without: AbstractContextManager[None] = self._causal.disable_adapter()
        return without

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """Transformers' switch, by the name that recomputing.py asks for."""
        self._causal.activation_checkpointing_enable(**options)

    @property
    def _causal(self) -> Any:
        return self.__dict__["_causal"]


def values(output: Any) -> Tensor:
    """What a Valued network expects from each token on, float32 [B, L]."""
    found: Tensor = output["values"]
    return found
