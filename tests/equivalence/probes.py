"""One process of a group that looks at single facts about DeepSpeed: `python probes.py RANK SIZE STORE FOLDER`.

Rank 0 writes what every rank found into FOLDER/found.json, as a list by rank. What it means is asserted in test_traps.py.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import deepspeed
import torch
import torch.distributed as dist
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))

from trainjobs import loop
from trainjobs.api.job import Job, Spec
from trainjobs.engine.ema import Ema, share_buffers
from trainjobs.engine.engine import Engine, connect
from trainjobs.evaluate.setting import Setting
from trainjobs.optim import optimizers
from trainjobs.optim.groups import grouped
from trainjobs.plan.deepspeed import deepspeed_config
from trainjobs.workers.process import leave
from trainjobs.world import World

TURNS, MICRO = 3, 4


def spec(precision: str = "fp32", rate: float = 1.0, name: str = "sgd") -> Spec:
    """A job whose only part that counts here is its optimizer: plain descent, so that weights tell gradients."""
    return Spec.model_validate(
        {
            "vae": {},
            "data": {"source": "builtin:digits"},
            "training": {
                "steps": 1,
                "batch": {"global": 2 * MICRO},
                "precision": precision,
                "optimizers": {"default": {"name": name, "learningRate": rate}},
            },
        }
    )


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 1))


def data(rank: int, turn: int) -> Tensor:
    """Micro-batches scaled so that the gradient's norm is well above 1: a clipped one could not be missed."""
    return 3.0 * torch.randn(MICRO, 6, generator=torch.Generator().manual_seed(100 * turn + rank)) + turn + 1


