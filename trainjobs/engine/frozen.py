"""Networks that are not trained: teachers, reference models, encoders. They are in no checkpoint; a digest of them is in every commit.

Below ZeRO stage 3 every rank has them whole. At stage 3 they are split over the ranks like what is trained, by DeepSpeed without an
optimizer; a forward pass, and the gradient through it to its inputs, are then exactly those of the whole network.
"""

from __future__ import annotations

import deepspeed
from torch import nn

from trainjobs.api.job import Spec
from trainjobs.plan.deepspeed import deepspeed_config
from trainjobs.world import World


def freeze(module: nn.Module, spec: Spec, stage: int, micro: int, world: World) -> nn.Module:
    """The network on its device, in eval mode, none of its parameters asking for a gradient."""
    module.requires_grad_(False).eval().to(world.device)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    if stage < 3 or parameters == 0:
        return module
    config = deepspeed_config(spec, stage=stage, micro=micro, workers=world.size, parameters=parameters, tested_optimizer=True)
    engine, *_ = deepspeed.initialize(model=module, config=config)
    frozen: nn.Module = engine.module
    return frozen.eval()
