"""Where ZeRO keeps what the optimizer works on: for each parameter, which of its elements this rank has, in fp32, and in which tensor.

DeepSpeed 0.19.8, by stage, as read from what `deepspeed.initialize` returns:

0      The optimizer works on the parameters themselves, which are fp32.
1, 2   All parameters of a group are flattened into one tensor, padded, and cut into equal parts, one for each rank
       (`single_partition_of_fp32_groups`); a parameter's `_hp_mapping` says which of its elements lie where in this rank's part.
3      Each parameter is flattened, padded, and cut into equal parts for itself; the parts that a rank has are laid together by group
       (`fp32_partitioned_groups_flat`), and `grad_position` says where.

The optimizer's state is keyed by those tensors: of the same number of elements (moments), or a single number (Adam's step count).
Padding belongs to no parameter and is neither saved nor restored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainjobs.api.errors import JobError


@dataclass(frozen=True)
class Held:
    """Elements `start` to `start + length` of the flattened parameter `name`, which are elements `offset` on of the flattened `tensor`."""

    name: str
    shape: tuple[int, ...]
    start: int
    length: int
    tensor: Tensor  # fp32, live; the optimizer's key
    offset: int

    def of(self, like: Tensor) -> Tensor:
        """These elements of a tensor of as many elements as `tensor`: live, except when they are no view of it."""
        if self.length == like.numel():
            return like.detach()
        return like.detach().reshape(-1).narrow(0, self.offset, self.length)


def held(trained: Iterable[tuple[str, Any]], optimizer: Any, stage: int, rank: int) -> Iterator[Held]:
    """What this rank has of the trained parameters, given by name. `optimizer` is DeepSpeed's, or torch's own."""
    for name, parameter in trained:
        if stage == 0:
            yield Held(name, tuple(parameter.shape), 0, parameter.numel(), parameter, 0)
        elif stage == 3:
            group, offset, share = optimizer.grad_position[optimizer.get_param_id(parameter)]
            total, start = parameter.ds_numel, rank * share
            if length := max(0, min(share, total - start)):
                flat = optimizer.fp32_partitioned_groups_flat[group]
                _in_memory(flat, share)
                yield Held(name, tuple(parameter.ds_shape), start, length, flat, offset)
        elif (mapping := parameter._hp_mapping) is not None:
            there, here = mapping.lp_fragment_address, mapping.hp_fragment_address
            flat = optimizer.single_partition_of_fp32_groups[mapping.param_group_index]
            yield Held(name, tuple(parameter.shape), there.start, there.numel, flat, here.start)


def even(whole: list[Held], rank: int, size: int) -> Iterator[Held]:
    """Of parameters that every rank has whole, an equal share for `rank`: so that each saves its own."""
    total = sum(part.length for part in whole)
    first, last, position = total * rank // size, total * (rank + 1) // size, 0
    for part in whole:
        begin, end = max(first, position), min(last, position + part.length)
        if begin < end:
            start = begin - position
            yield Held(part.name, part.shape, start, end - begin, part.tensor, start)
        position += part.length


def publish(optimizer: Any, stage: int) -> None:
    """Make the weights that the network computes with those that the optimizer has. Every rank must call it, between steps."""
    if stage == 0:
        return  # they are the same tensors
    with torch.no_grad():
        if stage == 3:
            optimizer.checkpoint_event_prologue()
            for group, master in enumerate(optimizer.fp32_partitioned_groups_flat):
                optimizer.fp16_partitioned_groups_flat[group].data.copy_(master.data)
                optimizer._unflatten_partitioned_parameters(group)
            optimizer.checkpoint_event_epilogue()
        else:
            optimizer.update_lp_params()


def _in_memory(flat: Tensor, share: int) -> None:
    if flat.numel() < share:
        why, how = "DeepSpeed has swapped it out to a disk", "take the offload to NVMe out of deepspeed.config"
        raise JobError("GTJ0104", "checkpoints cannot reach the optimizer's state", where="spec.deepspeed.config", why=why, how=how)
