"""Metrics that are worked out when they are told, for all steps since the last time at once: a step keeps what they are made of.

On a GPU every operation of a step is a launch. An accuracy takes six, and is read twice a second; the scores that it is made of are there
anyway. So a loss gives those, and the rule by which they become a number; the rule runs on the CPU, over all steps in one pass, after the
one transfer that the other metrics need as well. What a step's number is does not depend on how many steps are worked out with it, so a
run that goes on from a commit counts on with the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Deferred:
    """The number that `rule` makes of the tensors `of`, which nobody may change afterwards. The rule gets N such values of each, [N, ...]
    on the CPU, and returns [N], each from its own row. Those of one rule and the same shapes are worked out together, so it is one that
    is equal to itself from step to step: a function, or the method of a constant."""

    rule: Callable[..., Tensor]
    of: tuple[Tensor, ...]

    def __float__(self) -> float:
        return numbers([self])[0]


Metric = Tensor | Deferred  # a scalar
Metrics = Mapping[str, Metric]


def numbers(metrics: Sequence[Metric]) -> list[float]:
    """The values of all, by one transfer from a device (and one more for each further kind of number among them)."""
    here = _here(tensor for metric in metrics for tensor in (metric.of if isinstance(metric, Deferred) else (metric,)))
    together: dict[tuple[object, ...], list[int]] = {}
    plain: dict[torch.dtype, list[int]] = {}
    for place, metric in enumerate(metrics):
        if isinstance(metric, Deferred):
            together.setdefault((metric.rule, *((tensor.shape, tensor.dtype) for tensor in metric.of)), []).append(place)
        else:
            plain.setdefault(metric.dtype, []).append(place)
    found = [0.0] * len(metrics)
    for places in plain.values():
        values = torch.stack([here[id(metrics[place])].reshape(()) for place in places])
        for place, value in zip(places, values.double().tolist(), strict=True):
            found[place] = value
    for places in together.values():
        group = [metric for place in places if isinstance(metric := metrics[place], Deferred)]
        rows = [torch.stack([here[id(tensor)] for tensor in each]) for each in zip(*(metric.of for metric in group), strict=True)]
        for place, value in zip(places, group[0].rule(*rows).double().tolist(), strict=True):
            found[place] = value
    return found


def _here(tensors: Iterable[Tensor]) -> dict[int, Tensor]:
    """Each on the CPU, by its identity: one that several metrics are made of goes once."""
    kinds: dict[tuple[torch.device, torch.dtype], dict[int, Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.device, tensor.dtype), {})[id(tensor)] = tensor.detach()
    found = dict[int, Tensor]()
    for (device, _), group in kinds.items():
        if device.type == "cpu":
            found |= group
            continue
        flat = torch.cat([tensor.reshape(-1) for tensor in group.values()]).cpu()
        parts = torch.split_with_sizes(flat, [tensor.numel() for tensor in group.values()])
        found |= {key: part.view(tensor.shape) for (key, tensor), part in zip(group.items(), parts, strict=True)}
    return found


def mean(values: Tensor) -> Tensor:
    """The rule of a mean over all elements."""
    return values.flatten(1).mean(dim=1)
