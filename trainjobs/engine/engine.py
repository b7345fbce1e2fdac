"""One engine per trained network: DeepSpeed's, or at stage 0, where DeepSpeed is not asked for anything, torch alone (direct.py).

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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import deepspeed
import torch
from torch import Tensor, nn

from trainjobs.api.job import Spec
from trainjobs.engine import direct, zero
from trainjobs.engine.loss_scale import LossScale, ScaledStep, check
from trainjobs.engine.norm import GradientNorm
from trainjobs.engine.parts import DTYPES, Part, part
from trainjobs.objectives.deferred import Metric
from trainjobs.optim import optimizers
from trainjobs.optim.groups import Group
from trainjobs.optim.optimizers import After
from trainjobs.plan.deepspeed import deepspeed_config
from trainjobs.world import World

Kinds = Mapping[str, tuple[str, bool]]  # of optimizer state: by name, the element's type, and whether it is one number


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


class Engine:
    """A network that is trained: `module` is the network with live weights, everything else goes through here."""

    def __init__(
        self, name: str, module: nn.Module, groups: Sequence[Group], spec: Spec, stage: int, micro: int, world: World, after: After = None
    ) -> None:
        """`groups` are those of the network (optim/groups.py), at least one; `after` edits its weights within each optimizer step."""
        self.name = name
        self.stage = stage
        self.skipped = False
        self.groups = groups
        self.settings = groups[0].settings
        ours = {path for group in groups for path, _ in group.parameters}
        # In the network's own order, which is that of its checkpoints, however it is grouped.
        self.trained = [(path, parameter) for path, parameter in module.named_parameters() if path in ours]
        self._asleep: frozenset[str] = frozenset()  # paths that do not train yet
        self._thaws = any(group.thaws for group in groups)
        trainable = [parameter for _, parameter in self.trained]
        module.to(world.device)
        self.scale = LossScale() if spec.training.precision == "fp16" else None
        if self.scale:
            check(stage, world.device)
        optimizer = optimizers.build(groups, after)
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        self._engine: Any
        if direct.enough(spec, stage, trainable):
            self._engine = direct.Direct(module, optimizer, spec.training.gradient_clipping, world)
            self._backward = self._engine.backward
        else:
            config = deepspeed_config(
                spec,
                stage=stage,
                micro=micro,
                workers=world.size,
                parameters=sum(parameter.numel() for parameter in trainable),
                tested_optimizer=self.settings.name in optimizers.TESTED_BY_DEEPSPEED,
            )
            self._engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=config)
            self._backward = partial(self._engine.backward, scale_wrt_gas=False)  # which would divide by one
            if world.size == 1 and stage == 0:
                # Else it flattens all gradients into buckets and back, for a sum over one worker: 4 % of a small GAN's step.
                self._engine.enable_backward_allreduce = False
        self.module: nn.Module = self._engine.module
        # DeepSpeed counts micro-batches in `engine.forward`, which is not called. Uncounted, stage 3 would overwrite the gradient of
        # every micro-batch with the next one's, and say nothing.
        self._counts_forwards = hasattr(self._engine.optimizer, "clear_backward_seen_flag")
        self._world = world
        self._norm: GradientNorm | None = None
        turns = max(1, spec.training.batch.global_ // (micro * world.size))
        self._scaled = ScaledStep(self._engine, trainable, self.scale, turns) if self.scale and stage == 0 else None
        if self._scaled:
            self._scaled.stand()
        elif self.scale:
            self._engine.optimizer.loss_scaler = self.scale

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a scalar loss, which the caller has divided by the number of backwards before the next step."""
        if self._counts_forwards:
            self._engine.optimizer.clear_backward_seen_flag()
        self._backward(loss * self._scaled.factor if self._scaled else loss)

    def step(self) -> None:
        """Average the gradients over the workers, clip, update, and clear them.

        From stage 1 on, and in fp16, no update is made from gradients that are not finite, and training goes on: `skipped` says so, on
        every rank.
        """
        before = self._engine.skipped_steps
        self._engine.step()
        self.skipped = self._engine.skipped_steps > before

    @property
    def diverged(self) -> bool:
        """The last step made no update, and not because a loss scale finds its size."""
        return self.skipped and (self.scale is None or self.scale.exhausted)

    def watch_norm(self) -> None:
        """Measure the norm of the gradient of every step from here on."""
        if self._scaled:
            self._scaled.step_aside()
        self._norm = GradientNorm(self._engine, [parameter for _, parameter in self.trained], self.stage)
        if self._scaled:
            self._scaled.stand()

    def measured(self) -> dict[str, Metric]:
        """Of the last step, `gradient_norm/<network>`; not where nobody watches it, or no update was made. In fp16 also
        `loss_scale/<network>`, as it is after the step, and `skipped/<network>`, 1 where no update was made."""
        norm = self._norm.last() if self._norm and not self.skipped else None
        found: dict[str, Metric] = {} if norm is None else {f"gradient_norm/{self.name}": norm}
        if self.scale:
            found[f"loss_scale/{self.name}"] = torch.tensor(self.scale.scale)
            found[f"skipped/{self.name}"] = torch.tensor(float(self.skipped))
        return found

    def set_rates(self, factor: float) -> dict[str, float]:
        """Set every group's learning rate to `factor` times its peak, and return them by name. One that sleeps has none: else its
        weights would decay."""
        rates = {group.name: 0.0 if self._sleeps(group) else factor * group.settings.learning_rate for group in self.groups}
        for group, there in zip(self.groups, self._engine.optimizer.param_groups, strict=True):
            there["lr"] = rates[group.name]
        return rates

    def begin(self, step: int, factor: float) -> dict[str, float]:
        """Before every step: what wakes wakes, and the rates are set."""
        self.thaw(step)
        return self.set_rates(factor)

    def reach(self, step: int) -> None:
        """The run stands before this step: which groups sleep at it. What the optimizer has of them counts for nothing."""
        if self._thaws:
            self._asleep = frozenset(path for group in self.groups if not group.trains(step) for path, _ in group.parameters)

    def thaw(self, step: int) -> None:
        """Before a step: a group that trains from it on begins with an optimizer that is new, whatever zero gradients have made of it."""
        self.reach(step)
        waking = {path for group in self.groups if group.begins(step) for path, _ in group.parameters}
        if not waking:
            return
        for here in zero.held(self.trained, self._engine.optimizer, self.stage, self._world.rank):
            if here.name in waking:
                for value in self._state(here.tensor).values():
                    (here.of(value) if value.shape == here.tensor.shape else value).zero_()

    @property
    def uneven(self) -> bool:
        """Its parameters have not all the same kinds of optimizer state, so one rank's part may lack a kind that another's has."""
        return self._thaws or self.settings.name == "muon"

    def asleep(self) -> list[nn.Parameter]:
        """The parameters that do not train yet."""
        return [parameter for path, parameter in self.trained if path in self._asleep] if self._asleep else []

    def _sleeps(self, group: Group) -> bool:
        return group.parameters[0][0] in self._asleep

    def parts(self, *, own: bool) -> Iterator[Part]:
        """What this rank saves (`own`: of what every rank has, an equal share), or else all that it has: weights and optimizer state in
        fp32, and buffers. Live: a restore fills them. Keys are `<kind>/<parameter>`: fp32, the optimizer's names, buffer."""
        held = list(zero.held(self.trained, self._engine.optimizer, self.stage, self._world.rank))
        if own and self.stage == 0:
            held = list(zero.even(held, self._world.rank, self._world.size))
        for here in held:
            yield part(f"fp32/{here.name}", here.of(here.tensor), here.shape, here.start)
            if here.name in self._asleep:
                continue
            for kind, value in self._state(here.tensor).items():
                if value.shape == here.tensor.shape:
                    yield part(f"{kind}/{here.name}", here.of(value), here.shape, here.start)
                elif here.start == 0 or not own:  # Adam's count of steps: one number for a parameter
                    yield part(f"{kind}/{here.name}", value)
        for name, buffer in persistent_buffers(self.module):
            yield part(f"buffer/{name}", buffer, restless=True)

    def allocate(self, kinds: Kinds) -> None:
        """Make room for optimizer state of these kinds, before it is filled. What is there stays."""
        groups: Any = self._engine.basic_optimizer.param_groups
        beside = any(group.get("fused") or group.get("capturable") for group in groups)
        for here in zero.held(self.trained, self._engine.optimizer, self.stage, self._world.rank):
            state = self._engine.basic_optimizer.state[here.tensor]
            for kind, (dtype, single) in kinds.items():
                if kind in state or not optimizers.keeps(self._engine.basic_optimizer, here.tensor, kind):
                    continue
                if single:
                    state[kind] = torch.zeros((), dtype=DTYPES[dtype], device=here.tensor.device if beside else "cpu")
                else:
                    state[kind] = torch.zeros_like(here.tensor, dtype=DTYPES[dtype], requires_grad=False)

    def forget(self) -> None:
        """Drop the optimizer's state: it begins anew at the next step."""
        self._engine.basic_optimizer.state.clear()

    def publish(self) -> None:
        """Have the network compute with the weights that were filled in. Every rank must call it, between steps."""
        zero.publish(self._engine.optimizer, self.stage)

    def _state(self, tensor: Tensor) -> dict[str, Tensor]:
        found = self._engine.basic_optimizer.state.get(tensor, {})
        return {kind: value for kind, value in found.items() if isinstance(value, Tensor)}

    @contextmanager
    def whole(self, parameters: list[nn.Parameter], *, write: bool = False) -> Iterator[None]:
        """The parameters at full shape within the block; with `write`, rank 0's changes are kept on every rank."""
        if self.stage < 3:
            yield
            return
        with deepspeed.zero.GatheredParameters(parameters, modifier_rank=0 if write else None):
            yield

    def finite(self) -> bool:
        """Whether every trained weight that this rank holds is a finite number; what is frozen stays as it was.

        Without the padding of stage 3: DeepSpeed leaves there what was in the memory before (its zero.partition_parameters allocates a
        rank's part by `torch.empty` and copies the weights only)."""
        mine = ((self.owned(parameter), self.span(parameter)[2]) for _, parameter in self.trained)
        return all(bool(torch.isfinite(there.reshape(-1)[:length]).all()) for there, length in mine)

    def span(self, parameter: nn.Parameter) -> tuple[tuple[int, ...], int, int]:
        """Of what `owned` gives: the parameter's whole shape, the first element, and how many there are without padding."""
        partitioned: Any = parameter
        if self.stage < 3 or not hasattr(partitioned, "ds_tensor"):
            return tuple(parameter.shape), 0, parameter.numel()
        share, total = partitioned.ds_tensor.numel(), partitioned.ds_numel
        start = min(self._world.rank * share, total)
        return tuple(partitioned.ds_shape), start, min(share, total - start)

    def owned(self, parameter: nn.Parameter) -> Tensor:
        """What this rank stores of a parameter: at stage 3 its flat shard, else the whole."""
        shard: Any = getattr(parameter, "ds_tensor", None)
        return parameter.detach() if self.stage < 3 or shard is None else shard.detach()


@contextmanager
def flowing(engines: Mapping[str, Engine], name: str) -> Iterator[None]:
    """Gradients flow into what trains now, by phase and by thaw: the network `name`. Through the others they pass to its outputs."""
    still = [parameter for other, engine in engines.items() if other != name for _, parameter in engine.trained]
    still += engines[name].asleep()
    for parameter in still:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in still:
            parameter.requires_grad_(True)


def persistent_buffers(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The buffers that belong to a network's state, by name; not those that it computes anew, and each once."""
    seen: set[int] = set()
    for prefix, child in module.named_modules():
        for name, buffer in child.named_buffers(prefix, recurse=False):
            if name.removeprefix(f"{prefix}.") not in child._non_persistent_buffers_set and id(buffer) not in seen:
                seen.add(id(buffer))
                yield name, buffer
