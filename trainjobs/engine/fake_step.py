"""What a step of a job needs beyond its states, and computes: found by running it on tensors that have shapes and no contents.

torch's FakeTensorMode computes shapes alone, so a model of any size runs in the memory of none. A dispatch mode beside it follows every
storage from the operation that makes it until nobody holds it any more, and keeps the peak; torch's formulas say what the operations
would have computed. Two steps are run, because the first has no optimizer state yet; the second counts.

What a step reads back from the device, and sizes that follow from contents, cannot be known so: Unknown says what stood in the way.
"""

from __future__ import annotations

import copy
import sys
import weakref
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import _lru_cache_wrapper
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from trainjobs.api.job import Spec
from trainjobs.data.pretrained import base_of
from trainjobs.noise import Noise
from trainjobs.objectives.phase import At, Batch, Model, Phase, Rows
from trainjobs.objectives.precision import LOW, autocast
from trainjobs.objectives.shaped import highest_of, phases_of, shaped, weights_of
from trainjobs.optim import optimizers
from trainjobs.plan.memory import Beside, Weights

CPU = torch.device("cpu")


class Unknown(Exception):
    """The step cannot be run without contents; the message says why."""


@dataclass(frozen=True)
class Traced:
    """`flops` of one rank's step: all phases, micro-batches and both directions."""

    weights: Weights
    beside: Beside
    flops: int


class Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of the storages that are alive, now and at most; and floating point operations, by torch's own formulas (its FlopCounterMode
    tracks modules beside it, and fails where a loss differentiates a gradient)."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = self.flops = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def see(self, tensor: object) -> None:
        if not isinstance(tensor, Tensor):
            return
        storage = tensor.untyped_storage()
        if storage not in self._known:
            self._known.add(storage)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, storage.nbytes())

    def _gone(self, size: int) -> None:
        self.now -= size

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        out = function(*arguments, **(keywords or {}))
        if formula := flop_registry.get(function._overloadpacket):
            self.flops += formula(*arguments, **(keywords or {}), out_val=out)
        for leaf in tree_leaves(out):
            self.see(leaf)
        return out


def counted(spec: Spec, make: Callable[[], Model]) -> tuple[Weights, int]:
    """The weights of the job's networks, and the highest ZeRO stage at which they train."""
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    try:
        model = _made(fake, make, spec)
        with fake:
            groups, _ = shaped(model, spec)
    finally:
        _forget()
    return weights_of(model, groups), highest_of(model, groups, spec)


def trace(spec: Spec, make: Callable[[], Model], rows: Rows, accumulation: int) -> Traced:
    """A rank's step on `rows`, a micro-batch as the source gives it, with so many micro-batches a step. `make` builds the networks; it is
    called once or twice, under a FakeTensorMode. Unknown where it cannot be found."""
    try:
        whole = _traced(spec, make, rows, accumulation, halved=False)
        low = spec.training.precision in LOW
        halved = _traced(spec, make, rows, accumulation, halved=True).beside.whole if low else whole.beside.whole
    except Unknown:
        raise
    except RecursionError as error:
        raise Unknown("it reads a tensor's contents back") from error
    except Exception as error:  # of torch's modes there are many kinds
        raise Unknown(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]) from error
    finally:
        _forget()
    return Traced(whole.weights, Beside(whole.beside.whole, halved), whole.flops)


def _made(fake: FakeTensorMode, make: Callable[[], Model], spec: Spec) -> Model:
    """The networks without contents; those that go on from trained weights are read first, as whoever reads them handles real tensors."""
    if base_of(spec) is None:
        with fake:
            return make()
    read = make()
    with FakeCopyMode(fake):
        return copy.deepcopy(read)


def _forget() -> None:
    """Empty the trainer's own caches of constants: what a fake step has put there has no contents, and the next real step would use it."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "trainjobs":
            for found in vars(module).values():
                if isinstance(found, _lru_cache_wrapper):
                    found.cache_clear()


def _traced(spec: Spec, make: Callable[[], Model], rows: Rows, accumulation: int, *, halved: bool) -> Traced:
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    model = _made(fake, make, spec)
    with fake:
        if halved:
            _halve(model.modules, LOW[spec.training.precision])
        groups, _ = shaped(model, spec)
    phases = phases_of(model.objective, model.modules, spec)
    if rolled := next((phase.name for phase in phases if phase.rollout is not None), None):
        raise Unknown(f"phase {rolled} trains on what the networks generate")
    given: Rows = {name: fake.from_tensor(value) for name, value in rows.items()}
    size = len(next(iter(rows.values())))
    positions = fake.from_tensor(torch.arange(size))
    live = Live()
    with fake, live:
        weights = _seen(live, model.modules)
        if model.encode is not None:
            given = model.encode(given)
        made = {name: optimizers.build(own) for name, own in groups.items() if own}
        for name in made:
            model.modules[name].train()
        first = live.now
        for step in range(2):
            states, live.peak, live.flops = live.now, live.now, 0
            for phase in phases:
                for _ in range(phase.repeat):
                    _turn(spec, model, phase, made, given, positions, step, min(accumulation, 2))
    counts = weights_of(model, groups)
    each = weights / max(1, counts.total + counts.frozen)  # bytes of a weight
    found = replace(counts, moments=(states - first) / each / max(1, counts.total) if each else 0.0)
    return Traced(found, Beside(live.peak - states, 0), live.flops * accumulation // min(accumulation, 2))


def _turn(
    spec: Spec, model: Model, phase: Phase, made: Mapping[str, Any], rows: Rows, positions: Tensor, step: int, accumulation: int
) -> None:
    """One step of an optimizer, as the loop makes it."""
    others = [parameter for name, module in model.modules.items() if name != phase.trains for parameter in module.parameters()]
    still = [parameter for parameter in others if parameter.requires_grad]
    for parameter in still:
        parameter.requires_grad_(False)
    for _ in range(accumulation):
        noise = Noise.of(spec.training.seed, step, phase.name, positions)
        data = {} if phase.draws in ("nothing", False) else rows
        with autocast(spec.training.precision, CPU) if spec.training.precision in LOW else nullcontext():
            loss, _ = phase.loss(Batch(data, noise, len(positions), At(step, 0, spec.training.steps)))
        (loss / accumulation).backward()  # type: ignore[no-untyped-call]
        del loss
    made[phase.trains].step()
    made[phase.trains].zero_grad()
    for parameter in still:
        parameter.requires_grad_(True)


def _halve(modules: Mapping[str, nn.Module], to: torch.dtype) -> None:
    """In place, as DeepSpeed does from stage 1 on; `Module.to` would swap tensors, which torch does not do with those of this mode."""
    for module in modules.values():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(to)


def _seen(live: Live, modules: Mapping[str, nn.Module]) -> int:
    """Bytes of all weights; buffers are states as well, and count with what is there."""
    for module in modules.values():
        for parameter in module.parameters():
            live.see(parameter)
    weights = live.now
    for module in modules.values():
        for buffer in module.buffers():
            live.see(buffer)
    return weights
