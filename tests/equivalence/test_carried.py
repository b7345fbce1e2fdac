"""What the interface between loop and objectives carries, each against a plain torch loop: at every ZeRO stage on two processes, with
accumulation, stopped amid and resumed to the last bit, and resumed by one process instead of two.

Each is resumed at two stages, and at each stage half of them; GENTRAIN_ALL_STAGES=1 for each at every stage.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))

import carried
import group

from trainjobs.api.job import Job
from trainjobs.data import open_source
from trainjobs.noise import Noise

pytestmark = pytest.mark.slow

STEPS, BATCH, STOP = 8, 16, 3
KINDS = ("rollout", "teacher", "thaw", "tokens", "growing", "pairs", "encoded", "adapts")
STAGES = (0, 1, 2, 3)
RESUMED = [
    (kind, stage)
    for number, kind in enumerate(KINDS)
    for stage in STAGES
    if os.environ.get("GENTRAIN_ALL_STAGES") or (number // 2 + stage) % 2 == 0
]
SGD = {"name": "sgd", "learningRate": 0.05, "momentum": 0.9}
ADAMW = {"name": "adamw", "learningRate": 1e-3, "weightDecay": 0.1}
OPTIMIZERS = {
    "thaw": {"head": ADAMW, "body": {**ADAMW, "learningRate": 3e-3}},
    "growing": {"first": {**SGD, "momentum": 0.9}, "second": {**SGD, "learningRate": 0.02}},
}


def spec(kind: str, stage: int, workers: int) -> dict[str, Any]:
    return {
        "custom": {"objective": "carried:build", "options": {"kind": kind}},
        "data": {"source": "builtin:digits", "images": {"size": 8, "channels": 1}},
        "training": {
            "steps": STEPS,
            # Thaw with AdamW, which divides by the size of gradients: no accumulation, whose sums round in another order.
            "batch": {"global": BATCH, "micro": BATCH // workers if kind == "thaw" else 2},
            "optimizers": OPTIMIZERS.get(kind, {"default": SGD}),
            "gradientClipping": 0.5,
        },
        "deepspeed": {"stage": stage},
        "compute": {"workers": workers, "gpusPerWorker": 0},
        "checkpoints": {"every": {"steps": STOP}},
        "evaluation": {"samples": 1, "everySteps": STEPS},
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind at every stage: undisturbed; stopped after STOP steps and gone on; and gone on by one process."""
    root = tmp_path_factory.mktemp("carried")
    for script, kinds in (("worker.py", [kind for kind in KINDS if kind != "pairs"]), ("paired.py", ["pairs"])):
        whole, halves, alone = list[str](), list[str](), list[str]()
        for kind in kinds:
            for stage in STAGES:
                whole.append(str(group.prepare(root / f"{kind}-z{stage}", spec(kind, stage, 2))))
                if (kind, stage) in RESUMED:
                    halves.append(str(group.prepare(root / f"{kind}-z{stage}-resumed", spec(kind, stage, 2))))
            alone.append(str(group.prepare(root / f"{kind}-alone", spec(kind, 3, 2))))
        stopped = [f"{run}={STOP}" for run in (*halves, *alone)]
        group.run_group(2, [*whole, *stopped, *halves], root, script=script)
        for run in map(Path, alone):
            group.prepare(run, spec(run.name.removesuffix("-alone"), 1, 1))
        group.run_group(1, alone, root, script=script)
    return root