def loss(model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return (model(x) - 2.0).square().mean()


def penalty(model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The gradient penalty of WGAN-GP."""
    y = x.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(model(y).sum(), y, create_graph=True)
    return (slope.norm(dim=1) - 1.0).square().mean()


def exact(turns: Iterable[int], size: int, of: Callable[[nn.Module, Tensor], Tensor] = loss, at: Tensor | None = None) -> Tensor:
    """The gradient of the mean of `of` over these turns of all ranks, divided by TURNS; by plain torch, flat. `at`: other weights."""
    plain = network()
    if at is not None:
        nn.utils.vector_to_parameters(at, plain.parameters())
    for turn in turns:
        for rank in range(size):
            (of(plain, data(rank, turn)) / (TURNS * size)).backward()
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in plain.parameters()])


def flat(engine: Engine) -> Tensor:
    parameters = list(engine.module.parameters())
    with engine.whole(parameters):
        return torch.cat([p.detach().float().flatten().clone() for p in parameters])


def trainable(module: nn.Module, chosen: Spec, stage: int, world: World) -> Engine:
    """The trainer's engine at its peak rate."""
    engine = Engine("net", module, grouped("net", module, None, {}, chosen.training.optimizer), chosen, stage, MICRO, world)
    engine.set_rates(1.0)
    return engine


def initialized(stage: int, world: World, without: tuple[str, ...] = ()) -> Any:
    """DeepSpeed's own engine under our configuration, less some of its keys."""
    model, chosen = network(), spec()
    config = deepspeed_config(chosen, stage=stage, micro=MICRO, workers=world.size, parameters=300, tested_optimizer=False)
    config = {key: value for key, value in config.items() if key not in without}
    return deepspeed.initialize(
        model=model, optimizer=optimizers.build(grouped("x", model, None, {}, chosen.training.optimizer)), config=config
    )[0]


def descended(engine: Any, before: Tensor) -> Tensor:
    """The gradient that an engine's step has applied."""
    parameters = list(engine.module.parameters())
    with deepspeed.zero.GatheredParameters(parameters, enabled=engine.zero_optimization_stage() == 3):
        return before - torch.cat([p.detach().float().flatten() for p in parameters])


# --- the probes: (stage, world) -> JSON ---------------------------------------------------------------------------------------------


def several_backwards(stage: int, world: World) -> Any:
    """Twice three micro-batches and a step, on our engine: how far the gradients are from plain torch's, and their norm."""
    engine = trainable(network(), spec(rate=0.01), stage, world)
    errors, norms = [], []
    for _ in range(2):
        before = flat(engine)
        expected = exact(range(TURNS), world.size, at=before)
        for turn in range(TURNS):
            engine.backward(loss(engine.module, data(world.rank, turn)) / TURNS)
        engine.step()
        errors.append(float((before - flat(engine) - 0.01 * expected).abs().max()))
        norms.append(float(expected.norm()))
    return {"errors": errors, "norms": norms}


def gradient_penalty(stage: int, world: World) -> Any:
    """A second derivative through `module`."""
    engine = trainable(network(), spec(), stage, world)
    before, expected = flat(engine), exact(range(TURNS), world.size, penalty)
    for turn in range(TURNS):
        engine.backward(penalty(engine.module, data(world.rank, turn)) / TURNS)
    engine.step()
    return float((before - flat(engine) - expected).abs().max())


def gradient_penalty_through_engine(stage: int, world: World) -> Any:
    """The same through `engine(x)`: None when it is exact, else what is wrong."""
    engine = initialized(stage, world)
    before, expected = torch.cat([p.detach().flatten() for p in network().parameters()]), exact([0], world.size, penalty)
    try:
        engine.backward(penalty(engine, data(world.rank, 0)) / TURNS)
        engine.step()
    except Exception as error:
        return type(error).__name__
    difference = float((descended(engine, before) - expected).abs().max())
    return None if difference < 1e-5 else f"off by {difference}"


def managed_default(stage: int, world: World) -> Any:
    """Several backwards before one step with DeepSpeed's default management: None when the gradient is exact, else what is wrong."""
    engine = initialized(stage, world, without=("managed_gradient_accumulation",))
    before, expected = torch.cat([p.detach().flatten() for p in network().parameters()]), exact(range(TURNS), world.size)
    try:
        for turn in range(TURNS):
            engine.backward(loss(engine.module, data(world.rank, turn)) / TURNS)
        engine.step()
    except Exception as error:
        return type(error).__name__
    difference = float((descended(engine, before) - expected).abs().max())
    return None if difference < 1e-5 else difference


def uncounted(stage: int, world: World) -> Any:
    """Our configuration, but nobody tells the optimizer of a new micro-batch: distance from the exact gradient, and from the last
    micro-batch's alone."""
    engine = initialized(stage, world)
    before = torch.cat([p.detach().flatten() for p in network().parameters()])
    for turn in range(TURNS):
        engine.backward(loss(engine.module, data(world.rank, turn)) / TURNS)
    engine.step()
    gradient = descended(engine, before)
    return {
        "exact": float((gradient - exact(range(TURNS), world.size)).abs().max()),
        "last": float((gradient - exact([TURNS - 1], world.size)).abs().max()),
    }


def edit_in_place(stage: int, world: World) -> Any:
    """Weights set to 7 outside the optimizer, then a step with gradient 0: the share of them that is still 7."""
    engine = trainable(network(), spec(), stage, world)
    parameters = list(engine.module.parameters())
    with torch.no_grad(), engine.whole(parameters, write=True):
        for p in parameters:
            p.fill_(7.0)
    engine.backward(0.0 * loss(engine.module, data(world.rank, 0)))
    engine.step()
    return float((flat(engine) == 7.0).float().mean())


def first_update(stage: int, world: World) -> Any:
    """How far Adam's first step at rate 0.01 moves the weights on average, in bf16."""
    chosen = spec("bf16", rate=0.01, name="adam")
    engine = trainable(network(), chosen, stage, world)
    before = flat(engine)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(engine.module, data(world.rank, 0))
    engine.backward(value)
    engine.step()
    return float((flat(engine) - before).abs().mean())


def moving_average(stage: int, world: World) -> Any:
    """What the networks hold while the averages are applied, and after."""
    found = {}
    for precision in ("fp32", "bf16"):
        engine = trainable(network(), spec(precision, rate=0.1), stage, world)
        ema = Ema({"net": engine}, world)
        expected = flat(engine)
        for turn in range(TURNS):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                value = loss(engine.module, data(world.rank, turn)) / 50
            engine.backward(value)
            engine.step()
            ema.update(0.5)
            expected = torch.lerp(expected, flat(engine), 0.5)
        before = flat(engine)
        dtype = next(engine.module.parameters()).dtype
        with ema.applied():
            within = flat(engine)
        found[precision] = {
            "moved": float((before - expected).abs().max()),
            "within": float((within - expected.to(dtype).float()).abs().max()),
            "restored": torch.equal(before, flat(engine)),
        }
        try:
            with ema.applied():
                raise KeyError
        except KeyError:
            found[precision]["restored after an error"] = torch.equal(before, flat(engine))
    return found


def partitioned_elsewhere(stage: int, world: World) -> Any:
    """Whether transformers takes ZeRO-3 to be on, and partitions a model that is made while an engine trains."""
    from transformers import GPT2Config, GPT2LMHeadModel
    from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

    engine = trainable(network(), spec(), stage, world)
    other = GPT2LMHeadModel(GPT2Config(vocab_size=16, n_positions=8, n_embd=8, n_layer=1, n_head=1))
    return {
        "zero3": bool(is_deepspeed_zero3_enabled()),
        "ours": all(hasattr(p, "ds_id") for p in engine.module.parameters()),
        "other": any(hasattr(p, "ds_id") or p.numel() == 0 for p in other.parameters()),
    }


def buffers(stage: int, world: World) -> Any:
    """Running statistics before and after `share_buffers`."""
    module = nn.Sequential(network(), nn.BatchNorm1d(1))
    engine = trainable(module, spec(), stage, world)
    engine.backward(engine.module(data(world.rank, 0)).square().mean())
    engine.step()
    before = float(engine.module[1].running_mean)
    share_buffers({"net": engine}, world)
    return {"before": before, "after": float(engine.module[1].running_mean), "count": int(engine.module[1].num_batches_tracked)}


STAGED = {
    several_backwards: (0, 1, 2, 3),
    gradient_penalty: (0, 1, 2),
    gradient_penalty_through_engine: (0, 1, 2),
    managed_default: (0, 1, 2, 3),
    uncounted: (3,),
    edit_in_place: (0, 1, 2, 3),
    first_update: (0, 1, 2, 3),
    moving_average: (0, 1, 2, 3),
    partitioned_elsewhere: (3,),
    buffers: (0, 1, 2, 3),
}


# --- whole runs, watched ------------------------------------------------------------------------------------------------------------


def trained_without_forward(folder: Path, world: World) -> Any:
    """Train the run folders below `folder`/runs with an engine that cannot be called, and note the buffers that evaluation sees."""

    def refuse(*arguments: Any, **keywords: Any) -> Any:
        raise AssertionError("engine(x) was called")

    deepspeed.DeepSpeedEngine.forward = refuse
    share, look = loop.share_buffers, loop.evaluation
    seen: dict[str, list[list[float]]] = {}

    def statistics(modules: Iterable[nn.Module]) -> list[float]:
        return [float(b.double().sum()) for module in modules for name, b in module.named_buffers() if "running" in name]

    def sharing(engines: Any, world: World) -> None:
        seen[name].append(statistics(engine.module for engine in engines.values()))
        share(engines, world)

    def looking(setting: Setting, *more: Any) -> Any:
        seen[name].append(statistics(setting.networks.values()))
        return look(setting, *more)

    loop.share_buffers, loop.evaluation = sharing, looking
    for run in sorted((folder / "runs").iterdir()):
        name = run.name
        seen[name] = []
        loop.train(Job.model_validate_json((run / "job.json").read_text()), run, world, sync_every=1)
    return seen


def main() -> None:
    rank, size, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[4])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(sys.argv[3], size), rank=rank, world_size=size)
    world = World(rank, size, torch.device("cpu"))
    connect(world)
    found: dict[str, Any] = {}
    for probe, stages in STAGED.items():
        for stage in stages:
            found[f"{probe.__name__}-{stage}"] = probe(stage, world)
    found["runs"] = trained_without_forward(folder, world)
    everyone = world.gather(found)
    if rank == 0:
        (folder / "found.json").write_text(json.dumps(everyone))
    dist.destroy_process_group()
    leave(0)  # as a worker does


if __name__ == "__main__":
    main()
