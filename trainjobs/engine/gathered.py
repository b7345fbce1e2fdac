"""A network whose weights are gathered once, for many passes: drawing text token by token.

At ZeRO stage 3 every pass of every layer gathers its weights from all ranks and lets go of them again. Within `gathered` they are there,
and a second network of the same layers points at them, without the hooks that gather: a token then costs what it costs at stage 0, and
ranks need not make as many passes as each other. All weights must fit into the memory of a device beside what is there already.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import deepspeed
from torch import nn

HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_ABOUT = ("_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks_with_kwargs")


@contextmanager
def gathered(network: nn.Module) -> Iterator[nn.Module]:
    """The network itself where it is whole, else one that computes the same. Every rank must enter; not for training."""
    parameters = list(network.parameters())
    if not any(hasattr(parameter, "ds_id") for parameter in parameters):
        yield network
        return
    with deepspeed.zero.GatheredParameters(parameters):
        yield shell(network, {})


def shell(network: nn.Module, known: dict[int, nn.Module]) -> nn.Module:
    """The network without DeepSpeed's hooks, and with the same parameters, buffers and other hooks; so are modules that it has beside its
    own parts, as attributes. `known` are those that were made, by the identity of what they were made from."""
    if id(network) in known:
        return known[id(network)]
    made = known[id(network)] = copy.copy(network)  # a dict of its own, with the same values
    own: dict[str, Any] = made.__dict__
    for name, value in own.items():
        if isinstance(value, nn.Module):
            own[name] = shell(value, known)
    own["_modules"] = {name: None if part is None else shell(part, known) for name, part in network._modules.items()}
    own["_parameters"] = dict(network._parameters.items())
    for name in HOOKS:
        own[name] = OrderedDict((key, hook) for key, hook in getattr(network, name).items() if not _deepspeeds(hook))
    for name in _ABOUT:
        own[name] = OrderedDict((key, value) for key, value in getattr(network, name).items() if _kept(own, key))
    return made


def _deepspeeds(hook: Any) -> bool:
    return str(getattr(getattr(hook, "func", hook), "__module__", "")).startswith("deepspeed")


def _kept(own: Mapping[str, Any], key: int) -> bool:
    return any(key in own[name] for name in HOOKS)
