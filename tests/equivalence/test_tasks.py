"""Masked models, models from sequence to sequence and captioners at every ZeRO stage, with unequal rows: weights after steps of gradient
descent are those of plain transformers, which reads each row by itself, unfilled, and computes the loss itself."""

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

from tests.models.task_bases import base
from trainjobs.api.job import Job, Spec
from trainjobs.checkpoints import locate
from trainjobs.data import look, open_source
from trainjobs.export.export import export
from trainjobs.noise import Noise
from trainjobs.objectives.build import build
from trainjobs.objectives.phase import Batch

pytestmark = pytest.mark.slow

STEPS, BATCH, RATE = 3, 8, 0.1
TASKS = {"bert": "masked", "t5": "seq2seq", "spans": "seq2seq", "bart": "seq2seq", "vit-gpt2": "caption"}
# name: (kind, stage, workers, micro, adapter)
CASES: dict[str, tuple[str, int, int, int, bool]] = {
    **{f"{kind}-z{stage}-w2": (kind, stage, 2, micro, False) for kind, micro in (("bert", 2), ("t5", 1)) for stage in (0, 1, 2, 3)},
    "bart-z2-w2": ("bart", 2, 2, 2, False),
    "bart-z3-w2": ("bart", 3, 2, 1, False),
    "vit-gpt2-z0-w2": ("vit-gpt2", 0, 2, 2, False),
    "vit-gpt2-z3-w2": ("vit-gpt2", 3, 2, 2, False),
    "bert-lora-z2-w2": ("bert", 2, 2, 2, True),
    "t5-lora-z3-w2": ("t5", 3, 2, 2, True),
    "vit-gpt2-lora-z1-w2": ("vit-gpt2", 1, 2, 2, True),
    "bert-8x1": ("bert", 0, 1, 1, False),
    "bert-1x8": ("bert", 0, 1, 8, False),
    "spans-z3-w2": ("spans", 3, 2, 2, False),
    "spans-z1-w2": ("spans", 1, 2, 1, False),
    "spans-8x1": ("spans", 0, 1, 1, False),
    "t5-8x1": ("t5", 0, 1, 1, False),
    "bart-1x8": ("bart", 0, 1, 8, False),
}
LORA = {"type": "lora", "rank": 4, "dropout": 0.0}


