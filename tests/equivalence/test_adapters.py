"""Adapters at every ZeRO stage follow plain torch with plain peft, which get the same first weights: two workers, accumulation, resumed by
another number of workers. One group of processes of each size trains all of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))

import group
import plain

from tests.models.bases import base
from trainjobs.api.errors import JobError
from trainjobs.api.job import Job
from trainjobs.checkpoints import locate
from trainjobs.data import open_source
from trainjobs.export.export import export
from trainjobs.noise import mix
from trainjobs.objectives.build import build

pytestmark = pytest.mark.slow

STEPS, BATCH, CONTEXT = 10, 8, 24
SGD = {"name": "sgd", "learningRate": 0.05, "momentum": 0.9}
ADAMW = {"name": "adamw", "learningRate": 1e-3}
ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {"type": "lora", "rank": 4, "dropout": 0.0},
    "adam": {"type": "lora", "rank": 4, "dropout": 0.0},
    "bf16": {"type": "lora", "rank": 4, "dropout": 0.0},
    "rslora": {"type": "lora", "rank": 4, "dropout": 0.0, "rankStabilized": True, "targets": ["q_proj", "layers.0.*.v_proj"]},
    "saved": {"type": "lora", "rank": 2, "dropout": 0.0, "targets": ["q_proj"], "modulesToSave": ["lm_head"]},
    "tokens": {"type": "lora", "rank": 2, "dropout": 0.0, "targets": ["q_proj"], "trainTokens": ["e", "<|end|>", " "]},
    "tied": {"type": "lora", "rank": 2, "dropout": 0.0, "targets": ["q_proj"], "trainTokens": ["e", "<|end|>", " "]},
    "dora": {"type": "dora", "rank": 4, "dropout": 0.0},
    "ia3": {"type": "ia3"},
    "prompt": {"type": "prompt", "virtualTokens": 4},
    "pTuning": {"type": "pTuning", "virtualTokens": 4},
    "prefix": {"type": "prefix", "virtualTokens": 4},
    "bottleneck": {"type": "bottleneck", "reduction": 4},
    "whole": {},  # no adapter: the base itself is trained
    "unfreezing": {},
}
CASES = [
    *(("lora", stage) for stage in (0, 1, 2, 3)), ("rslora", 1), ("saved", 2), ("saved", 3),
    ("tokens", 1), ("tokens", 3), ("tied", 0), ("tied", 2), ("tied", 3), ("dora", 3), ("ia3", 2), ("ia3", 3),
    ("prompt", 0), ("prompt", 3), ("pTuning", 3), ("prefix", 2), ("prefix", 3), ("bottleneck", 1), ("bottleneck", 3), ("whole", 2),
    ("unfreezing", 1), ("unfreezing", 3),
]  # fmt: skip
RESUMED = "lora-resumed"


def base_of(name: str) -> str:
    return "base-tied" if name == "tied" else "base"


def spec(name: str, stage: int, root: Path, workers: int) -> dict[str, Any]:
    return {
        "language": {
            "base": {"source": f"file://{root / base_of(name)}"},
            **({"adapter": ADAPTERS[name]} if ADAPTERS[name] else {}),
            **({"unfreezing": {"every": 3}} if name == "unfreezing" else {}),
            "network": {"contextLength": CONTEXT},
        },
        "data": {"source": f"file://{root / 'text'}"},
        "training": {
            "steps": STEPS,
            # Adam multiplies the rounding of another order of sums where a gradient is almost zero (test_zero_matrix.py).
            "batch": {"global": BATCH, "micro": BATCH if name == "adam" else 2},
            **({"precision": "bf16"} if name == "bf16" else {}),
            "optimizers": {"default": ADAMW if name == "adam" else SGD},
        },
        "deepspeed": {"stage": stage},
        "compute": {"workers": workers, "gpusPerWorker": 0},
        "evaluation": {"samples": 1},
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every case on two workers with an accumulation of 2; one of them is stopped halfway, and goes on as a single worker of stage 0."""
    root = tmp_path_factory.mktemp("adapters")
    base(root / "base", "llama")
    base(root / "base-tied", "llama", tied=True)
    (root / "text").mkdir()
    for number in range(8):
        (root / "text" / f"{number}.txt").write_text(f"line {number} of some text, which is as good as any other. " * 12)
    runs = [str(group.prepare(root / f"{name}-{stage}", spec(name, stage, root, 2))) for name, stage in CASES]
    runs += [str(group.prepare(root / f"bf16-{stage}", spec("bf16", stage, root, 2))) for stage in (0, 2, 3)]
    resumed = group.prepare(root / RESUMED, spec("lora", 3, root, 2))
    waking = group.prepare(root / "unfreezing-resumed", spec("unfreezing", 1, root, 2))  # stopped where a block begins to train
    group.run_group(2, [*runs, f"{resumed}=5", f"{waking}=3"], root, script="at_once.py")
    group.prepare(resumed, spec("lora", 0, root, 1))
    group.prepare(waking, spec("unfreezing", 0, root, 1))
    alone = group.prepare(root / "adam-alone", spec("adam", 0, root, 1))
    group.run_group(1, [str(resumed), str(waking), str(alone)], root, script="at_once.py")
    return root


