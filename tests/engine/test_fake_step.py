"""A step on fake tensors against the same step on real ones: what torch's allocator had at its peak, and what torch's counter counts."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from trainjobs.api.job import Spec
from trainjobs.data.source import DataInfo
from trainjobs.data.tokens import ByteTokenizer
from trainjobs.engine.fake_step import Live, Unknown, counted, trace
from trainjobs.noise import Noise
from trainjobs.objectives.build import build
from trainjobs.objectives.phase import At, Batch, Model
from trainjobs.objectives.shaped import phases_of, shaped
from trainjobs.optim import optimizers
from trainjobs.plan.memory import peak

IMAGES, TEXT = DataInfo("image", (3, 32, 32), 100, 5), DataInfo("text", (128,), 100, 5, vocabulary=257, tokenizer=ByteTokenizer())
GAN: Any = {"generator": {"channels": 64}, "discriminator": {"channels": 64}}
FAMILIES: dict[str, Any] = {
    "language": {"language": {"network": {"architecture": "gpt2", "layers": 4, "hidden": 128, "heads": 4, "contextLength": 128}}},
    "vae": {"vae": {}},
    "gan": {"gan": GAN},
    "wgan-gp": {"gan": {**GAN, "loss": {"type": "wgan-gp"}}},
    "diffusion": {"diffusion": {}},
}
ROWS = 16


def job(family: str) -> tuple[Spec, DataInfo, dict[str, torch.Tensor]]:
    source = "builtin:stdlib-text" if family == "language" else "builtin:shapes"
    common = {"data": {"source": source}, "training": {"steps": 10, "batch": {"global": ROWS}}}
    spec = Spec.model_validate({**common, **FAMILIES[family]})
    if family == "language":
        return spec, TEXT, {"tokens": torch.randint(257, (ROWS, 129))}
    return spec, IMAGES, {"image": torch.rand(ROWS, 3, 32, 32) * 2 - 1}


def measured(spec: Spec, info: DataInfo, rows: dict[str, torch.Tensor], out: Path) -> int:
    """The most bytes that torch's allocator had in two steps of a plain loop."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        model = build(spec, info)
        groups, _ = shaped(model, spec)
        made = {name: optimizers.build(own) for name, own in groups.items() if own}
        for step in range(2):
            for phase in phases_of(model.objective, model.modules, spec):
                for name, module in model.modules.items():
                    module.requires_grad_(name == phase.trains)
                for _ in range(phase.repeat):
                    noise = Noise.of(0, step, phase.name, torch.arange(ROWS))
                    phase.loss(Batch({} if phase.draws == "nothing" else rows, noise, ROWS, At(step, 0, 10)))[0].backward()
                    made[phase.trains].step()
                    made[phase.trains].zero_grad()
    found.export_chrome_trace(str(out))
    events = [event for event in json.loads(out.read_text())["traceEvents"] if event.get("name") == "[memory]"]
    # Its own total goes on from whatever was profiled before in this process.
    return max(accumulate(event["args"]["Bytes"] for event in sorted(events, key=lambda event: event["args"]["Ev Idx"])))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_peak_is_that_of_torch_s_allocator(family: str, tmp_path: Path) -> None:
    spec, info, rows = job(family)
    found = trace(spec, partial(build, spec, info), rows, 1)
    fake, real = peak(found.weights, found.beside, 0, 1, "fp32"), measured(spec, info, rows, tmp_path / "trace.json")
    print(f"{family}: {fake / 2**20:.1f} MiB, measured {real / 2**20:.1f}, {fake / real - 1:+.1%}")
    assert abs(fake / real - 1) < 0.10


def test_operations_are_those_that_torch_counts() -> None:
    """Of a step that FlopCounterMode can watch."""
    network, rows = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 64, 10)), torch.rand(4, 3, 8, 8)
    with FlopCounterMode(display=False) as theirs:
        F.cross_entropy(network(rows), torch.arange(4)).backward()
    with Live() as ours:
        F.cross_entropy(network(rows), torch.arange(4)).backward()
    assert ours.flops == theirs.get_total_flops() > 0


def test_a_model_of_any_size_takes_no_memory() -> None:
    """Six billion weights, on a machine that could not hold them."""
    network = {"architecture": "llama", "layers": 32, "hidden": 4096, "heads": 32, "contextLength": 128}
    spec = Spec.model_validate(
        {"language": {"network": network}, "data": {"source": "builtin:stdlib-text"}, "training": {"steps": 10, "batch": {"global": 4}}}
    )
    weights, highest = counted(spec, partial(build, spec, TEXT))
    assert weights.total > 6 * 10**9
    assert highest == 3


def test_storages_are_followed_until_nobody_holds_them() -> None:
    with Live() as live:
        first = torch.zeros(1000)
        view = first[10:]
        assert (live.now, live.peak) == (4000, 4000)
        second = torch.zeros(500)
        del second
        assert (live.now, live.peak) == (4000, 6000)
        del first
        assert live.now == 4000, "a view holds it"
        del view
    assert live.now == 0


def test_what_cannot_be_known_is_said() -> None:
    spec, info, rows = job("vae")

    def reads_back() -> Model:
        made = build(spec, info)
        (phase,) = made.objective.phases

        def loss(batch: Batch) -> Any:
            value, metrics = phase.loss(batch)
            return value * float(value), metrics

        return replace(made, objective=SimpleNamespace(phases=(replace(phase, loss=loss),)))  # type: ignore[arg-type]

    with pytest.raises(Unknown):
        trace(spec, reads_back, rows, 1)


@pytest.mark.slow
def test_nothing_of_a_fake_step_is_left_behind() -> None:
    """Constants that the trainer keeps were tensors without contents after one: the next real step then trained on nothing."""
    spec, info, rows = job("diffusion")
    trace(spec, partial(build, spec, info), rows, 1)
    loss, _ = build(spec, info).objective.phases[0].loss(Batch(rows, Noise.of(0, 0, "x", torch.arange(ROWS)), ROWS))
    assert type(loss) is torch.Tensor
    assert float(loss.detach()) > 0