def spec(name: str, root: Path) -> dict[str, Any]:
    kind, stage, workers, micro, adapter = CASES[name]
    data = {"bert": "text", "spans": "text", "t5": "pairs", "bart": "pairs"}
    pictures = {"source": "builtin:shapes", "images": {"size": 16}, "holdout": 0.001}
    return {
        "language": {
            "task": TASKS[kind],
            "base": {"source": f"file://{root / kind}"},
            "network": {"contextLength": 32},
            **({"adapter": LORA} if adapter else {}),
            **({"spanCorruption": {"noiseDensity": 0.3}} if kind == "spans" else {}),
        },
        "data": {"source": f"file://{root / data[kind]}", "holdout": 0.1} if kind in data else pictures,
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
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tasks")
    for kind in TASKS:
        base(root / kind, "t5", sentinels=6) if kind == "spans" else base(root / kind, kind)
    for folder, rows in (("text", texts()), ("pairs", pairs())):
        (root / folder).mkdir()
        (root / folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for workers in (1, 2):
        folders = [group.prepare(root / "runs" / name, spec(name, root)) for name, case in CASES.items() if case[2] == workers]
        group.run_group(workers, [str(folder) for folder in folders], root, script="at_once.py")
    return root


def texts() -> list[dict[str, str]]:
    return [{"text": "ab cd ef gh "[: 1 + n % 11] * (1 + n % 4)} for n in range(60)]


def pairs() -> list[dict[str, str]]:
    return [{"source": f"{n} and " * (1 + n % 3), "target": "twice " * (n % 4) + str(2 * n)} for n in range(60)]


def theirs(name: str, asked: Spec, root: Path, first: dict[str, Tensor]) -> Any:
    """The model as plain transformers, and plain peft, load it."""
    import transformers
    from peft import LoraConfig, get_peft_model

    kind, *_, adapter = CASES[name]
    which = {
        "bert": "BertForMaskedLM",
        "t5": "T5ForConditionalGeneration",
        "spans": "T5ForConditionalGeneration",
        "bart": "BartForConditionalGeneration",
        "vit-gpt2": "VisionEncoderDecoderModel",
    }
    model = getattr(transformers, which[kind]).from_pretrained(root / kind)
    if adapter:
        model = get_peft_model(model, LoraConfig(r=4, lora_alpha=32, target_modules="all-linear"))
    if adapter:
        short = {path.replace("base_model.model.", "").replace(".default", ""): value for path, value in first.items()}
        with torch.no_grad():
            for path, parameter in model.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(short[path.replace("base_model.model.", "").replace(".default", "")])
    return model.train()


def loss_of(model: Any, row: dict[str, Tensor]) -> Tensor:
    """transformers' own mean over the labels of a row by itself."""
    loss: Tensor
    if "source" in row:
        seen, labels = row["seen"].bool(), row["labels"] != -100
        loss = model(input_ids=row["source"][seen][None], labels=row["labels"][labels][None]).loss
    elif "image" in row:
        mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in ([0.4, 0.5, 0.6], [0.5, 0.25, 0.5]))
        pixels = ((row["image"] + 1) / 2 - mean) / deviation
        loss = model(pixel_values=pixels[None], labels=row["labels"][row["labels"] != -100][None]).loss
    else:
        seen = row["seen"].bool()
        loss = model(input_ids=row["tokens"][seen][None], labels=row["labels"][seen][None]).loss
    return loss


_plain: dict[tuple[str, bool], dict[str, Tensor]] = {}


def plain(name: str, root: Path) -> dict[str, Tensor]:
    """Trained weights after the steps of a loop of plain torch."""
    kind, *_, adapter = CASES[name]
    if (kind, adapter) in _plain:
        return _plain[kind, adapter]
    asked = Job.model_validate(group.job(spec(name, root))).spec
    source: Any = open_source(asked, root / "cache", look(asked))
    from trainjobs.noise import mix

    torch.manual_seed(mix(asked.training.seed, "weights"))
    made = build(asked, source.info)
    first = {path: p.detach().clone() for path, p in made.modules["model"].named_parameters() if p.requires_grad}
    model = theirs(name, asked, root, first)
    trained = {path: p for path, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD(trained.values(), lr=RATE, momentum=0.9)
    for step in range(STEPS):
        positions = torch.arange(step * BATCH, (step + 1) * BATCH)
        noise = Noise.of(asked.training.seed, step, "train.0", positions)
        data = source.batch(positions, asked.training.seed, noise)
        data = dict(made.encode(data)) if made.encode else data
        if kind == "bert":
            objective: Any = made.objective
            data["tokens"], data["labels"] = objective._hidden(Batch(data, noise, BATCH))
        counts = (data["labels"] != -100).sum(1)
        assert len(set(counts.tolist())) > 1 or kind == "vit-gpt2", "rows are to be unequal"
        optimizer.zero_grad()
        for row in range(BATCH):
            (loss_of(model, {field: value[row] for field, value in data.items()}) * counts[row] / counts.sum()).backward()
        optimizer.step()
    found = {path.replace("base_model.model.", "").replace(".default", ""): p.detach() for path, p in trained.items()}
    _plain[kind, adapter] = found
    return found


@pytest.mark.parametrize("name", CASES)
def test_weights_are_those_of_plain_transformers(name: str, root: Path) -> None:
    wanted = plain(name, root)
    found = group.weights(root / "runs" / name, "model")
    ours = {path.replace("base_model.model.", "").replace(".default", ""): value for path, value in found.items()}
    assert ours.keys() == wanted.keys()
    difference = max(float((ours[key] - wanted[key]).abs().max()) for key in ours)
    assert difference < 5e-6, f"{name}: {difference:.1e}"


@pytest.mark.parametrize("name", ["bert-z3-w2", "t5-z3-w2", "bart-z2-w2", "vit-gpt2-z0-w2"])
def test_an_export_is_what_transformers_loads(name: str, root: Path, tmp_path: Path) -> None:
    import transformers

    export(*locate(f"file://{root / 'runs' / name / 'checkpoints'}"), tmp_path / "out", weights=None, dtype="fp32")
    which = {"bert": "AutoModelForMaskedLM", "t5": "AutoModelForSeq2SeqLM", "bart": "AutoModelForSeq2SeqLM"}
    loaded = getattr(transformers, which.get(CASES[name][0], "VisionEncoderDecoderModel")).from_pretrained(tmp_path / "out")
    ours, theirs_ = group.weights(root / "runs" / name, "model"), dict(loaded.named_parameters())
    assert ours.keys() == theirs_.keys()
    assert all(torch.equal(ours[key], theirs_[key]) for key in ours)
    transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
