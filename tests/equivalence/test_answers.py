"""Answers of unequal length, however the batch is cut, at every ZeRO stage: weights follow a plain torch loop.

What is compared are weights after steps of plain gradient descent, that is gradients: the loss of a network that has learned nothing
hides a wrong weight of a token. The plain loop reads each document by itself.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))

import group

from trainjobs.api.job import Job, Spec
from trainjobs.data import look, open_source
from trainjobs.noise import Noise, mix
from trainjobs.objectives.build import build
from trainjobs.objectives.coming import drawn
from trainjobs.plan.batch import cut

pytestmark = pytest.mark.slow

STEPS, BATCH, RATE = 2, 8, 0.3
# name: (architecture, packing, stage, workers, micro, more of language.loss)
CASES: dict[str, tuple[str, str, int, int, int, dict[str, Any]]] = {
    "gpt2-wrapped-z0-w2": ("gpt2", "wrapped", 0, 2, 1, {}),
    "gpt2-wrapped-z1-w2-chunk": ("gpt2", "wrapped", 1, 2, 1, {"chunk": 5}),
    "gpt2-wrapped-z2-w2": ("gpt2", "wrapped", 2, 2, 2, {}),
    "gpt2-wrapped-z3-w2-chunk": ("gpt2", "wrapped", 3, 2, 1, {"chunk": 5}),
    "llama-bfd-z3-w2": ("llama", "bfd", 3, 2, 2, {}),
    "gpt2-wrapped-8x1": ("gpt2", "wrapped", 0, 1, 1, {}),
    "gpt2-wrapped-1x8": ("gpt2", "wrapped", 0, 1, 8, {}),
    "llama-none-smooth": ("llama", "none", 0, 1, 4, {"labelSmoothing": 0.1}),
}


def rows() -> Iterator[dict[str, str]]:
    for n in range(60):  # prompts longer than a context of 16, so that some pieces have nothing to learn; answers of 1 to 14 tokens
        yield {"prompt": f"{n:02d}" + "question " * (1 + n % 4), "completion": "answer"[: n % 7] + "!" * (1 + n % 7)}


def spec(name: str, data: Path) -> dict[str, Any]:
    architecture, packing, stage, workers, micro, loss = CASES[name]
    context = 16 if packing == "wrapped" else 60
    return {
        "language": {
            "network": {"architecture": architecture, "layers": 2, "hidden": 32, "heads": 2, "contextLength": context},
            "packing": packing,
            "loss": loss,
        },
        "data": {"source": f"file://{data}", "holdout": 0.1},
        "training": {
            "steps": STEPS,
            "batch": {"global": BATCH, "micro": micro},
            "optimizers": {"default": {"name": "sgd", "learningRate": RATE, "momentum": 0.9}},
        },
        "deepspeed": {"stage": stage},
        "compute": {"workers": workers, "gpusPerWorker": 0},
        "evaluation": {"samples": 1},
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("answers")
    (root / "data").mkdir()
    (root / "data" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    for workers in (1, 2):
        folders = [group.prepare(root / name, spec(name, root / "data")) for name, case in CASES.items() if case[3] == workers]
        group.run_group(workers, [str(folder) for folder in folders], root)
    return root


def plain(manifest: dict[str, Any], cache: Path) -> tuple[dict[str, Tensor], bool]:
    """Weights after the steps, and whether some micro-batch had nothing to learn."""
    asked: Spec = Job.model_validate(manifest).spec
    assert asked.language
    source: Any = open_source(asked, cache, look(asked))
    torch.manual_seed(mix(asked.training.seed, "weights"))
    model: Any = build(asked, source.info).modules["model"]
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9)
    smoothing, idle = asked.language.loss.label_smoothing, False
    division = cut(asked.training.batch, int(asked.compute.worker_range[1]))
    for step in range(STEPS):
        positions = torch.arange(step * BATCH, (step + 1) * BATCH)
        data = source.batch(positions, asked.training.seed, Noise.of(asked.training.seed, step, "train.0", positions))
        found: list[Tensor] = []
        for row in range(BATCH):
            whose = data["documents"][row] if "documents" in data else torch.where(data["labels"][row] != -100, 0, 0)
            for document in range(int(whose.max()) + 1):
                tokens, labels = (data[name][row][whose == document] for name in ("tokens", "labels"))
                learned = labels != -100
                logs = model(input_ids=tokens[None]).logits[0].log_softmax(-1)[learned]
                found.append(-(1 - smoothing) * logs.gather(1, labels[learned][:, None])[:, 0] - smoothing * logs.mean(-1))
        optimizer.zero_grad()
        torch.cat(found).mean().backward()
        optimizer.step()
        counts = source.units(positions, asked.training.seed)
        for rank in range(division.workers):
            idle |= any(int(counts[rows].sum()) == 0 for rows in drawn(division, rank, 0))
    return {name: parameter.detach() for name, parameter in model.named_parameters()}, idle


@pytest.fixture(scope="module")
def wanted(runs: Path) -> dict[tuple[str, str, float], tuple[dict[str, Tensor], bool]]:
    """By architecture, packing and smoothing: how the batch is cut is nothing to a plain loop."""
    found: dict[tuple[str, str, float], tuple[dict[str, Tensor], bool]] = {}
    for name, (architecture, packing, *_, loss) in CASES.items():
        key = (architecture, packing, loss.get("labelSmoothing", 0.0))
        if key not in found:
            found[key] = plain(group.job(spec(name, runs / "data")), runs / "cache")
    return found


@pytest.mark.parametrize("name", CASES)
def test_weights_are_those_of_a_plain_loop(name: str, runs: Path, wanted: dict[Any, Any]) -> None:
    architecture, packing, *_, loss = CASES[name]
    theirs, _ = wanted[architecture, packing, loss.get("labelSmoothing", 0.0)]
    ours = group.weights(runs / name, "model")
    assert ours.keys() == theirs.keys()
    difference = max(float((ours[key] - theirs[key]).abs().max()) for key in ours)
    assert difference < 2e-6, f"{name}: {difference:.1e}"


def test_some_micro_batches_had_nothing_to_learn(wanted: dict[Any, Any]) -> None:
    """Else the case of a rank without a learned token was not tried."""
    assert wanted["gpt2", "wrapped", 0.0][1]


def test_the_loss_that_is_told_is_the_mean_over_tokens_however_it_is_cut(runs: Path) -> None:
    one, other = group.losses(runs / "gpt2-wrapped-8x1"), group.losses(runs / "gpt2-wrapped-z2-w2")
    assert one == pytest.approx(group.losses(runs / "gpt2-wrapped-1x8"), rel=1e-5)
    assert one == pytest.approx(other, rel=1e-5)
