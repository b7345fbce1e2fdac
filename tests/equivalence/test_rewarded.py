"""A model of rewards is learned from preferences, and others learn by what it says, on two workers: what the preferences were judged by
rises to nine tenths of its maximum and more. Killed within, they go on bit for bit."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import group

from trainjobs.checkpoints import locate
from trainjobs.export.export import export

pytestmark = pytest.mark.slow

STEPS, KILLED, EVERY = 40, 26, 10
TOKENS = 4  # of a completion at most
METHODS: dict[str, tuple[dict[str, Any], float]] = {
    "grpo": ({"generations": 8, "beta": 0.06}, 1e-2),
    "ppo": ({"klCoefficient": 0.5, "epochs": 2}, 1e-2),
}


def letters(text: str) -> float:
    return sum(one.isascii() and one.isalpha() for one in text) / TOKENS


def texts(count: int) -> list[str]:
    """As networks draw them: bytes, more and more of which are letters."""
    drawn = random.Random(0)
    alphabet = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    found = []
    for _ in range(count):
        share = drawn.random()
        made = (drawn.choice(alphabet) if drawn.random() < share else drawn.randrange(256) for _ in range(drawn.choice((2, 3, 4, 4, 4))))
        found.append(bytes(made).decode(errors="replace"))
    return found


def write(root: Path) -> None:
    pairs = []
    drawn = texts(4000)
    for one, other in zip(drawn[::2], drawn[1::2], strict=True):
        if letters(one) != letters(other):
            chosen, rejected = sorted((one, other), key=letters, reverse=True)
            pairs.append({"prompt": f"q{len(pairs) % 10}", "chosen": chosen, "rejected": rejected})
    for name, rows in (("pairs", pairs), ("prompts", [{"prompt": f"q{n}"} for n in range(10)])):
        (root / name).mkdir()
        (root / name / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def spec(method: str, root: Path, data: str, part: dict[str, Any], steps: int, rate: float, **more: Any) -> dict[str, Any]:
    return {
        "language": {"network": {"layers": 1, "hidden": 32, "heads": 2, "contextLength": 24}, "method": method, method: part},
        "data": {"source": f"file://{root / data}", "holdout": 0.05 if data == "pairs" else 0},
        "training": {
            "steps": steps,
            "batch": {"global": 32},
            "optimizers": {"default": {"name": "adam", "learningRate": rate}},
        },
        "compute": {"workers": 1, "gpusPerWorker": 0},
        "checkpoints": {"every": {"steps": EVERY}},
        "evaluation": {"samples": 1},
        **more,
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rewarded")
    write(root)
    judge = group.prepare(root / "judge", spec("reward", root, "pairs", {}, 100, 5e-3))
    group.run_group(1, [str(judge)], root, script="at_once.py")
    store = f"file://{judge / 'checkpoints'}"
    export(*locate(store), root / "exported", weights=None, dtype="fp32")
    two = {"deepspeed": {"stage": 2}, "compute": {"workers": 2, "gpusPerWorker": 0}}
    runs: list[str] = []
    for method, (part, rate) in METHODS.items():
        source = store if method == "ppo" else f"file://{root / 'exported'}"
        own = {**part, "rewards": [{"source": source}], "maxCompletion": TOKENS}
        for name in (method, f"{method}-killed"):
            runs.append(str(group.prepare(root / name, spec(method, root, "prompts", own, STEPS, rate, **two))))
    whole, killed = runs[::2], runs[1::2]
    group.run_group(2, whole, root, script="at_once.py")
    for run in killed:
        with pytest.raises(AssertionError, match="exit codes"):
            group.run_group(2, [f"{run}={KILLED}"], root, script="killed.py")
    group.run_group(2, killed, root, script="at_once.py")
    return root


def test_the_model_of_rewards_tells_better_from_worse(root: Path) -> None:
    told = group.losses(root / "judge", "rewards/accuracy")[-10:]
    assert sum(told) / len(told) > 0.9, told


@pytest.mark.parametrize("method", METHODS)
def test_what_preferences_were_judged_by_is_raised(method: str, root: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    told = group.losses(root / method, "reward")
    assert sum(told[-5:]) > sum(told[:5]), "what the model of rewards says"
    divergence = group.losses(root / method, "kl/reference" if method == "grpo" else "kl/k1")[-1]
    assert 0 < divergence < 4.5, divergence  # of a token; to say one byte alone takes 5.5 nats
    export(*locate(f"file://{root / method / 'checkpoints'}"), tmp_path / "out", weights=None, dtype="fp32")
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.manual_seed(0)
    asked = torch.tensor([[256, *b"q3"]]).expand(64, 3)
    drawn = model.generate(asked, do_sample=True, top_k=0, max_new_tokens=TOKENS, pad_token_id=256, eos_token_id=256)[:, 3:]
    found = [letters(bytes(token for token in row.tolist() if token < 256).decode(errors="replace")) for row in drawn]
    assert sum(found) / len(found) > 0.9, sum(found) / len(found)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_was_killed_goes_on_bit_for_bit(method: str, root: Path) -> None:
    ours, undisturbed = (group.weights(root / one, "model") for one in (f"{method}-killed", method))
    assert all(torch.equal(ours[key], undisturbed[key]) for key in undisturbed)
    steps = [json.loads(line)["step"] for line in (root / f"{method}-killed" / "metrics.jsonl").read_text().splitlines()]
    assert STEPS in steps
