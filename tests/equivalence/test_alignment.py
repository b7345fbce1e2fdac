"""What learns from preferences and from rewards, at every ZeRO stage, on one and two workers, with accumulation: weights follow plain torch
loops that go through each row by itself. Stopped amid and gone on, they are the same bits, and with another number of workers the same
numbers. One group of processes of each size trains all of it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))

import group
import plain_alignment as plain

from tests.models.bases import base

pytestmark = pytest.mark.slow

STEPS, BATCH = 3, 8
ROLLED = {"rewards": plain.REWARDS, "maxCompletion": 6, "temperature": 0.8}
METHODS: dict[str, tuple[dict[str, Any], float]] = {  # the method's part, and the learning rate
    "dpo": ({"beta": 0.5}, 0.1),
    "reward": ({}, 0.1),
    "grpo": ({**ROLLED, "generations": 4, "beta": 0.1, "epochs": 2}, 0.2),
    "distill": ({"temperature": 2.0, "alpha": 0.4}, 0.1),
    "known": ({"temperature": 2.0, "alpha": 0.6, "beta": 0.3, "topK": 5}, 0.1),  # what the teacher says is asked once
    "own": ({"beta": 0.5, "onPolicy": 0.6, "maxCompletion": 6, "hiddenStates": 0.5}, 0.1),  # some completions are the student's own
    "dynamic": ({**ROLLED, "rewards": plain.REWARDS[1:], "generations": 2, "beta": 0.1, "dynamicSampling": 2}, 0.2),
    "ppo": ({**ROLLED, "epochs": 2, "klCoefficient": 0.2, "lambda": 0.9, "gamma": 0.95, "missingEosPenalty": 0.3}, 0.2),
}
CASES = [f"{method}-z{stage}-w2" for method in METHODS for stage in range(4) if method not in ("dynamic", "distill", "known", "own")]
CASES += [f"{method}-z{stage}-w1" for method in METHODS for stage in (0, 3) if method not in ("dynamic", "distill", "known", "own")]
CASES += ["dynamic-z3-w2", "dynamic-z0-w1", "known-z3-w2", "known-z0-w1"]
CASES += [f"{method}-z{stage}-w{workers}" for method in ("distill", "own") for stage, workers in ((0, 1), (1, 2), (2, 2), (3, 2))]
WON = [f"won-{method}-z{cut}" for method in ("dpo", "grpo") for cut in ("0-w1", "3-w2")]  # win rates, by how it is cut
STOPPED = ["dpo-z2-w2", "grpo-z3-w2", "ppo-z3-w2", "dynamic-z3-w2", "own-z3-w2"]  # after one of the steps


def spec(name: str, root: Path, workers: int | None = None, stage: int | None = None) -> dict[str, Any]:
    given, z, w = name.split("-")[:3]
    method = {"dynamic": "grpo", "own": "distill", "known": "distill"}.get(given, given)
    workers = int(w[1:]) if workers is None else workers
    part, learning_rate = METHODS[given]
    data = {"dpo": "pairs", "reward": "pairs", "distill": "answers"}.get(method, "prompts")
    network: dict[str, Any] = {"network": {"architecture": "llama", "layers": 2, "hidden": 32, "heads": 2, "contextLength": 48}}
    if method == "distill":
        network = {"network": {"contextLength": 48}, "base": {"source": f"file://{root / 'student'}"}, "packing": "none"}
        part = {**part, "teacher": {"source": f"file://{root / 'teacher'}"}}
    return {
        "language": {**network, "method": method, method: part},
        "data": {"source": f"file://{root / data}", "holdout": 0},
        "training": {
            "steps": STEPS,
            "batch": {"global": BATCH, "micro": 4 // workers},
            "optimizers": {"default": {"name": "sgd", "learningRate": learning_rate, "momentum": 0.9}},
        },
        "deepspeed": {"stage": int(z[1:]) if stage is None else stage},
        "compute": {"workers": workers, "gpusPerWorker": 0},
        "evaluation": {"samples": 1},
    }


def won(name: str, root: Path) -> dict[str, Any]:
    made = spec(name.removeprefix("won-"), root)
    rewards = [{"function": "regex", "pattern": "[a-z]{2}"}]
    return made | {
        "data": {**made["data"], "holdout": 0.3},
        "training": {**made["training"], "steps": 2, "optimizers": {"default": {"name": "adam", "learningRate": 0.1}}},
        "evaluation": {"samples": 1, "metrics": ["loss", "win_rate"], "rewards": rewards},
    }


def write(root: Path) -> None:
    for name in ("pairs", "prompts", "answers"):
        (root / name).mkdir()
    pairs = [{"prompt": f"{n} of " * (1 + n % 3), "chosen": "yes" * (1 + n % 4), "rejected": "no" + "t" * (n % 5)} for n in range(40)]
    prompts = [{"prompt": "ask " * (1 + n % 3) + str(n)} for n in range(40)]
    answers = [{"prompt": "ask " * (1 + n % 3) + str(n), "completion": "say" * (1 + n % 4)} for n in range(40)]
    for name, rows in (("pairs", pairs), ("prompts", prompts), ("answers", answers)):
        (root / name / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("alignment")
    write(root)
    base(root / "student", "llama", layers=1)
    base(root / "teacher", "gpt2", width=48)
    for name in CASES:
        group.prepare(root / name, spec(name, root))
    for name in STOPPED:
        for more in ("again", "alone"):
            group.prepare(root / f"{name}-{more}", spec(name, root))
    for name in WON:
        group.prepare(root / name, won(name, root))
    two = [str(root / name) for name in CASES if name.endswith("w2")]
    for name in STOPPED:
        two += [f"{root / name}-again=1", f"{root / name}-again", f"{root / name}-alone=1"]
    group.run_group(2, [*two, *(str(root / name) for name in WON if name.endswith("w2"))], root)
    for name in STOPPED:
        group.prepare(root / f"{name}-alone", spec(name, root, workers=1, stage=0))
    one = [str(root / name) for name in CASES if name.endswith("w1")]
    one += [str(root / name) for name in WON if name.endswith("w1")]
    group.run_group(1, [*one, *(f"{root / name}-alone" for name in STOPPED)], root)
    return root


@pytest.fixture(scope="module")
def wanted(root: Path) -> dict[str, tuple[dict[str, Tensor], list[list[int]]]]:
    return {method: plain.trained(group.job(spec(f"{method}-z0-w1", root)), root / "cache") for method in METHODS}


@pytest.mark.parametrize("name", [*CASES, *(f"{name}-alone" for name in STOPPED)])
def test_weights_are_those_of_a_plain_loop(name: str, root: Path, wanted: dict[str, Any]) -> None:
    theirs, _ = wanted[name.split("-")[0]]
    ours = group.weights(root / name, "model")
    assert ours.keys() == theirs.keys()
    difference = max(float((ours[key] - theirs[key]).abs().max()) for key in ours)
    assert difference < 2e-6, f"{name}: {difference:.1e}"


@pytest.mark.parametrize("name", STOPPED)
def test_a_run_that_was_stopped_goes_on_bit_for_bit(name: str, root: Path) -> None:
    ours, undisturbed = (group.weights(root / one, "model") for one in (f"{name}-again", name))
    assert all(torch.equal(ours[key], undisturbed[key]) for key in undisturbed)
    assert group.losses(root / f"{name}-again") == group.losses(root / name)


def test_completions_end_at_unequal_lengths(wanted: dict[str, Any]) -> None:
    """Else neither cut off nor ended ones were tried."""
    for method in ("grpo", "ppo", "own"):
        lengths = {len(completion) for completion in wanted[method][1]}
        assert len(lengths) > 1, lengths


def test_dynamic_sampling_draws_more_and_keeps_groups_that_differ(root: Path) -> None:
    tries, flat = (group.losses(root / "dynamic-z3-w2", f"groups/{name}") for name in ("tries", "flat"))
    assert max(tries) == 2
    assert tries == group.losses(root / "dynamic-z0-w1", "groups/tries")
    assert min(flat) < 1
    rows = [json.loads(line) for line in (root / "dynamic-z3-w2" / "metrics.jsonl").read_text().splitlines()]
    assert [row["samples"] for row in rows if "loss" in row][-1] == BATCH * sum(tries)


@pytest.mark.parametrize("method", ["grpo", "ppo"])
def test_what_is_told_of_a_step_does_not_depend_on_its_cut(method: str, root: Path) -> None:
    names = ["loss", "reward", "entropy", "clipped", "completion/length", *(["kl/k1", "kl/k3"] if method == "ppo" else ["kl/reference"])]
    for name in names:
        one, other = (group.losses(root / f"{method}-{case}", name) for case in ("z0-w1", "z3-w2"))
        assert len(one) == STEPS
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize("method", ["dpo", "grpo"])
def test_a_win_rate_is_the_same_on_any_number_of_workers(method: str, root: Path) -> None:
    """Of some 12 held-out prompts, of which the second worker has the fewer."""
    one, two = ((root / f"won-{method}-z{cut}" / "metrics.jsonl").read_text().splitlines() for cut in ("0-w1", "3-w2"))
    rates = [[row["heldout/win_rate"] for row in map(json.loads, rows) if "heldout/win_rate" in row] for rows in (one, two)]
    assert rates[0]
    assert rates[0] == rates[1]
    assert all(0 <= rate <= 1 for rate in rates[0])
    if method == "dpo":  # so much is learned in two steps that something differs; of rewards it need not be
        assert rates[0][-1] != 0.5
