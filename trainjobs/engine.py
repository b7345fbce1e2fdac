"""One DeepSpeed engine per trained network. The only module that imports DeepSpeed.

Facts that shape it, each measured against plain torch and kept as a regression test:

1. Losses call the network itself. `engine(x)` registers hooks on outputs that break a second derivative and a loss that flows
   through another engine's network; the module does not, and is exact at ZeRO stages 0 to 2.
2. `managed_gradient_accumulation: false`: `backward` as often as you like, `step` applies.
3. The optimizer is torch's own. Anything that edits weights in place belongs inside its `step`, because ZeRO writes the weights
   back from its fp32 masters.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import deepspeed
import torch
from deepspeed.runtime.checkpoint_engine.checkpoint_engine import CheckpointCommitInfo, CheckpointEngine
from torch import Tensor, nn

from trainjobs import optim
from trainjobs.api.job import Spec
from trainjobs.plan.deepspeed import deepspeed_config
from trainjobs.world import World

TAG = "engine"


def connect(world: World) -> None:
    """Let DeepSpeed use the process group that torch.distributed already has.

    On CPU its start compiles a shared-memory all-reduce, for 10 to 100 s, and dies where there is no compiler. gloo does the same
    sums, so the op is used only where DeepSpeed was installed with it, as in the trainer's image. Saying so for DeepSpeed also spares
    it from finding out, operation by operation and by trial compilations, what this machine could build.
    """
    os.environ.setdefault("LOCAL_RANK", str(world.device.index or 0))
    # DeepSpeed has torch ask NVML whether there is a GPU, and torch's optimizers ask before every step: 0.3 ms for opening the library.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
    if not deepspeed.git_version_info.installed_ops.get("deepspeed_shm_comm", False):
        deepspeed.ops.__compatible_ops__ = {"deepspeed_shm_comm": False}
    deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)
    # DeepSpeed asks of every optimizer whether it is its own Muon. That module compiles functions when it is imported, and for that
    # imports all of torch's compiler: more than a second. Left uncompiled they do the same.
    with patch.object(torch, "compile", lambda function=None, **options: function or (lambda decorated: decorated)):
        importlib.import_module("deepspeed.runtime.zero.muon.original_muon")


class Collector(CheckpointEngine):  # type: ignore[misc]
    """Collects what DeepSpeed would write, so that nothing is written between two collectives.

    DeepSpeed's own engine writes files between barriers: a full disk on one rank leaves the others waiting for half an hour.
    """

    def __init__(self) -> None:
        super().__init__(None)
        self.collected: dict[str, Any] = {}

    def create(self, info: CheckpointCommitInfo) -> None:
        self.collected = {}

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        pass

    def save(self, state_dict: Any, path: str) -> None:
        self.collected[Path(path).name] = state_dict

    def load(self, path: str, map_location: Any = None) -> Any:
        # A pickle, as DeepSpeed's state holds objects of its own; its digest was compared with the commit's before it came here.
        return torch.load(path, map_location=map_location, weights_only=False)

    def commit(self, info: CheckpointCommitInfo) -> bool:
        return True


class Engine:
    """A network that DeepSpeed trains: `module` is the network with live weights, everything else goes through here."""

    def __init__(self, name: str, module: nn.Module, spec: Spec, stage: int, micro: int, world: World) -> None:
        self.name = name
        self.stage = stage
        self.skipped = False
        self.settings = spec.training.optimizer(name)
        trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
        config = deepspeed_config(
            spec,
            stage=stage,
            micro=micro,
            workers=world.size,
            parameters=sum(parameter.numel() for parameter in trainable),
            tested_optimizer=self.settings.name in optim.TESTED_BY_DEEPSPEED,
        )
        module.to(world.device)
        optimizer = optim.build(self.settings, trainable)
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        self._engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=config)
        self.module: nn.Module = self._engine.module
        if stage == 0:
            # In bf16 DeepSpeed has taken a step here, with gradients of zero, to have the state allocated. At rate 0 it moved nothing;
            # counted, it would spoil Adam's bias correction (its first update would be 0.74 of what it is) and its decay.
            optimizer.state.clear()
        if world.size == 1 and stage == 0:
            # Else it flattens all gradients into buckets and back, for a sum over one worker: 4 % of a small GAN's step.
            self._engine.enable_backward_allreduce = False
        # DeepSpeed counts micro-batches in `engine.forward`, which is not called. Uncounted, stage 3 would overwrite the gradient of
        # every micro-batch with the next one's, and say nothing.
        self._counts_forwards = hasattr(self._engine.optimizer, "clear_backward_seen_flag")
        self._collector = Collector()
        self._engine.checkpoint_engine = self._collector
        # Scripts that DeepSpeed copies beside its files, on rank 0; they are not state.
        self._engine._copy_recovery_script = lambda folder: None

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a scalar loss, which the caller has divided by the number of backwards before the next step."""
        if self._counts_forwards:
            self._engine.optimizer.clear_backward_seen_flag()
        self._engine.backward(loss)

    def step(self) -> None:
        """Average the gradients over the workers, clip, update, and clear them.

        From stage 1 on DeepSpeed makes no update from gradients that are not finite, and goes on: `skipped` says so, on every rank.
        """
        before = self._engine.skipped_steps
        self._engine.step()
        self.skipped = self._engine.skipped_steps > before

    def set_rate(self, factor: float) -> float:
        """Set the learning rate to `factor` times its peak, and return it."""
        rate = factor * self.settings.learning_rate
        for group in self._engine.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def collect(self) -> dict[str, Any]:
        """This rank's part of weights and optimizer state, by file name, still the live tensors. Every rank must call it.

        `latest` is not written: rank 0 would write it before the other ranks have finished. What counts is the commit.
        """
        self._engine.save_checkpoint(".", tag=TAG, save_latest=False)
        collected, self._collector.collected = self._collector.collected, {}
        return collected

    def load(self, folder: Path) -> None:
        """Take weights and optimizer state from files of what `collect` gave on as many workers. Every rank must call it, between steps.

        A rank needs its own files and rank 0's, laid together in one folder.
        """
        path, _ = self._engine.load_checkpoint(str(folder), tag=".")
        if path is None:
            raise FileNotFoundError(f"no engine state in {folder}")

    @contextmanager
    def whole(self, parameters: list[nn.Parameter], *, write: bool = False) -> Iterator[None]:
        """The parameters at full shape within the block; with `write`, rank 0's changes are kept on every rank."""
        if self.stage < 3:
            yield
            return
        with deepspeed.zero.GatheredParameters(parameters, modifier_rank=0 if write else None):
            yield

    def finite(self) -> bool:
        """Whether every weight that this rank holds is a finite number."""
        return all(bool(torch.isfinite(self.owned(parameter)).all()) for parameter in self.module.parameters())

    def owned(self, parameter: nn.Parameter) -> Tensor:
        """What this rank stores of a parameter: at stage 3 its flat shard, else the whole."""
        shard: Any = getattr(parameter, "ds_tensor", None)
        return parameter.detach() if self.stage < 3 or shard is None else shard.detach()


def device_memory(device: torch.device) -> int:
    """Bytes of memory of the device: the GPU's, or this process's share of the machine's."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
