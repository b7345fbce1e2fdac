"""Gradual unfreezing (Howard and Ruder, "Universal language model fine-tuning", 2018, section 3.3): the last block of a network trains from
the first step, every so many steps the next lower one begins, and the rate of a block is that of the block above divided by 2.6.

What stands behind the blocks belongs to the last of them, what stands before (embeddings, and a last layer that shares their weights) is
the lowest of all.
"""

from __future__ import annotations

from torch import nn

from trainjobs.api.errors import JobError
from trainjobs.api.pretrained import Unfreezing
from trainjobs.objectives.phase import Network


def unfrozen(name: str, module: nn.Module, unfreezing: Unfreezing, origin: str) -> Network:
    """The network with a group of parameters for each block, `<name>/<depth>`, from the last block on. JobError GTJ0109 for a network whose
    blocks cannot be told."""
    blocks = max((child for child in module.modules() if isinstance(child, nn.ModuleList)), key=len, default=None)
    if blocks is None:
        why = "it has no list of blocks"
        raise JobError("GTJ0109", "the base cannot be unfrozen block by block", where="language.unfreezing", why=why, how="train all of it")
    depth = {id(p): len(blocks) - 1 - number for number, block in enumerate(blocks) for p in block.parameters()}
    embeddings = {id(p) for child in module.modules() if isinstance(child, nn.Embedding) for p in child.parameters()}
    groups: dict[str, list[nn.Parameter]] = {f"{name}/{number}": [] for number in range(len(blocks) + 1)}
    for parameter in module.parameters():
        groups[f"{name}/{depth.get(id(parameter), len(blocks) if id(parameter) in embeddings else 0)}"].append(parameter)
    thaws = {group: number * unfreezing.every for number, group in enumerate(groups)}
    return Network(module, groups=groups, thaws=thaws, origin=origin)