class Plain:
    """A plain loop: the whole batch at once, torch.optim, one process."""

    def __init__(self, kind: str, cache: Path) -> None:
        job = Job.model_validate(group.job(spec(kind, 0, 1)))
        self.source: Any = open_source(job.spec, cache)
        self.kind = kind
        made = carried.networks(kind)
        self.net, self.teacher = made["net"], made.get("teacher")
        self.optimizer = self._optimizer()

    def _optimizer(self) -> torch.optim.Optimizer:
        net: Any = self.net
        if self.kind == "thaw":
            groups = [{"params": net[2].parameters(), "lr": 1e-3}, {"params": net[0].parameters(), "lr": 3e-3}]
            return torch.optim.AdamW(groups, weight_decay=0.1)
        if self.kind == "growing":
            groups = [{"params": net.first.parameters(), "lr": 0.05}, {"params": net.second.parameters(), "lr": 0.02}]
            return torch.optim.SGD(groups, lr=0.05, momentum=0.9)
        return torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)

    def update(self, loss: Tensor, trained: list[nn.Parameter] | None = None) -> None:
        self.optimizer.zero_grad()
        loss.backward()
        parameters = [p for p in self.net.parameters() if trained is None or any(p is one for one in trained)]
        for p in self.net.parameters():
            if not any(p is one for one in parameters):
                p.grad = None
        nn.utils.clip_grad_norm_(parameters, 0.5)
        self.optimizer.step()

    def train(self) -> dict[str, Tensor]:
        weight, recent = 1.0, list[float]()
        for step in range(STEPS):
            positions = torch.arange(step * BATCH, (step + 1) * BATCH)
            if self.kind == "pairs":
                noise = Noise.of(0, step, "train.0", positions)
                one, other = (self.source.batch(2 * positions + i, 0, noise)["image"].flatten(1) for i in (0, 1))
                self.update((self.net(one) - other).square().mean())
                continue
            x = self.source.batch(positions, 0, Noise.of(0, step, "train.0", positions))["image"].flatten(1)
            match self.kind:
                case "rollout":
                    self._rollout(x, step, positions)
                case "teacher":
                    assert self.teacher is not None
                    made = self.net(x)
                    with torch.no_grad():
                        wanted = self.teacher(x)
                    self.update(((made - wanted) ** 2).mean() + 0.3 * ((self.teacher(made) - x) ** 2).mean())
                case "thaw":
                    net: Any = self.net
                    awake = [*net[2].parameters(), *(net[0].parameters() if step >= carried.THAW else ())]
                    self.update(((net(x) - x) ** 2).mean(), awake)
                case "tokens":
                    valid = carried.mask(x)
                    self.update((((self.net(x) - x) ** 2) * valid).sum() / valid.sum())
                case "growing":
                    net = self.net
                    self.update(
                        ((net(x, step) - x) ** 2).mean(), [*net.first.parameters(), *(net.second.parameters() if step >= 4 else ())]
                    )
                case "encoded":
                    self.update(((self.net(torch.tanh(x[:, ::4] * 2)) - x) ** 2).mean())
                case "adapts":
                    plain = ((self.net(x) - x) ** 2).mean()
                    self.update(plain * weight)
                    recent.append(plain.item())
                    if len(recent) == carried.CADENCE:
                        weight, recent = 0.5 * weight + sum(recent) / len(recent), []
        return dict(self.net.state_dict())

    def _rollout(self, x: Tensor, step: int, positions: Tensor) -> None:
        with torch.no_grad():
            action = self.net(x) + 0.3 * Noise.of(0, step, "rollout", positions).normal("action", 8)
            rewards = carried.reward(action, x)
            advantage = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
        for _ in range(2):
            for part in (slice(0, BATCH // 2), slice(BATCH // 2, BATCH)):
                self.update((advantage[part] * ((self.net(x[part]) - action[part]) ** 2).sum(1)).mean() * 0.1)


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Tensor]]:
    torch.set_num_threads(1)
    cache = tmp_path_factory.mktemp("plain")
    known: dict[str, dict[str, Tensor]] = {}

    def reference(kind: str) -> dict[str, Tensor]:
        if kind not in known:
            known[kind] = Plain(kind, cache).train()
        return known[kind]

    return reference


def difference(run: Path, expected: dict[str, Tensor]) -> float:
    found = group.weights(run, "net")
    assert found.keys() == expected.keys()
    return max(float((found[name] - value).abs().max()) for name, value in expected.items())


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_follows_plain_torch(kind: str, stage: int, runs: Path, references: Any) -> None:
    assert difference(runs / f"{kind}-z{stage}", references(kind)) < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_learns(kind: str, references: Any) -> None:
    """Else all comparisons would be of first weights."""
    fresh = carried.networks(kind)["net"].state_dict()
    assert all(float((references(kind)[name] - value).abs().max()) > 1e-4 for name, value in fresh.items())


@pytest.mark.parametrize(("kind", "stage"), RESUMED)
def test_goes_on_to_the_last_bit(kind: str, stage: int, runs: Path) -> None:
    undisturbed, resumed = (group.weights(runs / f"{kind}-z{stage}{suffix}", "net") for suffix in ("", "-resumed"))
    assert undisturbed.keys() == resumed.keys()
    assert all(torch.equal(undisturbed[name], resumed[name]) for name in undisturbed)


@pytest.mark.parametrize("kind", KINDS)
def test_one_process_goes_on_where_two_stopped(kind: str, runs: Path, references: Any) -> None:
    """From stage 3 to stage 1 as well. Its sums run in another order, so not to the last bit."""
    assert difference(runs / f"{kind}-alone", references(kind)) < 1e-6
