"""Low-rank changes of a network of diffusers or transformers, by peft, within the network: W + (alpha / rank) B A.

A is N(0, 1 / rank) and B is 0 at first (peft's "gaussian", as in diffusers' scripts). They are in fp32 whatever the base is in.
peft is imported inside the functions: it takes seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from trainjobs.api.diffusion_pretrained import Lora
from trainjobs.api.errors import JobError

CHANGEABLE = (nn.Linear, nn.Conv2d)


def low_rank(network: nn.Module, lora: Lora, patterns: Sequence[str]) -> None:
    """Change the layers that the patterns name; their changes alone ask for a gradient. JobError GTJ0102 for a pattern that fits none."""
    from peft import inject_adapter_in_model

    inject_adapter_in_model(config(lora, fitting(network, patterns)), network)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if "lora_" in name:
            parameter.data = parameter.data.float()


def config(lora: Lora, layers: Sequence[str]) -> Any:
    """peft's configuration."""
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha if lora.alpha is not None else lora.rank,
        lora_dropout=lora.dropout,
        use_dora=lora.use_dora,
        init_lora_weights="gaussian",
        target_modules=list(layers),
    )


def fitting(network: nn.Module, patterns: Sequence[str]) -> list[str]:
    """The layers' whole names. JobError GTJ0102."""
    layers = [name for name, layer in network.named_modules() if isinstance(layer, CHANGEABLE)]
    chosen: dict[str, None] = {}
    for pattern in patterns:
        found = [name for name in layers if fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")]
        if not found:
            there = dict.fromkeys(".".join("*" if part.isdigit() else part for part in name.split(".")) for name in layers)
            where, how = "diffusion.adapt.lora.targetModules", f"there are {', '.join(there)}"
            raise JobError("GTJ0102", f"{pattern} is no layer of the pipeline", where=where, how=how)
        chosen |= dict.fromkeys(found)
    return list(chosen)
