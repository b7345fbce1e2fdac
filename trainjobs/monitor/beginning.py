"""What a group of workers says of itself when it begins to train."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from trainjobs.api.job import Spec
from trainjobs.checkpoints import Commit
from trainjobs.plan.group import counted
from trainjobs.world import World


def begun(world: World, stage: int, commit: Commit | None, before: Mapping[str, Any], spec: Spec) -> str:
    """Its size and stage; whether those were others at the checkpoint `commit` that it goes on from; and, `before` being progress.json as
    it was, why it does not go on from one that there was; and that its first step takes longer, where blocks are compiled in it."""
    places = spec.checkpoints
    group = f"{counted(world.workers, world.each)} on {world.device.type}, ZeRO stage {stage}"
    if commit and (commit.world, commit.metadata.get("stage")) != (world.size, stage):
        group += f"; the checkpoint is of {commit.world}, stage {commit.metadata.get('stage')}"
    if not commit and (passed := before.get("checkpoint")):
        why = "checkpoints.resumeFrom is none" if places.resume_from == "none" else f"there is none at checkpoints.uri {places.uri}"
        why = why if places.resume_from == "none" or places.uri else "there is none in the run folder"
        group += f"; not from the checkpoint of step {passed['step']}: {why}"
    return f"{group}; the first step compiles blocks" if spec.training.compile else group


def emulated(world: World, precision: str) -> str:
    """A sentence where rank 0's device has no instructions for such numbers, and takes longer than in fp32; else ""."""
    mkldnn: Any = torch.ops.mkldnn
    if world.device.type == "cpu" and precision != "fp32":
        there = mkldnn._is_mkldnn_bf16_supported() if precision == "bf16" else mkldnn._is_mkldnn_fp16_supported()
        words = f"this processor has no instructions for {precision}, and torch's detour takes many times as long as precision: fp32"
        return "" if there else words
    if world.device.type == "cuda" and precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "this GPU has no instructions for bf16, and takes longer than with precision: fp16"
    return ""
