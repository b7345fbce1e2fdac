"""What depends on how a batch is cut into workers and micro-batches, and what does not: the sentences of docs/concepts/zero.md.

Dropout does not. Batch norm normalises over a micro-batch, and is evaluated with the statistics of rank 0; spectral norm goes one power
iteration further with every micro-batch that a process computes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import group

pytestmark = pytest.mark.slow

STEPS = 4
DIGITS = {"source": "builtin:digits", "images": {"size": 8, "channels": 1}}
LANGUAGE = {
    "language": {"network": {"layers": 2, "hidden": 32, "heads": 2, "contextLength": 16, "dropout": 0.3}},
    "data": {"source": "builtin:stdlib-text"},
}


def gan(*, norm: str = "none", spectral: bool = False) -> dict[str, Any]:
    networks = {
        "generator": {"latentDim": 8, "channels": 4, "normalization": norm},
        "discriminator": {"channels": 4, "spectralNorm": spectral},
    }
    return {"gan": {**networks, "loss": {"type": "hinge"}}, "data": DIGITS}


FAMILIES = {"dropout": LANGUAGE, "norm": gan(norm="batch"), "spectral": gan(spectral=True), "plain": gan()}
CUTS = [(1, 8, 0), (1, 2, 0), (2, 4, 0), (2, 2, 2)]  # workers, micro, stage
CASES = [(family, *cut) for family in FAMILIES for cut in CUTS] + [("dropout", 2, 2, 3)]


def spec(family: str, workers: int, micro: int, stage: int, steps: int = STEPS, schedule: str = "constant") -> dict[str, Any]:
    return {
        **FAMILIES[family],
        "training": {
            "steps": steps,
            "batch": {"global": 8, "micro": micro},
            "optimizers": {"default": {"name": "sgd", "learningRate": 0.1, "momentum": 0.9}},
            "schedule": {"name": schedule},
        },
        "deepspeed": {"stage": stage},
        "compute": {"workers": workers, "gpusPerWorker": 0},
        "checkpoints": {"every": {"steps": STEPS}, "keep": {"last": 3}},
        "evaluation": {"samples": 1, "everySteps": steps},
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cut")
    for workers in (1, 2):
        runs = [str(group.prepare(root / name(*case), spec(*case))) for case in CASES if case[1] == workers]
        if workers == 1:
            runs.append(str(group.prepare(root / "cosine", spec("plain", 1, 8, 0, schedule="cosine"))))
        group.run_group(workers, runs, root)
    # Finished runs go on, cut otherwise, for twice as many steps.
    onward = [group.prepare(root / name(family, 1, 8, 0), spec(family, 1, 2, 0, 2 * STEPS)) for family in ("norm", "spectral", "dropout")]
    onward.append(group.prepare(root / "cosine", spec("plain", 1, 8, 0, 2 * STEPS, "cosine")))
    for run in onward:
        torch.save({network: group.weights(run, network) for network in networks(run)}, run / "first.pt")
    group.run_group(1, [str(run) for run in onward], root)
    return root


def name(family: str, workers: int, micro: int, stage: int) -> str:
    return f"{family}-w{workers}-m{micro}-z{stage}"


def networks(run: Path) -> tuple[str, ...]:
    return ("model",) if run.name.startswith("dropout") else ("generator", "discriminator")


def curves(run: Path, metric: str) -> list[float]:
    return group.losses(run, metric)[:STEPS]


def first_weights(run: Path) -> dict[str, dict[str, torch.Tensor]]:
    """After STEPS steps."""
    if (run / "first.pt").exists():
        found: dict[str, dict[str, torch.Tensor]] = torch.load(run / "first.pt")
        return found
    return {network: group.weights(run, network) for network in networks(run)}


def apart(root: Path, family: str, one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    """The largest difference of a weight after STEPS steps."""
    ours, theirs = first_weights(root / name(family, *one)), first_weights(root / name(family, *other))
    return max(float((ours[network][key] - theirs[network][key]).abs().max()) for network in ours for key in ours[network])


@pytest.mark.parametrize("cut", [*CUTS[1:], (2, 2, 3)])
def test_dropout_is_the_same_for_any_cut(cut: tuple[int, int, int], root: Path) -> None:
    ours, whole = (curves(root / name("dropout", *each), "loss") for each in (cut, CUTS[0]))
    assert ours == pytest.approx(whole, rel=1e-6)
    assert apart(root, "dropout", cut, CUTS[0]) < 2e-6


@pytest.mark.parametrize("cut", CUTS[1:])
def test_so_is_a_network_without_any_of_these(cut: tuple[int, int, int], root: Path) -> None:
    assert apart(root, "plain", cut, CUTS[0]) < 2e-6


def test_batch_norm_is_over_a_micro_batch(root: Path) -> None:
    """The same micro-batches train the same weights, whoever computes them; others do not."""
    assert apart(root, "norm", (1, 2, 0), (2, 2, 2)) < 2e-6
    assert apart(root, "norm", (1, 8, 0), (1, 2, 0)) > 1e-4


def test_running_statistics_of_batch_norm_are_those_of_rank_0s_micro_batches(root: Path) -> None:
    one, two = (group.weights(root / name("norm", *cut), "generator", "buffer") for cut in ((1, 2, 0), (2, 2, 2)))
    counted = next(key for key in one if key.endswith("num_batches_tracked"))
    assert float(one[counted]) == 2 * float(two[counted]) > 0
    assert any(not torch.allclose(one[key], two[key], rtol=1e-3) for key in one if key.endswith("running_mean"))


def test_spectral_norm_goes_by_the_micro_batches_of_a_process(root: Path) -> None:
    """As many of them give the same weights, however large they are."""
    assert apart(root, "spectral", (1, 2, 0), (2, 2, 2)) > 1e-4
    assert apart(root, "spectral", (1, 8, 0), (2, 4, 0)) < 2e-6
    assert apart(root, "spectral", (1, 8, 0), (1, 2, 0)) > 1e-4


def warnings(run: Path) -> list[str]:
    rows = [json.loads(line) for line in (run / "attempts.jsonl").read_text().splitlines()]
    return [row["message"] for row in rows if row["event"] == "warning"]


@pytest.mark.parametrize(
    ("family", "words"), [("norm", "batch norm of generator is over a micro-batch"), ("spectral", "spectral norm of discriminator")]
)
def test_a_run_that_goes_on_with_another_cut_is_told_once(family: str, words: str, root: Path) -> None:
    (told,) = warnings(root / name(family, 1, 8, 0))
    assert told.startswith("GTJ0127 micro-batches of 2 on 1 process, before of 8 on 1, change the numbers (spec.training.batch)")
    assert words in told


def test_one_whose_numbers_are_the_same_is_told_nothing(root: Path) -> None:
    assert warnings(root / name("dropout", 1, 8, 0)) == []


def test_a_finished_cosine_run_that_is_extended_says_how_its_rate_leaps(root: Path) -> None:
    rates = group.losses(root / "cosine", "lr/generator")
    assert len(rates) == 2 * STEPS
    assert rates[STEPS - 1] == 0.0
    assert rates[STEPS] > 0.03
    (told,) = warnings(root / "cosine")
    assert f"the learning rate goes from 0 to {rates[STEPS]:.3g} (generator)" in told
    assert f"the cosine schedule ended at step {STEPS}, and ends at step {2 * STEPS} now" in told