_plain: dict[str, dict[str, Tensor]] = {}


def trained(name: str, root: Path) -> dict[str, Tensor]:
    """The trained weights after all steps of a loop of plain torch over a plain peft model, whole batches at once."""
    if name in _plain:
        return _plain[name]
    told = Job.model_validate(group.job(spec(name, 0, root, 1))).spec
    source = open_source(told, root / "cache")
    torch.manual_seed(mix(told.training.seed, "weights"))
    first = {path: p.detach().clone() for path, p in build(told, source.info).modules["model"].named_parameters() if p.requires_grad}
    model = peft_model(name, root)
    ours = {path: p for path, p in model.named_parameters() if p.requires_grad}
    assert ours.keys() == first.keys()
    with torch.no_grad():
        for path, parameter in ours.items():
            parameter.copy_(first[path])
    chosen: torch.optim.Optimizer = torch.optim.SGD(ours.values(), lr=0.05, momentum=0.9)
    stages: list[list[nn.Parameter]] = []
    if name == "unfreezing":  # the last block with the norm and the layer behind it, the block before, the embedding
        parts = ("layers.1.", "model.norm", "lm_head"), ("layers.0.",), ("embed_tokens",)
        stages = [[p for path, p in ours.items() if any(part in path for part in names)] for names in parts]
        chosen = torch.optim.SGD([{"params": p, "lr": 0.05 / 2.6**depth} for depth, p in enumerate(stages)], lr=0.05, momentum=0.9)
    if name == "adam":
        chosen = torch.optim.AdamW(ours.values(), lr=1e-3, weight_decay=0.0)
    for step in range(STEPS):
        data, _ = plain.draw(told, source, step, "train.0", step * BATCH, BATCH, "cpu")
        tokens = data["tokens"]
        logits = model(input_ids=tokens[:, :-1]).logits[:, -CONTEXT:]
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        chosen.zero_grad()
        loss.backward()
        for parameter in (p for depth, stage in enumerate(stages) if step < 3 * depth for p in stage):
            parameter.grad = None
        chosen.step()
    moved = [path for path, parameter in ours.items() if not torch.equal(parameter, first[path])]
    assert sorted(moved) == sorted(ours), "some parameter has not moved"
    _plain[name] = {path: parameter.detach() for path, parameter in ours.items()}
    return _plain[name]


def peft_model(name: str, root: Path) -> nn.Module:
    """The base as transformers loads it, with an adapter as peft's documentation makes it."""
    from peft import (
        IA3Config,
        LoraConfig,
        PrefixTuningConfig,
        PromptEncoderConfig,
        PromptTuningConfig,
        get_peft_model,
    )
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(root / base_of(name))
    every = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear) and name != "lm_head"]
    lora: dict[str, Any] = {"r": 4, "lora_alpha": 32, "task_type": "CAUSAL_LM"}
    virtual: dict[str, Any] = {"num_virtual_tokens": 4, "task_type": "CAUSAL_LM"}
    if name == "bottleneck":
        return houlsby(model)
    if name in ("whole", "unfreezing"):
        return model  # type: ignore[no-any-return]
    made: nn.Module = get_peft_model(
        model,
        {
            "lora": lambda: LoraConfig(**lora, target_modules=every),
            "adam": lambda: LoraConfig(**lora, target_modules=every),
            "dora": lambda: LoraConfig(**lora, target_modules=every, use_dora=True),
            "rslora": lambda: LoraConfig(
                **lora, use_rslora=True, target_modules=[e for e in every if "q_proj" in e or e == "model.layers.0.self_attn.v_proj"]
            ),
            "saved": lambda: LoraConfig(**{**lora, "r": 2}, target_modules=["q_proj"], modules_to_save=["lm_head"]),
            **dict.fromkeys(
                ("tokens", "tied"),
                lambda: LoraConfig(**{**lora, "r": 2}, target_modules=["q_proj"], trainable_token_indices=[68, 256, 220]),
            ),
            "ia3": lambda: IA3Config(
                task_type="CAUSAL_LM", target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]
            ),
            "prompt": lambda: PromptTuningConfig(**virtual),
            "pTuning": lambda: PromptEncoderConfig(**virtual, encoder_hidden_size=32),
            "prefix": lambda: PrefixTuningConfig(**virtual),
        }[name](),
    )
    return made


def houlsby(model: Any) -> nn.Module:
    """By hand: the two residual branches of every Llama block, with a bottleneck at the end of each."""
    model.requires_grad_(False)
    for block in model.model.layers:
        for layer in (block.self_attn, block.mlp):
            layer.bottleneck = nn.Module()
            layer.bottleneck.down, layer.bottleneck.up = nn.Linear(32, 8), nn.Linear(8, 32)

        def attend(attention: Any = block.self_attn, before: Any = block.self_attn.forward, **given: Any) -> Any:
            out, weights = before(**given)
            return out + attention.bottleneck.up(F.gelu(attention.bottleneck.down(out))), weights

        def feed(x: Tensor, mlp: Any = block.mlp, before: Any = block.mlp.forward) -> Tensor:
            out: Tensor = before(x)
            return out + mlp.bottleneck.up(F.gelu(mlp.bottleneck.down(out)))

        block.self_attn.forward, block.mlp.forward = attend, feed
    return model


@pytest.mark.parametrize(("name", "stage"), [*CASES, ("lora", "resumed"), ("unfreezing", "resumed"), ("adam", "alone")])
def test_an_adapter_follows_plain_peft(root: Path, name: str, stage: int | str) -> None:
    theirs, ours = trained(name, root), group.weights(root / f"{name}-{stage}", "model")
    assert ours.keys() == theirs.keys()  # of the base there is nothing
    difference = max(float((ours[path] - theirs[path]).abs().max()) for path in theirs)
    print(f"{name} at {stage}: {difference:.1e}")
    assert difference < 1e-6


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_base_in_bfloat16_trains_alike(root: Path, stage: int) -> None:
    """Its weights have three digits, so losses have as many; at stage 0 they would be fp32 under autocast, were they trained."""
    half, full = group.losses(root / f"bf16-{stage}"), group.losses(root / "lora-0")
    assert len(half) == len(full) == STEPS
    assert half != full
    assert max(abs(a - b) for a, b in zip(half, full, strict=True)) < 0.02 * full[0]


def test_a_checkpoint_holds_the_adapter_alone_and_names_its_base(root: Path) -> None:
    run = root / "lora-3"
    metadata = json.loads((group.last_commit(run) / "MANIFEST.json").read_text())["metadata"]
    assert set(metadata["base"]["files"]) >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert metadata["base"]["digest"].startswith("sha256:")
    held = {path.name for path in group.last_commit(run).glob("rank-0/*.safetensors")}
    assert held == {"model.safetensors"}
    assert all("lora_" in name for name in group.weights(run, "model"))


def exported(root: Path, name: str, stage: int, folder: Path, *, merge: bool = False) -> Any:
    checkpoints, commit = locate(f"file://{root / f'{name}-{stage}' / 'checkpoints'}")
    return export(checkpoints, commit, folder, weights=None, dtype="fp32", merge=merge)


def logits(model: nn.Module) -> Tensor:
    tokens = torch.arange(40).remainder(7).view(2, 20)
    with torch.no_grad():
        found: Tensor = model.eval()(input_ids=tokens).logits[:, -20:]
    return found


@pytest.mark.parametrize(
    ("name", "stage"), [(n, s) for n, s in CASES if s == (1 if n == "rslora" else 3) and n not in ("bottleneck", "unfreezing")]
)
def test_plain_peft_loads_an_export(root: Path, tmp_path: Path, name: str, stage: int) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    done = exported(root, name, stage, tmp_path / "out")
    assert done.adapter
    assert {path.name for path in (tmp_path / "out").glob("*.*")} == {"adapter_config.json", "adapter_model.safetensors", "gentrain.json"}
    base_model = AutoModelForCausalLM.from_pretrained(root / base_of(name))
    theirs = PeftModel.from_pretrained(base_model, tmp_path / "out")
    ours = peft_model(name, root)
    ours.load_state_dict(group.weights(root / f"{name}-{stage}", "model"), strict=False)
    difference = float((logits(theirs) - logits(ours)).abs().max())
    print(f"{name}: {difference:.1e}")
    assert difference < 1e-5
    assert float((logits(theirs) - logits(AutoModelForCausalLM.from_pretrained(root / base_of(name)))).abs().max()) > 1e-4


@pytest.mark.parametrize(("name", "stage"), [("lora", 3), ("saved", 2), ("tokens", 1), ("tied", 2), ("rslora", 1), ("dora", 3), ("ia3", 2)])
def test_plain_transformers_loads_what_was_merged(root: Path, tmp_path: Path, name: str, stage: int) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    done = exported(root, name, stage, tmp_path / "out", merge=True)
    assert not done.adapter
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    ours = peft_model(name, root)
    ours.load_state_dict(group.weights(root / f"{name}-{stage}", "model"), strict=False)
    difference = float((logits(merged) - logits(ours)).abs().max())
    print(f"{name} merged: {difference:.1e}")
    assert difference < 1e-5
    assert (
        AutoTokenizer.from_pretrained(tmp_path / "out")("text").input_ids == AutoTokenizer.from_pretrained(root / "base")("text").input_ids
    )


def test_plain_transformers_loads_what_was_trained_as_a_whole(root: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    exported(root, "whole", 2, tmp_path / "out")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    found = group.weights(root / "whole-2", "model")
    assert all(torch.equal(parameter, found[name]) for name, parameter in theirs.named_parameters())
    assert AutoTokenizer.from_pretrained(tmp_path / "out").eos_token == AutoTokenizer.from_pretrained(root / "base").eos_token
    assert theirs.generation_config.eos_token_id == 256


@pytest.mark.parametrize(("name", "stage", "asked"), [("prompt", 3, "merge"), ("prefix", 3, "merge"), ("bottleneck", 3, "merge"),
    ("bottleneck", 3, "adapter"), ("whole", 2, "merge"), ("whole", 2, "adapter")])  # fmt: skip
def test_what_cannot_be_exported_is_refused(root: Path, tmp_path: Path, name: str, stage: int, asked: str) -> None:
    checkpoints, commit = locate(f"file://{root / f'{name}-{stage}' / 'checkpoints'}")
    with pytest.raises(JobError) as error:
        export(checkpoints, commit, tmp_path / "out", weights=None, dtype="fp32", merge=asked == "merge", adapter=asked == "adapter")
    assert error.value.code == "GTJ0108"
    assert error.value.where == f"--{asked}"
    assert not (tmp_path / "out").exists()


def test_an_export_of_another_base_is_refused(root: Path, tmp_path: Path) -> None:
    """The base that a checkpoint names is asked for again, and must be the same."""
    config, kept = root / "base" / "config.json", (root / "base" / "config.json").read_bytes()
    try:
        config.write_bytes(kept.replace(b'"rms_norm_eps": 1e-06', b'"rms_norm_eps": 1e-05'))
        assert config.read_bytes() != kept
        with pytest.raises(JobError, match=r"config\.json differs") as error:
            exported(root, "lora", 3, tmp_path / "out")
        assert error.value.code == "GTJ0208"
    finally:
        config.write_bytes(kept)
